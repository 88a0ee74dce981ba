"""The program `python -m ort_optim.cluster.keeping.keeper FOLDER`: one process per job attempt.

It leaves the group of its starter, enters the container where the job has one, makes sure that it
is the folder's only keeper, and then does what job_keeper.py says. launch.py starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ort_optim.cluster.keeping import container, launch
from ort_optim.cluster.keeping.fence import Fence
from ort_optim.cluster.keeping.job_keeper import Keeper
from ort_optim.cluster.keeping.spec import Spec, read_spec
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.errors import InputError, OrtOptimError

LOOKERS_S = 12.0  # who looks whether a keeper lives, or clears up after it, has the lock as long

LOOK_AGAIN_S = 0.02


class Ready:
    """The pipe on which the starter waits."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def say(self, text: bytes) -> None:
        """The first and only word."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # the starter died: we go on without
                os.write(self._descriptor, text)
            os.close(self._descriptor)
            self._descriptor = None


def main(argv: Sequence[str] | None = None) -> int:
    """The program: leave the starter, enter the container, keep the job."""
    parser = argparse.ArgumentParser(prog="python -m ort_optim.cluster.keeping.keeper")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--fence-fd", type=int)
    parser.add_argument("--fence-pid")
    parser.add_argument("--inside", action="store_true", help="the container was entered already")
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(arguments)
    launch.require_posix()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a thread of the starter may have blocked some
    folder = WorkFolder(args.folder)
    try:
        spec = read_spec(folder)
        if not args.inside:
            if os.fork():
                os._exit(0)
            if spec.container:
                inside = launch.keeper_argv(*arguments, "--inside")
                full = container.command(spec.container, inside, spec.writable(folder))
                os.execvp(full[0], full)
        ready = Ready(args.ready_fd)
        with _only_keeper(folder):
            asyncio.run(_keep(folder, spec, Fence(args.fence_fd, args.fence_pid), ready))
    except (OrtOptimError, OSError) as error:
        text = " ".join(str(error).split())
        print(text, file=sys.stderr, flush=True)
        Ready(args.ready_fd).say(launch.REFUSED + f"{text}\n".encode())
        return InputError.exit_code
    return 0


async def _keep(folder: WorkFolder, spec: Spec, fence: Fence, ready: Ready) -> None:
    await Keeper(folder, spec, fence).run(lambda: ready.say(launch.READY))


@contextlib.contextmanager
def _only_keeper(folder: WorkFolder) -> Iterator[None]:
    """Hold the folder's lock: as long as it is held, its keeper lives."""
    import fcntl

    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + LOOKERS_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise InputError(
                    f"{folder.path}: a keeper has it already: attach to that one"
                ) from None
            time.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
