"""What fits on one server: many needs as it is now, and one need as jobs end there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ort_optim.cluster.capacity import WHOLE, Capacity, Integers, Mask
from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.plan import Placement


@dataclass(frozen=True)
class Needs:
    """What K fragments need, as arrays.

    Attributes:
        milli_cpus, memory: (K,)
        share, gpu_memory: (K,) of each device.
        devices: (K,) how many.
    """

    milli_cpus: Integers
    memory: Integers
    share: Integers
    gpu_memory: Integers
    devices: Integers

    @staticmethod
    def of(needs: Sequence[Resources]) -> Needs:
        """The needs in their order."""
        rows = [
            (
                need.milli_cpus,
                need.memory,
                min(need.milli_gpus, WHOLE),
                need.gpu_memory,
                max(1, need.whole_devices) if need.milli_gpus else 0,
            )
            for need in needs
        ]
        return Needs(*np.array(rows, dtype=np.int64).reshape(len(rows), 5).T.copy())

    def fit_on(self, capacity: Capacity, server: int) -> Mask:
        """(K,) which of them fit on a server now."""
        milli, memory = capacity.device_milli[server], capacity.device_memory[server]  # (D,)
        usable = (self.share[:, None] <= milli) & (self.gpu_memory[:, None] <= memory)  # (K, D)
        mask: Mask = (
            (self.milli_cpus <= capacity.milli_cpus[server])
            & (self.memory <= capacity.memory[server])
            & (usable.sum(axis=1) >= self.devices)
        )
        return mask


class Room:
    """What is free on one server, in plain numbers, which for one server are faster than arrays."""

    def __init__(self, capacity: Capacity, server: int) -> None:
        self._milli_cpus = int(capacity.milli_cpus[server])
        self._memory = int(capacity.memory[server])
        self._devices: list[int] = capacity.device_milli[server].tolist()
        self._device_memory: list[int] = capacity.device_memory[server].tolist()

    def give(self, placement: Placement) -> None:
        """A placement ends."""
        self._milli_cpus += placement.milli_cpus
        self._memory += placement.memory
        for device, share in placement.devices:
            self._devices[device] += share
            self._device_memory[device] += placement.gpu_memory

    def fits(self, need: Resources) -> bool:
        """Whether a fragment fits."""
        if need.milli_cpus > self._milli_cpus or need.memory > self._memory:
            return False
        if not need.milli_gpus:
            return True
        share = min(need.milli_gpus, WHOLE)
        usable = sum(
            milli >= share and memory >= need.gpu_memory
            for milli, memory in zip(self._devices, self._device_memory, strict=True)
        )
        return usable >= max(1, need.whole_devices)
