"""The bookkeeping of the Ray backend: what it knows of each job, and which calls are under way."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.backend import News, Order
from ort_optim.cluster.submitting.gang import ENDED, together

WHOLE = 1000


@dataclass
class Process:
    """One process of a job: its server, and the actor that drives its keeper now."""

    rank: int
    placement: Placement
    folder: Path
    begin: Literal["start", "attach"]
    actor: Any = None
    generation: int = 0  # of the actor: a new one after each that died
    status: Status | None = None
    lost: str = ""

    def learn(self, status: Status) -> None:
        """Take a status in, unless a newer one came first: calls overtake each other."""
        known = self.status
        if known is None or (status.start, status.since_s) >= (known.start, known.since_s):
            self.status = status

    @property
    def over(self) -> bool:
        """No more news will come of it."""
        return bool(self.lost) or (self.status is not None and self.status.state in ENDED)


@dataclass
class Pending:
    """An order that some processes have yet to answer."""

    order: Order
    left: int
    refused: str = ""


@dataclass
class Shared:
    """A device that jobs share, taken from Ray as a whole while any of them has a part of it."""

    group: Any
    users: set[str] = field(default_factory=set)


@dataclass
class Slot:
    """One attempt of a job."""

    job: Job
    placements: tuple[Placement, ...]
    attempt: int
    processes: list[Process]
    group: Any  # the placement group that keeps others off its place
    begun_s: float
    told: Status | None = None
    waiting: list[Order] = field(default_factory=list)  # until all processes are known
    pending: list[Pending] = field(default_factory=list)
    answers: list[News] = field(default_factory=list)  # to orders, to be told with the status
    fetching: bool = False
    delivered: bool = False

    @property
    def known(self) -> bool:
        """All processes have been found or started."""
        return all(process.status is not None or process.lost for process in self.processes)

    @property
    def lost(self) -> str:
        """Why the job is lost; empty when it is not."""
        return next((process.lost for process in self.processes if process.lost), "")

    def status(self) -> Status | None:
        """That of the job, once it is known and nothing is lost."""
        statuses = [process.status for process in self.processes if process.status is not None]
        if len(statuses) < len(self.processes) or self.lost:
            return None
        return together(statuses, self.placements)


@dataclass(frozen=True)
class Call:
    """A call of an actor that is under way."""

    slot: Slot
    process: Process
    generation: int
    what: Literal["begin", "watch", "order", "collect"]
    pending: Pending | None = None


@dataclass(frozen=True)
class Again:
    """A process for which a new actor is to be made, no sooner than `at_s`."""

    at_s: float
    slot: Slot
    process: Process


def bundles(placements: Sequence[Placement]) -> list[dict[str, float]]:
    """What a job takes of each of its servers, in Ray's resources; shared devices are apart."""
    found = []
    for placement in placements:
        whole = sum(1 for _, share in placement.devices if share == WHOLE)
        wanted = {"CPU": placement.milli_cpus / 1000, "GPU": whole, "memory": placement.memory}
        # A bundle may not be empty; this much is nothing.
        found.append({name: value for name, value in wanted.items() if value} or {"CPU": 0.0001})
    return found


def shared_devices(placements: Sequence[Placement]) -> list[tuple[str, int]]:
    """Server and index of the devices that a job has a share of."""
    return [
        (placement.server, index)
        for placement in placements
        for index, share in placement.devices
        if share < WHOLE
    ]


def targets(slot: Slot, held_only: bool) -> list[Process]:
    """Whom an order concerns."""
    return [
        process
        for process in slot.processes
        if process.status is not None
        and not process.over
        and (not held_only or process.status.state is State.HELD)
    ]


def actor_name(state: Path, slot: Slot, process: Process) -> str:
    """Unique on the cluster; the last part is that of the newest actor of a process."""
    return f"{actor_prefix(state, slot.job.id, slot.attempt, process.rank)}{process.generation}"


def actor_prefix(state: Path, job: str, attempt: int, rank: int) -> str:
    """What the names of all actors of a process begin with."""
    return f"{_digest(state)}/{job}/{attempt}/{rank}/"


def local_base(state: Path) -> Path:
    """Where jobs of this batch live on servers that do not share the state folder."""
    return Path(tempfile.gettempdir()) / f"ort_optim-{os.geteuid()}" / _digest(state)


def _digest(state: Path) -> str:
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]
