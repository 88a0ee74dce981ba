"""Child processes of a keeper: started, and reaped together with orphans that came to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from ort_optim.cluster.keeping.processes import die_with_parent

LIKELIEST_VICTIM = "1000"
"""For /proc/PID/oom_score_adj: short of memory, the kernel shall kill the job, not its keeper.

Less would not do: Ray gives 1000 to its workers, and a keeper that one of them starts inherits it.
"""


class Children:
    """Starts processes and tells how each ended. For the one thread that runs the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._exits: dict[int, tuple[subprocess.Popen[bytes], asyncio.Future[int]]] = {}
        loop.add_signal_handler(signal.SIGCHLD, self.reap)

    def start(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        stdin: int | IO[bytes],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        prepare: Callable[[], None] | None = None,
    ) -> tuple[subprocess.Popen[bytes], asyncio.Future[int]]:
        """Start a process in a session, hence a group, of its own.

        Args:
            prepare: Called in the new process before it becomes the program.

        Returns the process and its exit code to come (-N: by signal N). It must not be waited for.
        Raises OSError: there is no such program, or no more processes; ValueError: a NUL in it.
        """

        def before_exec() -> None:
            die_with_parent()
            if prepare is not None:
                prepare()

        process = subprocess.Popen(
            list(argv),
            cwd=str(folder),  # plain text also in the error that it is gone
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=before_exec,
        )
        ended: asyncio.Future[int] = self._loop.create_future()
        self._exits[process.pid] = (process, ended)
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(LIKELIEST_VICTIM)
        return process, ended

    def reap(self) -> None:
        """Take leave of all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            process, ended = self._exits.pop(pid, (None, None))
            code = os.waitstatus_to_exitcode(status)
            if process is not None:
                process.returncode = code
            if ended is not None and not ended.done():
                ended.set_result(code)
