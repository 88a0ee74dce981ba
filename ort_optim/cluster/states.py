"""The states a job can be in, what may follow what, and the rows of the journal as values.

    QUEUED -> RUNNING -> DONE
                      -> HELD  -> RUNNING      restarted where it is: same slot, same folder
                               -> FAILED       released, or held for too long
                      -> LOST  -> QUEUED       its server died; the next attempt
    QUEUED, RUNNING, HELD -> CANCELLED

What is over (DONE, FAILED, CANCELLED) is queued again only when its owner asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement


class State(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    HELD = "HELD"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


OVER = frozenset({State.DONE, State.FAILED, State.CANCELLED})
OCCUPYING = frozenset({State.RUNNING, State.HELD})  # these have a slot of the cluster

FOLLOWING = {
    # RUNNING -> QUEUED: the cluster had no room for it after all; nothing was started.
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.DONE, State.HELD, State.FAILED, State.CANCELLED, State.LOST, State.QUEUED}
    ),
    State.HELD: frozenset({State.RUNNING, State.FAILED, State.CANCELLED, State.LOST}),
    State.LOST: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.DONE: frozenset({State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}


@dataclass(frozen=True)
class Record:
    """One job as the journal knows it. Times are seconds since 1970; 0 means not yet."""

    job: Job
    position: int  # order of arrival
    owner: str
    state: State
    cause: str  # why it is held, failed, lost
    note: str  # why it still waits
    attempt: int  # one more for each time it got a slot
    starts: int  # one more for each start of its child within the attempt
    placements: tuple[Placement, ...]
    since_s: float  # when it came into this state
    wait_s: float  # how long it was queued before its last start, in all
    started_s: float
    ended_s: float
    last_step: str
    container: str

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def server(self) -> str:
        """The server whose keeper has the job, empty when it has no slot."""
        return self.placements[0].server if self.placements else ""

    def waited_s(self, now_s: float) -> float:
        """How long it was, and is, in the queue."""
        queued = self.state is State.QUEUED
        return self.wait_s + (max(0.0, now_s - self.since_s) if queued else 0.0)


@dataclass(frozen=True)
class Event:
    """One change of state."""

    at_s: float
    job: str
    attempt: int
    before: State
    after: State
    cause: str


@dataclass(frozen=True)
class Request:
    """What an owner asks of the submitter that runs: restart, patch, release, cancel."""

    number: int
    job: str
    kind: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    ok: bool
    text: str


@dataclass(frozen=True)
class Lease:
    """Who runs the jobs of a journal. A process id counts only with the time it was started."""

    pid: int
    pid_started_s: float
    host: str
    beat_s: float
    address: str  # of the Ray cluster, for `debug` from elsewhere
    transfer: bool  # the jobs' folders are on their servers, not in the state folder
    folder: Path  # where the journal was then; elsewhere than now if this one is a copy
