"""Starting a keeper so that it outlives its starter, and knowing that it has started.

The first process of `python -m ort_optim.cluster.keeping.keeper` forks and ends, so the keeper is
no child of the starter; it has a session of its own, so no terminal and no group of the starter's
reaches it. It says "ready" through a pipe once it listens; a pipe that ends without means it
failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import wait  # unlike `select`, for any number of open files
from pathlib import Path

from ort_optim.cluster.keeping.fence import open_fence
from ort_optim.cluster.keeping.spec import PACKAGE_ROOT
from ort_optim.cluster.keeping.work_folder import WorkFolder, open_to_append
from ort_optim.errors import InputError, WorkerError

READY_S = 60.0
READY = b"ready\n"
REFUSED = b"refused "
STARTERS_OWN = ("RAY_", "ORT_OPTIM_KEEPER")
"""Variables that a job must not inherit begin with these."""

# The keeper must be this very package, whatever the folder it starts in holds.
BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from ort_optim.cluster.keeping.keeper import main; sys.exit(main(sys.argv[1:]))"
)


def require_posix() -> None:
    """Raise InputError where there are no process groups, signals and Unix sockets."""
    if os.name != "posix":
        raise InputError("running jobs needs Linux or macOS: submit to a cluster of those")


def keeper_argv(*arguments: str) -> list[str]:
    """The command line of a keeper."""
    return [sys.executable, "-P", "-c", BOOT, str(PACKAGE_ROOT), *arguments]


def clean_environment() -> Mapping[str, str]:
    """The starter's environment without what belongs to the starter alone."""
    return {key: value for key, value in os.environ.items() if not key.startswith(STARTERS_OWN)}


def launch_keeper(folder: WorkFolder, fence_pid: int | None) -> None:
    """Start the keeper of a folder that has its job.json; returns when it listens.

    Raises InputError: it refused, or `fence_pid` is no process; WorkerError: it died.
    """
    fence = open_fence(fence_pid)
    reader, writer = os.pipe()
    arguments = [str(folder.path), "--ready-fd", str(writer)]
    passed = [writer]
    if isinstance(fence, int):
        arguments += ["--fence-fd", str(fence)]
        passed.append(fence)
    elif fence is not None:
        arguments += ["--fence-pid", fence]
    try:
        with open_to_append(folder.keeper_log) as errors:
            first = subprocess.Popen(
                keeper_argv(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd="/",
                env=clean_environment(),
                pass_fds=passed,
                start_new_session=True,
            )
        os.close(writer)
        writer = -1
        text = _read_ready(reader)
        if text is None:  # too late is as good as never: nobody would know of it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(READY_S)
    finally:
        os.close(reader)
        for descriptor in (writer, fence):
            if isinstance(descriptor, int) and descriptor >= 0:
                os.close(descriptor)
    if text is not None and text.startswith(REFUSED):
        raise InputError(text.removeprefix(REFUSED).decode(errors="replace").strip())
    if text != READY:
        raise WorkerError(f"the keeper of {folder.path} did not start: {_last_line(folder)}")


def _read_ready(reader: int) -> bytes | None:
    """What the keeper says first; nothing when it dies, None when it is silent for too long."""
    deadline = time.monotonic() + READY_S
    text = b""
    while not text.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not wait([reader], left):
            return None
        part = os.read(reader, 4096)
        if not part:
            break
        text += part
    return text


def _last_line(folder: WorkFolder) -> str:
    try:
        rows = Path(folder.keeper_log).read_text(errors="replace").splitlines()
    except OSError:
        rows = []
    return rows[-1] if rows else "it said nothing"
