"""What the driver needs of whatever runs its jobs.

All is asynchronous: `start`, `attach` and `order` return at once, and `poll` tells in time what
came of them. So one slow server holds up nobody, and hundreds of jobs can be on their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.status import Patch, Status
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.servers import Cluster


class Gone(StrEnum):
    """Why a job has no keeper."""

    SERVER = "server"  # its server died, and the job with it
    NO_ROOM = "no room"  # the cluster would not take it; nothing was started
    NEVER = "never"  # `attach` found no keeper of this attempt; nothing was started
    REFUSED = "refused"  # it can't be started there at all


class OrderKind(StrEnum):
    PATCH = "patch"  # change what the next start uses
    RESTART = "restart"  # start a held job again, in its slot and folder
    CONTINUE = "continue"  # let the frozen processes of a held job go on
    RELEASE = "release"  # give up a held job; what is worth keeping goes to the archive
    CANCEL = "cancel"  # end a job that runs or is held


@dataclass(frozen=True)
class Order:
    """What a keeper shall do. `number` comes back in the news of it; 0 wants none.

    A restart is for a job that was started `start` times so far, and counts as obeyed when it was
    started since: an order that is repeated after a crash does nothing twice. 0: however often.
    """

    number: int
    job: str
    kind: OrderKind
    patch: Patch = field(default_factory=Patch)
    archive: Path | None = None
    start: int = 0


@dataclass(frozen=True)
class News:
    """What became of one job: a status from its keeper, or the reason why there is none.

    The answer to an order has its number, and in `refused` why it was not obeyed, if it was not.
    """

    job: str
    attempt: int
    status: Status | None = None
    gone: Gone | None = None
    reason: str = ""
    order: int = 0
    refused: str = ""


class Backend(Protocol):
    """Runs jobs where it is told to."""

    address: str  # how another process reaches it; empty when none can
    outlives: bool  # what runs goes on when the driver ends in good order

    def cluster(self) -> Cluster:
        """The servers that are alive now."""

    def start(self, job: Job, placements: tuple[Placement, ...], attempt: int) -> None:
        """Begin to start a job just there."""

    def attach(self, job: Job, placements: tuple[Placement, ...], attempt: int) -> None:
        """Begin to find the keepers that an earlier driver started for this attempt."""

    def order(self, order: Order) -> None:
        """Begin to have an order obeyed by the keepers of a job that was started or attached."""

    def poll(self, timeout_s: float) -> Sequence[News]:
        """What is new since the last call; waits for something new, but not longer than this."""

    def forget(self, job: str) -> None:
        """Give the slot back: the job is over, or lost."""

    def close(self) -> None:
        """Let go of everything; keepers are left as they are."""
