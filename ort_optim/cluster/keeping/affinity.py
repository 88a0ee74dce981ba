"""CPUs of this machine for jobs that run side by side: each whole CPU for one job.

A keeper holds a lock on one small file per CPU; the system lets go of it when the keeper dies, so
there is nothing to clean up. Jobs with parts of CPUs, and those for which too few are free (other
programs' clusters on this machine), are bound to none.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


class CpuClaim:
    """CPUs that stay claimed for as long as this object, or the process, lives."""

    def __init__(self, cpus: tuple[int, ...], descriptors: tuple[int, ...]) -> None:
        self.cpus = cpus
        self._descriptors = descriptors

    def release(self) -> None:
        """Let others have the CPUs."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self.cpus, self._descriptors = (), ()


def claim(milli_cpus: int, *, folder: Path | None = None) -> CpuClaim:
    """Claim as many whole CPUs as given, or none.

    Args:
        milli_cpus: Thousandths of a CPU; not a multiple of 1000: nothing is claimed.
        folder: Where the locks lie; None: one for this user on this machine.
    """
    count, part = divmod(milli_cpus, 1000)
    if part or not count or not hasattr(os, "sched_getaffinity"):
        return CpuClaim((), ())
    import fcntl

    place = folder or Path(tempfile.gettempdir()) / f"ort_optim-cpus-{os.getuid()}"
    taken: dict[int, int] = {}
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
        facts = place.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            return CpuClaim((), ())
        for cpu in sorted(os.sched_getaffinity(0)):
            descriptor = os.open(place / str(cpu), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                continue
            taken[cpu] = descriptor
            if len(taken) == count:
                return CpuClaim(tuple(taken), tuple(taken.values()))
    for descriptor in taken.values():
        os.close(descriptor)
    return CpuClaim((), ())
