"""Which servers are class one (whole machines) and which class two (fragments).

A server whose class is given keeps it. The `auto` ones are split for the jobs at hand: class one
gets what its largest job needs at once, and then as many more as make the longer one of these
shorter:

    class one    max(longest job, work of any set of servers / how many are in the set)
    class two    work of any set of servers / what the set has of CPUs, memory or GPUs

The sets are those that some job is restricted to by GPU model, labels or size, and work counts the
jobs that can run nowhere else: server-seconds; CPU-seconds, byte-seconds, GPU-seconds. The longest
fragment does not count: it takes as long on any split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.placement.capacity import Floats, Integers, Inventory, Mask
from ort_optim.cluster.placement.kinds import Kind, kind_of
from ort_optim.cluster.plan import ServerClass
from ort_optim.cluster.servers import Cluster


@dataclass(frozen=True)
class Split:
    """The servers of class one.

    Attributes:
        one: (S,)
        reason: Why the `auto` ones among them are; empty where there are no such servers.
        widest: (S,) what class one could have been at the most.
    """

    one: Mask
    reason: str
    widest: Mask


def split(
    jobs: Sequence[Job],
    cluster: Cluster,
    inventory: Inventory,
    decided: Mapping[str, ServerClass] | None = None,
) -> Split:
    """The class of each server.

    Args:
        decided: Classes by name that an earlier plan decided on; they go before those of the
            cluster file, so that servers do not change sides while a batch runs.
    """
    decided = decided or {}
    given = [decided.get(server.name, server.cls) for server in cluster.servers]
    one = np.array([each == "one" for each in given], dtype=np.bool_)
    auto = np.array([each == "auto" for each in given], dtype=np.bool_)
    if not auto.any():
        return Split(one, "", one)
    usable = auto & ~inventory.drained
    widest = one | usable
    demand = _Demand(jobs, inventory, widest)
    if not demand.whole:
        reason = f"no job that can be placed needs whole machines: all {_count(auto)} are class two"
        return Split(one, reason, widest)
    for needed in demand.whole:
        for _ in range(needed.whole - int(one[needed.servers].sum())):
            server = demand.first_to_go(usable & ~one & needed.mask(one), one)
            if server is None:
                break  # more than the cluster has: the planner refuses the job
            one[server] = True
    least = int(one[usable].sum())
    bounds = demand.bounds(one)
    while True:
        server = demand.first_to_go(usable & ~one & demand.bottleneck(one), one)
        if server is None:
            break
        one[server] = True
        wider = demand.bounds(one)
        if max(wider) >= max(bounds):
            one[server] = False
            break
        bounds = wider
    most = max(needed.whole for needed in demand.whole)
    reason = (
        f"{int(one[auto].sum())} of {_count(auto)} are class one: whole-machine jobs need up to "
        f"{most} at once ({least} of these); their work then fills class one for "
        f"{bounds[0]:.0f} s, that of fragments class two for {bounds[1]:.0f} s"
    )
    return Split(one, reason, widest)


@dataclass(frozen=True)
class _Needed:
    """Whole machines that some jobs need: how many at once, and which may serve."""

    whole: int
    servers: Integers

    def mask(self, like: Mask) -> Mask:
        mask = np.zeros_like(like)
        mask[self.servers] = True
        return mask


class _Demand:
    """The jobs at hand as work per set of servers that may do it.

    Letters: W, F distinct sets of servers of whole-machine jobs and of fragments; S servers.

    Attributes:
        whole: Distinct needs for whole machines: the most restricted first, then the largest.
    """

    def __init__(self, jobs: Sequence[Job], inventory: Inventory, one: Mask) -> None:
        self._has: Floats = np.stack(
            [inventory.milli_cpus, inventory.memory, inventory.device_milli.sum(axis=1)], axis=1
        ).astype(np.float64)  # (S, 3)
        nowhere = np.zeros_like(one)
        whole, fragments = _Sets(len(one), 1), _Sets(len(one), 3)
        needed: dict[tuple[int, bytes], _Needed] = {}
        kinds: dict[Resources, tuple[Kind, Mask]] = {}
        for job in jobs:
            if job.resources not in kinds:
                kind = kind_of(job.resources, inventory, one)
                # Which autos end up in class two is not known yet: any of them may take a fragment.
                anywhere = kind if kind.whole else kind_of(job.resources, inventory, nowhere)
                admitted = nowhere.copy()
                admitted[anywhere.servers] = True
                kinds[job.resources] = kind, admitted
            kind, admitted = kinds[job.resources]
            if kind.whole and not kind.refusal:
                needed[kind.whole, admitted.tobytes()] = _Needed(kind.whole, kind.servers)
                whole.add(admitted, [kind.whole], job.duration_s)
            elif not kind.whole and admitted.any():
                need = kind.need
                amounts = [need.milli_cpus, need.memory, need.milli_gpus]
                fragments.add(admitted, amounts, job.duration_s)
        self.whole = sorted(
            needed.values(),
            key=lambda each: (len(each.servers), -each.whole, each.servers.tolist()),
        )
        self._whole, self._fragments = whole.close(), fragments.close()
        self._order = self._by_cost(one)

    def bounds(self, one: Mask) -> tuple[float, float]:
        """How long class one and class two are busy at the least, in seconds."""
        served = self._whole.seconds(one[:, None].astype(np.float64))
        packed = self._fragments.seconds(self._has * ~one[:, None])
        busy = float(max(served.max(initial=0.0), self._whole.longest.max(initial=0.0)))
        return busy, float(packed.max(initial=0.0))

    def bottleneck(self, one: Mask) -> Mask:
        """(S,) the set of servers whose work takes class one the longest."""
        seconds = self._whole.seconds(one[:, None].astype(np.float64))
        mask: Mask = self._whole.masks[int(np.argmax(seconds))].astype(np.bool_)
        return mask

    def first_to_go(self, among: Mask, one: Mask) -> int | None:
        """The server of `among` that class two misses least; None without any.

        One that is the last for some fragment comes only after all others.
        """
        candidates = self._order[among[self._order]]
        if not len(candidates):
            return None
        if np.isfinite(self.bounds(one)[1]):
            for server in candidates:
                after = one.copy()
                after[server] = True
                if np.isfinite(self.bounds(after)[1]):
                    return int(server)
        return int(candidates[0])

    def _by_cost(self, one: Mask) -> Integers:
        """All servers: first those that most whole-machine work may use, then the smallest."""
        useful = self._whole.masks.T @ self._whole.work[:, 0]  # (S,)
        cpus, memory, gpus = self._has.T
        last_first = -np.arange(len(one))
        return np.lexsort((last_first, memory, cpus, gpus, -useful))


class _Sets:
    """Work by distinct sets of servers. After `close`: masks (N, S), work (N, R) of the jobs that
    can run nowhere outside of the set, longest (N,) of them."""

    def __init__(self, servers: int, resources: int) -> None:
        self._servers = servers
        self._resources = resources
        self._work: dict[bytes, Floats] = {}
        self._longest: dict[bytes, float] = {}
        self._mask: dict[bytes, Mask] = {}

    def add(self, mask: Mask, amounts: Sequence[int], duration_s: float) -> None:
        key = mask.tobytes()
        if key not in self._mask:
            self._mask[key] = mask
            self._work[key] = np.zeros(self._resources)
            self._longest[key] = 0.0
        self._work[key] += np.array(amounts, dtype=np.float64) * duration_s
        self._longest[key] = max(self._longest[key], duration_s)

    def close(self) -> _Sets:
        keys = list(self._mask)
        masks = [self._mask[key] for key in keys]
        self.masks: Floats = np.array(masks, dtype=np.float64).reshape(len(keys), self._servers)
        own = np.array([self._work[key] for key in keys]).reshape(len(keys), self._resources)
        within = self.masks @ (1 - self.masks).T == 0  # (N, N): row's set is in the column's
        self.work: Floats = within.T @ own
        self.longest: Floats = np.array([self._longest[key] for key in keys])
        return self

    def seconds(self, has: Floats) -> Floats:
        """(N,) How long each set is busy at the least, on servers that have `has` (S, R)."""
        if not len(self.masks):
            return np.zeros(0)
        there = self.masks @ has  # (N, R)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self.work > 0, self.work / there, 0.0)
        seconds: Floats = ratio.max(axis=1)
        return seconds


def _count(auto: Mask) -> str:
    total = int(auto.sum())
    return f"{total} auto server{'' if total == 1 else 's'}"
