"""The supervisor: whoever drives a keeper on the same machine does it through this class.

    Supervisor(folder).start(job, placement)   a keeper of its own, which outlives this process
    Supervisor(folder).attach()                find the keeper of an earlier process again
    .status() .watch(...) .patch(...) .restart(...) .resume() .stop() .release(...) .debug(...)

It knows no Ray. All calls but `debug` return within seconds; none raises because the job failed:
that is what `Status` is for. InputError is raised where a call can't be obeyed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping import archive as archives
from ort_optim.cluster.keeping import processes
from ort_optim.cluster.keeping.container import find_tool
from ort_optim.cluster.keeping.control import Client
from ort_optim.cluster.keeping.debug_session import DebugSession
from ort_optim.cluster.keeping.launch import launch_keeper, require_posix
from ort_optim.cluster.keeping.leftovers import bury, keeper_lives
from ort_optim.cluster.keeping.patching import apply_patch
from ort_optim.cluster.keeping.spec import Spec, effective_spec, read_spec, write_spec
from ort_optim.cluster.keeping.state_file import ENDED, StateRecord, read_state, to_status
from ort_optim.cluster.keeping.status import Patch, Status
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import State
from ort_optim.errors import InputError, OrtOptimError, WorkerError

ANSWER_S = 30.0  # a keeper that kills a large tree, or that is starved of CPU, takes its time
END_S = 20.0
POLL_S = 0.01


class Supervisor:
    """Drives the keeper of one job folder.

    Args:
        folder: The job's folder, on a file system of this machine: made by `start`, 0700.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError: the system is neither Linux nor macOS."""
        require_posix()
        self._folder = WorkFolder(folder.absolute())

    @property
    def folder(self) -> Path:
        """The job's folder."""
        return self._folder.path

    def start(
        self,
        job: Job,
        placement: Placement,
        *,
        attempt: int = 1,
        fence_pid: int | None = None,
        env: Mapping[str, str] | None = None,
        container_tool: str | None = None,
        poll_s: float = 0.2,
        grace_s: float = 5.0,
        most_starts: int = 100,
    ) -> Status:
        """Start a keeper, and in it the job's child; returns when the child has been started.

        What an earlier attempt left in the folder (finished steps, patches, the log) is kept.

        Args:
            job: What to run; memory, time-out and hold limits are the job's own.
            placement: CPUs and devices on this machine.
            attempt: Which one of the job this is, from 1.
            fence_pid: When this process (a raylet) ends, the keeper kills the job and ends, too.
            env: Added to the child's environment, over the starter's and under the job's.
            container_tool: bwrap or unshare; None takes the first that works here.
            poll_s: How often memory and progress are looked at.
            grace_s: How long a job that is stopped may take to end by itself.
            most_starts: How often the child may be started in all.

        Raises InputError: a keeper runs there already; no tool for containers works here; the
        folder is somebody else's. WorkerError: the keeper died.
        """
        spec = Spec.of(
            job,
            placement,
            env={**(env or {}), **job.env},
            attempt=attempt,
            container=find_tool(container_tool) if job.container else "",
            most_starts=most_starts,
            poll_s=poll_s,
            grace_s=grace_s,
        )
        self._folder.make()
        if keeper_lives(self._folder):
            raise InputError(f"{self.folder}: a keeper has it already: attach to that one")
        self._bury_predecessor()
        write_spec(self._folder, spec)
        if spec.output:
            Path(spec.output).parent.mkdir(parents=True, exist_ok=True)
        launch_keeper(self._folder, fence_pid)
        return self.status()

    def attach(self) -> Status:
        """Find the keeper that an earlier process started, check that it is ours, and ask it.

        Raises InputError: no job there, a state file that is damaged or not to be trusted, or its
        keeper is on another machine. A keeper that died is no error: the state is LOST then, and
        what it left is killed.
        """
        return self.status()

    def status(self) -> Status:
        """How the job stands. Same errors as `attach`."""
        return self._ask(do="status")

    def watch(self, known: Status, timeout_s: float) -> Status:
        """The status as soon as it differs from `known` in more than memory and log.

        After `timeout_s` it is told as it is. The keeper wakes us, so this is quick and costs
        nothing meanwhile. Same errors as `attach`.
        """
        return self._ask(timeout_s, do="watch", known=known.essence(), timeout_s=timeout_s)

    def patch(self, patch: Patch) -> None:
        """Copy the files of a patch into the work folder now; the rest is for the next start.

        Whether `optimize` takes the options is for the caller to check, as in a job file.

        Raises InputError: it does not fit the job, a path leaves the work folder, a source can't be
        read; nothing is changed then.
        """
        read_state(self._folder)
        apply_patch(self._folder, patch)

    def restart(self, patch: Patch | None = None) -> Status:
        """Start the child of a held job again: same slot, folder, container. Patch it before.

        Raises InputError: the job is not held, was started too often, or the patch is refused.
        """
        status = self.status()
        if status.state is not State.HELD:
            raise InputError(
                f"job {self._id()} is {status.state}: only a held job can be restarted"
            )
        if patch:
            self.patch(patch)
        return self._ask(do="restart")

    def resume(self) -> Status:
        """Let the frozen processes of a held job go on (`continue`).

        Raises InputError: nothing is frozen.
        """
        return self._must_live(self._ask(do="continue"), "continued")

    def stop(self) -> Status:
        """Cancel: ask the processes to end, kill what is left after the grace, end the keeper.

        A job that is over stays what it is.
        """
        return self._end("stop")

    def release(self, archive: Path | None = None) -> Status:
        """Give the slot up: kill all, keep an archive, remove the bulk of the folder.

        Args:
            archive: Where the archive goes; None: FOLDER/archive.tar.gz.

        A held job becomes FAILED, a running one CANCELLED; one that is over stays what it is.
        """
        status = self._end("release")
        archives.make_room(self._folder)
        archives.write_archive(self._folder, archive or self.folder / archives.FILE)
        archives.remove_bulk(self._folder)
        return status

    def processes(self) -> list[dict[str, Any]]:
        """The job's processes: pid, parent, name, state, threads, memory, command, waits_in, stack.

        Numbers are those inside the container. The stack is the kernel's, where that is allowed.
        """
        record = self._record()
        if record.state in ENDED:
            return []
        try:
            with self._connect(record) as client:
                found: list[dict[str, Any]] = client.ask(do="processes")["processes"]
        except OSError as error:
            raise self._silent(error) from None
        return found

    def debug(
        self,
        argv: Sequence[str] = (),
        *,
        tty: bool = False,
        rows: int = 24,
        cols: int = 80,
        term: str = "",
    ) -> DebugSession:
        """Run a command, or a shell, inside the work folder, environment and container of the job.

        Args:
            argv: The command; none: the user's shell.
            tty: Give it a terminal of `rows` and `cols` (else three pipes).
            term: Kind of the terminal; empty: that of this process.

        Raises InputError: the job is over, or there is no such command; WorkerError: its keeper
        does not answer.
        """
        record = self._record()
        if record.state in ENDED:
            raise InputError(f"job {record.id} is {record.state}: nothing is left to debug")
        with contextlib.ExitStack() as undo:
            try:
                client = undo.enter_context(self._connect(record))
                client.ask(
                    do="run",
                    argv=list(argv),
                    tty=tty,
                    rows=rows,
                    cols=cols,
                    term=term or os.environ.get("TERM", "dumb"),
                )
            except OSError as error:
                raise self._silent(error) from None
            undo.pop_all()
        client.connection.settimeout(None)
        return DebugSession(client.connection, client.early)

    def log(self, lines: int = 100) -> str:
        """The last lines of the job's log."""
        return self._folder.tail(lines)

    # Below: the keeper, its socket, and what to do when it does not answer

    def _ask(self, longer_s: float = 0.0, **request: Any) -> Status:
        """The keeper's answer, or what it wrote last when it is gone."""
        record = self._record()
        if record.state in ENDED:
            return to_status(self._folder, record)
        try:
            with self._connect(record, longer_s) as client:
                return Status.from_dict(client.ask(**request)["status"])
        except OSError:
            return self._without_answer()

    def _record(self) -> StateRecord:
        """What the keeper wrote last, where it is one of this machine or has ended."""
        record = read_state(self._folder)
        if record.state not in ENDED and record.host != platform.node():
            raise InputError(f"job {record.id} runs on {record.host}: ask there")
        return record

    @staticmethod
    def _connect(record: StateRecord, longer_s: float = 0.0) -> Client:
        return Client(record.socket, ANSWER_S + longer_s)

    def _silent(self, error: OSError) -> WorkerError:
        return WorkerError(
            f"{self.folder}: its keeper does not answer ({error}): look at its state"
        )

    def _without_answer(self) -> Status:
        """The keeper is ending, starved or dead: the file and the lock tell which."""
        folder = self._folder
        self._wait(lambda: not keeper_lives(folder) or read_state(folder).state in ENDED)
        return to_status(folder, bury(folder))

    def _bury_predecessor(self) -> None:
        """Before a new attempt: end what the keeper of an earlier one left on this machine."""
        with contextlib.suppress(InputError):  # none, or damaged: it is written anew
            if self._record().state not in ENDED:
                bury(self._folder)

    def _end(self, how: str) -> Status:
        """Make the keeper end, gently or not, and wait for it. Raises WorkerError: it won't."""
        record = self._record()
        if record.state not in ENDED:
            limit_s = self._grace_s() + END_S
            with contextlib.suppress(OSError), Client(record.socket, limit_s) as client:
                keeper = client.keeper_pid()
                try:
                    client.ask(do=how)
                except TimeoutError:  # it hangs; without it the container, or the mark, ends all
                    if keeper is not None:
                        processes.send([keeper], signal.SIGKILL)
        self._wait(lambda: not keeper_lives(self._folder))
        status = self.status()
        if status.state not in ENDED:
            raise WorkerError(f"{self.folder}: its keeper does not end: end it by hand")
        return status

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + END_S
        while not done() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _must_live(self, status: Status, done: str) -> Status:
        if status.state in ENDED:
            raise InputError(f"job {self._id()} is {status.state}: it can't be {done}")
        return status

    def _grace_s(self) -> float:
        with contextlib.suppress(OrtOptimError):
            return effective_spec(self._folder).grace_s
        return 0.0

    def _id(self) -> str:
        return read_spec(self._folder).id
