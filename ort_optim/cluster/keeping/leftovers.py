"""Whether a folder's keeper lives, and what to do with what a dead one left."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ort_optim.cluster.keeping import processes
from ort_optim.cluster.keeping.state_file import ENDED, StateRecord, read_state, write_state
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.states import State


def keeper_lives(folder: WorkFolder) -> bool:
    """Whether a keeper holds the folder's lock, which the system takes from a dead one."""
    with _lock(folder) as free:
        return not free


def bury(folder: WorkFolder) -> StateRecord:
    """If the keeper died: kill what it started and could not take along, and write LOST.

    In a container the kernel has done the killing already. A new keeper waits meanwhile.

    Returns what the state file says then. Raises InputError: it can't be trusted.
    """
    with _lock(folder) as free:
        record = read_state(folder)
        if not free or record.state in ENDED:
            return record
        if record.nonce:
            processes.kill(lambda: processes.marked(record.nonce), lambda: None)
        lost = dataclasses.replace(
            record,
            state=State.LOST,
            cause="its keeper was killed",
            fault=None,
            frozen=False,
            since_s=time.time(),
            pid=None,
            pid_started="",
            run="",
        )
        with contextlib.suppress(OSError):  # a full disk: who looks next writes it
            write_state(folder, lost)
    with contextlib.suppress(OSError):
        record.socket.unlink()
    with contextlib.suppress(OSError):
        Path(record.run).rmdir()
    return lost


@contextlib.contextmanager
def _lock(folder: WorkFolder) -> Iterator[bool]:
    """Hold the folder's lock where no keeper does; whether that is so."""
    import fcntl

    try:
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # there never was one
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(descriptor)
