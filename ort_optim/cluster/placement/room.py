"""What fits on one server: many needs as it is now, and one need as jobs end there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import WHOLE, Capacity, Integers, Mask
from ort_optim.cluster.plan import Placement


@dataclass(frozen=True)
class Needs:
    """What K fragments need, as arrays; U of them differ in what they need of devices.

    Attributes:
        milli_cpus, memory: (K,)
        own: (K,) which row of the following each one has.
        share, gpu_memory: (U,) of each device.
        devices: (U,) how many.
    """

    milli_cpus: Integers
    memory: Integers
    own: Integers
    share: Integers
    gpu_memory: Integers
    devices: Integers

    @staticmethod
    def of(needs: Sequence[Resources]) -> Needs:
        """The needs in their order."""
        of_devices: dict[tuple[int, int, int], int] = {}
        own = []
        for need in needs:
            count = max(1, need.whole_devices) if need.milli_gpus else 0
            row = min(need.milli_gpus, WHOLE), need.gpu_memory, count
            own.append(of_devices.setdefault(row, len(of_devices)))
        return Needs(
            np.array([need.milli_cpus for need in needs], dtype=np.int64),
            np.array([need.memory for need in needs], dtype=np.int64),
            np.array(own, dtype=np.int64),
            *np.array(list(of_devices), dtype=np.int64).reshape(-1, 3).T,
        )

    def fit_on(self, capacity: Capacity, server: int) -> Mask:
        """(K,) which of them fit on a server now."""
        milli, memory = capacity.device_milli[server], capacity.device_memory[server]  # (D,)
        usable = (self.share[:, None] <= milli) & (self.gpu_memory[:, None] <= memory)  # (U, D)
        enough = usable.sum(axis=1) >= self.devices  # (U,)
        mask: Mask = (
            (self.milli_cpus <= capacity.milli_cpus[server])
            & (self.memory <= capacity.memory[server])
            & enough[self.own]
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
