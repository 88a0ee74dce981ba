"""The fence: a job must not go on when the process that stands for its node has died."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ort_optim.cluster.keeping.processes import started
from ort_optim.errors import InputError


class Fence:
    """Fires when the process ends without which the job must not go on.

    Args:
        descriptor: Becomes readable then.
        process: "PID:START", to be looked for where there is no descriptor.
    """

    def __init__(self, descriptor: int | None, process: str | None) -> None:
        self._descriptor = descriptor
        self._process = process
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def watch(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        """Call `fire` as soon as the process ends, where the system can tell."""
        if self._descriptor is not None:
            descriptor = self._descriptor

            def ended() -> None:
                loop.remove_reader(descriptor)
                fire()

            loop.add_reader(descriptor, ended)

    def fired(self) -> bool:
        """For systems that can't tell: look whether it is still there."""
        if self._process is None:
            return False
        pid, _, start = self._process.partition(":")
        return started(int(pid)) != start


def open_fence(pid: int | None) -> int | str | None:
    """A descriptor that becomes readable when the process ends, else its number and start time.

    A descriptor also works in a container, which does not see the process.
    """
    if pid is None:
        return None
    try:
        if hasattr(os, "pidfd_open"):
            return os.pidfd_open(pid)
    except ProcessLookupError:
        raise InputError(f"fence: there is no process {pid}") from None
    except OSError:  # an old kernel, or one in a sandbox that forbids the call
        pass
    start = started(pid)
    if not start:
        raise InputError(f"fence: there is no process {pid}")
    return f"{pid}:{start}"
