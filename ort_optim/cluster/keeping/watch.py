"""Signs of life of a job, and what the way it ended means."""

from __future__ import annotations

import signal
import time

from ort_optim.cluster.keeping.status import Fault
from ort_optim.cluster.keeping.work_folder import WorkFolder

LONGEST_TICK_POLLS = 5
MEANINGS = {
    2: (Fault.BAD_INPUT, "bad option or input (exit 2)"),
    3: (Fault.VERIFICATION, "verification failed (exit 3)"),
}
"""Exit codes of `optimize` that say more than their number; commands do well to follow them."""


class Progress:
    """How long nothing moved: the log, the file `progress`, and the steps.

    Time during which the keeper itself did not run (a suspended machine) hardly counts.
    """

    def __init__(self, folder: WorkFolder, poll_s: float) -> None:
        self._folder = folder
        self._longest_tick_s = LONGEST_TICK_POLLS * poll_s
        self.begin()

    def begin(self) -> None:
        """Start counting anew."""
        self._seen = self._folder.signs_of_life()
        self._looked = time.monotonic()
        self.quiet_s = 0.0

    def look(self) -> float:
        """Seconds since something moved."""
        now = time.monotonic()
        signs = self._folder.signs_of_life()
        if signs != self._seen:
            self._seen = signs
            self.quiet_s = 0.0
        else:
            self.quiet_s += min(now - self._looked, self._longest_tick_s)
        self._looked = now
        return self.quiet_s


def cause_of(code: int, *, kernel_killed: bool) -> tuple[Fault, str]:
    """The fault that an exit code other than 0 stands for, and its words.

    Args:
        code: -N stands for signal N.
        kernel_killed: Meanwhile the kernel killed a process of ours, for want of memory.
    """
    if code == -signal.SIGKILL and kernel_killed:
        return Fault.KERNEL_MEMORY, str(Fault.KERNEL_MEMORY)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # real-time signals have no names
            name = str(-code)
        fault, words = Fault.SIGNAL, f"signal {name}"
    else:
        fault, words = MEANINGS.get(code, (Fault.EXIT, f"exit {code}"))
    if kernel_killed:
        words += "; the kernel killed a process nearby: out of memory"
    return fault, words
