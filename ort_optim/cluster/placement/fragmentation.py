"""How much of the free GPU of a server the jobs that may come can still use.

    Mix                 the kinds of jobs that may come, and how often each one does
    States              what may be free on some servers
    usable              the free GPU that jobs of one kind fit on
    usable_and_room     the same, and where CPUs and memory must last for all of those jobs
    fragments           the expected part of the free GPU that the next job can't use

Fragmentation is defined as in Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing
Workloads with Fragmentation Gradient Descent", USENIX ATC 2023.

Letters: n states, D devices of a server, K kinds, U distinct requests of devices, M models of GPU.
GPU amounts are in thousandths of a device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import WHOLE, Floats, Integers, Mask

_Key = tuple[int, int, int, tuple[bool, ...]]
"""CPUs, memory and GPUs, in thousandths and bytes, and whether each model will do."""

MANY = 10**6
"""Jobs that need none of something."""


@dataclass(frozen=True)
class States:
    """What is free on n servers.

    Attributes:
        milli_cpus, memory: (n,)
        device_milli: (n, D)
        model: (n,) index of the GPU model; -1 without devices.
    """

    milli_cpus: Integers
    memory: Integers
    device_milli: Integers
    model: Integers

    @property
    def free_milli(self) -> Integers:
        """(n,) Free GPU in all."""
        total: Integers = self.device_milli.sum(axis=1)
        return total


@dataclass(frozen=True)
class Mix:
    """Kinds of jobs that use GPUs, and the probability that the next job is of each.

    Attributes:
        milli_cpus, memory: (K,) what one job takes.
        share: (K,) of each of its devices, in thousandths.
        devices: (K,) how many.
        models: (K, M) whether it may run on the model.
        probability: (K,) sums to 1 less the probability of a job without GPUs.
    """

    milli_cpus: Integers
    memory: Integers
    share: Integers
    devices: Integers
    models: Mask
    probability: Floats

    @staticmethod
    def of(
        needs: Iterable[tuple[Resources, float]],
        models: tuple[str, ...],
        popularity: float = 1.0,
        memory: bool = True,
        most: int | None = None,
    ) -> Mix:
        """The mix of a list of needs and how often each one comes.

        Args:
            models: All GPU models of the cluster.
            popularity: The most frequent kinds that make up this part of all jobs; rarer ones do
                not count.
            memory: Without it, needs that differ in memory alone are one kind that needs none.
            most: No more kinds than this: where there are more, neighbours among similar ones are
                counted as the middle one of them.
        """
        counts: dict[_Key, float] = {}
        for need, count in needs:
            may = tuple(not need.gpu_models or name in need.gpu_models for name in models)
            key = (
                need.milli_cpus,
                need.memory if memory else 0,
                need.milli_gpus,
                may if need.milli_gpus else (),
            )
            counts[key] = counts.get(key, 0.0) + count
        ranked = sorted(counts.items(), key=lambda entry: (entry[1], entry[0]), reverse=True)
        total = sum(counts.values())
        kept, so_far = [], 0.0
        for key, count in ranked:
            if so_far >= popularity * total:
                break
            kept.append((key, count))
            so_far += count
        of_gpus = [(key, count) for key, count in kept if key[2]]
        if most is not None and len(of_gpus) > most:
            of_gpus = _merged(of_gpus, most)
        milli_gpus = np.array([key[2] for key, _ in of_gpus], dtype=np.int64)
        return Mix(
            milli_cpus=np.array([key[0] for key, _ in of_gpus], dtype=np.int64),
            memory=np.array([key[1] for key, _ in of_gpus], dtype=np.int64),
            share=np.minimum(milli_gpus, WHOLE),
            devices=np.maximum(milli_gpus // WHOLE, 1),
            models=np.array([key[3] for key, _ in of_gpus], dtype=np.bool_).reshape(
                len(of_gpus), len(models)
            ),
            probability=np.array([count / so_far for _, count in of_gpus], dtype=np.float64),
        )

    @property
    def milli_gpus(self) -> Integers:
        """(K,) What one job takes of all its devices."""
        return self.share * self.devices

    @cached_property
    def requests(self) -> tuple[Integers, Integers]:
        """Distinct shares (U,) and the index (K,) of each kind's own."""
        shares, own = np.unique(self.share, return_inverse=True)
        return shares, own


def _merged(counts: list[tuple[_Key, float]], most: int) -> list[tuple[_Key, float]]:
    """At most so many kinds of equal total count; those alike in models and GPUs are neighbours."""
    ordered = sorted(counts, key=lambda entry: (entry[0][3], entry[0][2], entry[0]))
    size = -(-len(ordered) // most)
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [(group[len(group) // 2][0], sum(count for _, count in group)) for group in groups]


def usable(states: States, mix: Mix) -> Integers:
    """(n, K) Free GPU on devices that have what a job of the kind asks of each of its devices.

    It is 0 where not a single such job fits.
    """
    gpu, _, fits = _large_devices(states, mix)
    return np.where(fits, gpu, 0)


def usable_and_room(states: States, mix: Mix) -> tuple[Integers, Integers]:
    """(n, K) twice: `usable`, and what of it is left when jobs of the kind fill the server.

    The second counts no more than as many jobs take as CPUs and memory suffice for, and of devices
    that jobs take several of, only whole sets.
    """
    gpu, count, fits = _large_devices(states, mix)
    jobs = np.minimum(
        _how_often(states.milli_cpus, mix.milli_cpus), _how_often(states.memory, mix.memory)
    )  # (n, K)
    several = mix.devices > 1
    jobs[:, several] = np.minimum(jobs[:, several], count[:, several] // mix.devices[several])
    room = np.minimum(gpu, jobs * mix.milli_gpus)
    return np.where(fits, gpu, 0), np.where(fits, room, 0)


def fragments(states: States, mix: Mix) -> Floats:
    """(n,) Expected part of the free GPU that the next job of the mix can't use.

    To a job without GPUs all of the free GPU is a fragment.
    """
    expected: Floats = states.free_milli - usable(states, mix) @ mix.probability
    return expected


def _large_devices(states: States, mix: Mix) -> tuple[Integers, Integers, Mask]:
    """(n, K) The free GPU of devices that are large enough, their number, whether one job fits."""
    shares, own = mix.requests
    large: Mask = states.device_milli[:, None, :] >= shares[:, None]  # (n, U, D)
    count = large.sum(axis=2)[:, own]  # (n, U) -> (n, K)
    gpu = (large * states.device_milli[:, None, :]).sum(axis=2)[:, own]  # (n, U) -> (n, K)
    fits: Mask = (
        (count >= mix.devices)
        & (states.milli_cpus[:, None] >= mix.milli_cpus)
        & (states.memory[:, None] >= mix.memory)
        & mix.models.T[states.model]
        & (states.model >= 0)[:, None]
    )
    return gpu, count, fits


def _how_often(free: Integers, request: Integers) -> Integers:
    """(n, K) How many jobs of each kind an amount suffices for."""
    return np.where(request > 0, free[:, None] // np.maximum(request, 1), MANY)
