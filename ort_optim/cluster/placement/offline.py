"""Packing a list of jobs that is known as a whole: which ones start at once, and where.

Jobs that share devices are first put together into bundles that fill one device as well as can be.
Then bundles and jobs of whole devices are chosen until they would take all devices of the cluster:
those that fill their devices best, where a further job on a device counts as a tenth of a device,
and of equal ones those with the fewest CPUs. The chosen ones are placed first, the largest before
smaller ones; then the others; then what is left of bundles that found no place, job by job; then
jobs without GPUs, the smallest first. Each goes where the chooser says.

So where not all can be placed, jobs are left out that would fill a device badly.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import WHOLE, Capacity, Chooser, Integers
from ort_optim.cluster.plan import Placement

JOB_WORTH = 100
"""What one more job on a device is worth beside what it fills, in thousandths of a device."""


@dataclass(frozen=True)
class _Unit:
    """Jobs that are placed together: one, or several that share one device."""

    jobs: tuple[int, ...]
    need: Resources
    fill: int
    """Of the last device, in thousandths."""


def pack(needs: Sequence[Resources], capacity: Capacity, choose: Chooser) -> list[Placement | None]:
    """The placement of each job, taken from `capacity`; None: no room was found for it."""
    packer = _Packer(needs, capacity, choose)
    shares = [job for job, need in enumerate(needs) if 0 < need.milli_gpus < WHOLE]
    alone = [_unit(needs, (job,)) for job, need in enumerate(needs) if need.whole_devices]
    units = [*_bundles(needs, shares), *alone]
    left = [
        job
        for unit in _in_order(units, int(capacity.inventory.devices.sum()))
        if not packer.place(unit) and len(unit.jobs) > 1
        for job in unit.jobs
    ]
    last = [job for job, need in enumerate(needs) if not need.milli_gpus]
    for job in sorted(left, key=lambda job: (-needs[job].milli_gpus, job)):
        packer.place(_unit(needs, (job,)))
    for job in sorted(last, key=lambda job: (needs[job].milli_cpus, needs[job].memory, job)):
        packer.place(_unit(needs, (job,)))
    return packer.placements


def _in_order(units: list[_Unit], devices: int) -> list[_Unit]:
    """The units that fill so many devices best, larger ones first; then the others."""
    ranked = sorted(units, key=_rank)
    wanted = list(itertools.accumulate(max(1, unit.need.whole_devices) for unit in ranked))
    chosen = bisect.bisect_right(wanted, devices)
    first = sorted(ranked[:chosen], key=lambda unit: -unit.need.whole_devices)
    return first + ranked[chosen:]


def _rank(unit: _Unit) -> tuple[float, float, tuple[int, ...]]:
    devices = max(1, unit.need.whole_devices)
    return (
        -unit.fill - JOB_WORTH * len(unit.jobs) / devices,
        unit.need.milli_cpus / devices,
        unit.jobs,
    )


def _unit(needs: Sequence[Resources], jobs: tuple[int, ...]) -> _Unit:
    if len(jobs) == 1:
        need = needs[jobs[0]]
        return _Unit(jobs, need, min(need.milli_gpus, WHOLE))
    first = needs[jobs[0]]
    need = Resources(
        milli_cpus=sum(needs[job].milli_cpus for job in jobs),
        milli_gpus=WHOLE,
        memory=sum(needs[job].memory for job in jobs),
        gpu_memory=sum(needs[job].gpu_memory for job in jobs),
        gpu_models=first.gpu_models,
        labels=first.labels,
    )
    return _Unit(jobs, need, sum(needs[job].milli_gpus for job in jobs))


class _Packer:
    """Places units, and remembers on which servers a need may still fit: room only shrinks."""

    def __init__(self, needs: Sequence[Resources], capacity: Capacity, choose: Chooser) -> None:
        self._needs = needs
        self._capacity = capacity
        self._choose = choose
        self._candidates: dict[Resources, Integers] = {}
        self.placements: list[Placement | None] = [None] * len(needs)

    def place(self, unit: _Unit) -> bool:
        """Whether a place was found for all jobs of the unit, which is then taken."""
        capacity, need = self._capacity, unit.need
        candidates = self._candidates.get(need)
        if candidates is None:
            candidates = np.flatnonzero(capacity.inventory.admits(need))
        candidates = self._candidates[need] = capacity.fitting(need, candidates)
        choice = self._choose(need, capacity, candidates) if len(candidates) else None
        if choice is None:
            return False
        server, devices = choice
        for job in unit.jobs:
            own = self._needs[job]
            shared = devices if len(unit.jobs) == 1 else ((devices[0][0], own.milli_gpus),)
            placement = capacity.placement(own, server, shared)
            capacity.take(placement)
            self.placements[job] = placement
        return True


def _bundles(needs: Sequence[Resources], jobs: Sequence[int]) -> list[_Unit]:
    """Jobs that may share devices, put together to fill them; each job is in one bundle."""
    groups: dict[tuple[frozenset[str], tuple[tuple[str, str], ...]], list[int]] = {}
    for job in jobs:
        need = needs[job]
        groups.setdefault((need.gpu_models, tuple(sorted(need.labels.items()))), []).append(job)
    units = []
    for group in groups.values():
        lines: dict[int, deque[int]] = {}
        for job in sorted(group, key=lambda job: (needs[job].milli_cpus, needs[job].memory, job)):
            lines.setdefault(needs[job].milli_gpus, deque()).append(job)
        while lines:
            pattern = _fullest({share: len(line) for share, line in lines.items()})
            times = min(len(lines[share]) // count for share, count in pattern.items())
            for _ in range(times):
                chosen = tuple(
                    lines[share].popleft() for share, count in pattern.items() for _ in range(count)
                )
                units.append(_unit(needs, chosen))
            lines = {share: line for share, line in lines.items() if line}
    return units


def _fullest(counts: dict[int, int]) -> dict[int, int]:
    """Of each share how many, so that their sum is the largest that one device can give.

    Of equal sums one with larger shares.
    """
    patterns: dict[int, dict[int, int]] = {0: {}}
    for share, most in sorted(counts.items(), reverse=True):
        for total, pattern in sorted(patterns.items(), reverse=True):
            for count in range(1, min(most, (WHOLE - total) // share) + 1):
                patterns.setdefault(total + count * share, {**pattern, share: count})
        if WHOLE in patterns:
            break
    return patterns[max(patterns)]
