"""Which of the servers that fit a fragment gets, and which of its devices.

    room_chooser        the chooser of a plan: ours, for the jobs at hand
    Scorer              a chooser: the placement with the least loss, earlier servers first
    Loss                what a placement costs, from what is free before and after it
    RoomLoss            ours: room that the jobs to come lose
    FragmentationLoss   Fragmentation Gradient Descent (FGD), as published
    BestFitLoss         least CPU and GPU left over, as published beside FGD
    RandomChooser       any server, any device

Letters: S servers, s some of them, n placements, D devices of a server, K kinds of jobs.
`docs/placement.md` tells what ours is made of and how the four compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import (
    WHOLE,
    Capacity,
    Chooser,
    Devices,
    Floats,
    Integers,
    Inventory,
)
from ort_optim.cluster.placement.fragmentation import Mix
from ort_optim.cluster.placement.rooms import Placements, Rooms

SHARE_EXPONENT = -1.0
DEVICES_EXPONENT = -0.5
"""How much less a kind counts the more of each device, and the more devices, its jobs take."""

MOST_PAIRS = 250_000
LEAST_KINDS = 32
"""Pairs of a kind to place and a kind to come: bounds the time of a plan. With more kinds to place,
fewer of those to come are told apart, but no fewer than the least."""

MOST_SCORED = 1000
"""Kinds of jobs whose scores are kept: bounds the memory, 24 bytes a server for each."""

BATCH = 256
"""Servers that are scored at once: bounds the memory, some 10 MB for a few hundred kinds."""


def room_chooser(needs: Iterable[Resources], inventory: Inventory) -> Chooser:
    """Ours, where the jobs to come are like the jobs at hand.

    Args:
        needs: One entry for each job at hand. Those of whole servers do not count.
    """
    counts = Counter(need for need in needs if not need.servers)
    most = max(LEAST_KINDS, MOST_PAIRS // max(1, len(counts)))
    return Scorer(RoomLoss(Mix.of(counts.items(), inventory.models, most=most)))


class Loss(Protocol):
    """What a placement costs: lower is better."""

    def follow(self, capacity: Capacity, servers: Integers) -> None:
        """What is free on these servers is not what it was; called before they are scored."""

    def __call__(self, capacity: Capacity, placements: Placements) -> Floats:
        """(n,) The loss of each placement."""


class RoomLoss:
    """Room that the jobs to come lose on the server.

    A kind's room is half the GPU that its next job could use (as in fragmentation) and half what
    many jobs of the kind could fill, which CPUs and memory bound as well. Kinds count by how often
    they come, and the less the larger their jobs are. What is left free on the server comes last,
    as a tie-break.
    """

    def __init__(self, mix: Mix) -> None:
        """`mix`: the jobs to come."""
        weight = (
            mix.probability
            * (mix.share / WHOLE) ** SHARE_EXPONENT
            * mix.devices.astype(np.float64) ** DEVICES_EXPONENT
        )
        half = weight / (2 * max(weight.sum(), np.finfo(np.float64).tiny))
        self._rooms = Rooms(mix, half, half)

    def follow(self, capacity: Capacity, servers: Integers) -> None:
        """As `Loss` says."""
        self._rooms.follow(capacity, servers)

    def __call__(self, capacity: Capacity, placements: Placements) -> Floats:
        """Thousandths of a device."""
        return self._rooms.lost(capacity, placements) + _left(capacity, placements)


class FragmentationLoss:
    """The growth of fragmentation, in the published form: a score of whole points, 0 to 100.

    The rounding matters: placements that differ by less than a point are equal, and then the server
    that comes first is taken, which packs.
    """

    def __init__(self, mix: Mix) -> None:
        """`mix`: as published, the most frequent 95% of the jobs, memory left aside."""
        self._rooms = Rooms(mix, mix.probability, None)

    def follow(self, capacity: Capacity, servers: Integers) -> None:
        """As `Loss` says."""
        self._rooms.follow(capacity, servers)

    def __call__(self, capacity: Capacity, placements: Placements) -> Floats:
        """Minus the score."""
        growth = self._rooms.lost(capacity, placements) - placements.need.milli_gpus
        return -np.trunc(100.0 / (1.0 + np.exp(growth / WHOLE)))


class BestFitLoss:
    """What is left of CPUs and GPUs, as fractions of a large server, rounded to whole points."""

    def follow(self, capacity: Capacity, servers: Integers) -> None:
        """Nothing is kept."""

    def __call__(self, capacity: Capacity, placements: Placements) -> Floats:
        """Minus the score."""
        return -np.trunc(100.0 * (1.0 - _left(capacity, placements) / 2))


def _left(capacity: Capacity, placements: Placements) -> Floats:
    """(n,) CPUs left on the server, by 128 cores, and GPUs left on it, by 8 devices."""
    need, servers = placements.need, placements.servers
    cpus = (capacity.milli_cpus[servers] - need.milli_cpus) / 128_000
    gpus = (capacity.device_milli[servers].sum(axis=1) - need.milli_gpus) / (8 * WHOLE)
    left: Floats = (cpus + gpus)[placements.origin]
    return left


class RandomChooser:
    """Any server with equal probability, and any of the devices that a share fits on."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(
        self, need: Resources, capacity: Capacity, candidates: Integers
    ) -> tuple[int, Devices] | None:
        """As `Chooser` says, but not equal for equal arguments: each call draws anew."""
        server = int(self._random.choice(candidates))
        if not need.milli_gpus:
            return server, ()
        devices = capacity.usable_devices(need, server)
        if need.whole_devices:
            return server, tuple((int(device), WHOLE) for device in devices[: need.whole_devices])
        return server, ((int(self._random.choice(devices)), need.milli_gpus),)


class Scorer:
    """A chooser that takes the placement of least loss; of equal ones, the first server's.

    Scores are kept, and worked out again only for servers that have changed since, so any number
    of copies of a capacity may be scored by one `Scorer`.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._seen: Capacity | None = None
        self._versions = np.zeros(0, dtype=np.int64)
        self._version = 0
        self._scores: dict[Resources, _Scores] = {}

    def __call__(
        self, need: Resources, capacity: Capacity, candidates: Integers
    ) -> tuple[int, Devices] | None:
        """As `Chooser` says."""
        self._follow(capacity)
        scores = self._scores.get(need)
        if scores is None:
            while len(self._scores) >= MOST_SCORED:
                del self._scores[next(iter(self._scores))]  # the one that was made first
            scores = self._scores[need] = _Scores.of(len(self._versions))
        stale = candidates[scores.version[candidates] != self._versions[candidates]]
        for start in range(0, len(stale), BATCH):
            self._score(need, capacity, stale[start : start + BATCH], scores)
        server = int(candidates[np.argmin(scores.loss[candidates])])
        return server, _devices(need, capacity, server, int(scores.device[server]))

    def _follow(self, capacity: Capacity) -> None:
        """Give a new version to each server that is not as it was at the last call."""
        self._version += 1
        seen = self._seen
        if seen is None or seen.inventory is not capacity.inventory:
            self._seen = capacity.copy()
            self._scores.clear()
            self._versions = np.full(len(capacity.milli_cpus), self._version, dtype=np.int64)
            self._loss.follow(capacity, np.arange(len(self._versions)))
            return
        milli, memory = seen.device_milli, seen.device_memory
        changed = (seen.milli_cpus != capacity.milli_cpus) | (seen.memory != capacity.memory)
        devices = (milli != capacity.device_milli) | (memory != capacity.device_memory)
        changed[np.nonzero(devices)[0]] = True  # faster than any(axis=1) on short rows
        servers = np.flatnonzero(changed)
        if len(servers):
            self._versions[servers] = self._version
            seen.milli_cpus[servers] = capacity.milli_cpus[servers]
            seen.memory[servers] = capacity.memory[servers]
            milli[servers] = capacity.device_milli[servers]
            memory[servers] = capacity.device_memory[servers]
            self._loss.follow(capacity, servers)

    def _score(
        self, need: Resources, capacity: Capacity, servers: Integers, scores: _Scores
    ) -> None:
        """Work out the loss on each of these servers, with the best device."""
        placements = _placements(need, capacity, servers)
        origin, device = placements.origin, placements.device
        loss = self._loss(capacity, placements)
        # Placements come by server, then device: of equal losses the first device's is kept.
        if len(origin) > len(servers):
            order = np.lexsort((loss, origin))
            first = order[np.flatnonzero(np.diff(origin[order], prepend=-1))]
            loss, device = loss[first], device[first]
        scores.loss[servers] = loss
        scores.device[servers] = device
        scores.version[servers] = self._versions[servers]


@dataclass(frozen=True)
class _Scores:
    """What was worked out for one need: (S,) each, with the versions of the servers."""

    loss: Floats
    device: Integers
    version: Integers

    @staticmethod
    def of(servers: int) -> _Scores:
        return _Scores(
            loss=np.full(servers, np.inf),
            device=np.zeros(servers, dtype=np.int64),
            version=np.full(servers, -1, dtype=np.int64),
        )


def _placements(need: Resources, capacity: Capacity, servers: Integers) -> Placements:
    """All placements on these servers that differ in what they leave, by server, then device."""
    if not need.milli_gpus:
        one = np.arange(len(servers))
        return Placements(need, servers, one, np.zeros_like(one))
    milli = capacity.device_milli[servers]  # (s, D)
    share = min(need.milli_gpus, WHOLE)
    fits = (milli >= share) & (capacity.device_memory[servers] >= need.gpu_memory)
    if need.whole_devices:
        return Placements(need, servers, np.arange(len(servers)), fits.argmax(axis=1))
    equal = (milli[:, :, None] == milli[:, None, :]) & fits[:, None, :]  # (s, D, D)
    earlier = np.tri(milli.shape[1], k=-1, dtype=np.bool_)
    origin, device = np.nonzero(fits & ~(equal & earlier).any(axis=2))
    return Placements(need, servers, origin, device)


def _devices(need: Resources, capacity: Capacity, server: int, device: int) -> Devices:
    if not need.milli_gpus:
        return ()
    if not need.whole_devices:
        return ((device, need.milli_gpus),)
    usable_devices = capacity.usable_devices(need, server)[: need.whole_devices]
    return tuple((int(each), WHOLE) for each in usable_devices)
