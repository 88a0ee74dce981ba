"""What is free on all servers at one moment, as integer arrays over servers and their devices.

    Inventory   what the servers are: fixed
    Capacity    what is free on them: `take` and `give` change it
    Chooser     which of the servers that fit gets a job: `choose(need, capacity, candidates)`
    best_fit    the plain one

Letters: S servers in the order of the cluster file, D the most devices that any server has. CPUs
and shares of devices are integers in thousandths and memory is in bytes, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.servers import Cluster

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Devices = tuple[tuple[int, int], ...]
"""Pairs of a device's index and the share of it in thousandths."""

WHOLE = 1000
"""All of a device, in thousandths."""


@dataclass(frozen=True)
class Inventory:
    """What the servers have in all.

    Attributes:
        names: (S,)
        index: The place of each name in `names`.
        milli_cpus, memory: (S,)
        devices: (S,) how many devices.
        device_milli: (S, D) 1000 for each device, 0 where a server has fewer than D.
        device_memory: (S, D) bytes of each device.
        model: (S,) index into `models`; -1 without devices.
        models: The distinct models of GPU, sorted.
        labels: (S,)
        drained: (S,) nothing new may be placed here.
    """

    names: tuple[str, ...]
    index: Mapping[str, int]
    milli_cpus: Integers
    memory: Integers
    devices: Integers
    device_milli: Integers
    device_memory: Integers
    model: Integers
    models: tuple[str, ...]
    labels: tuple[Mapping[str, str], ...]
    drained: Mask

    @staticmethod
    def of(cluster: Cluster) -> Inventory:
        """Arrays of what a cluster has."""
        servers = cluster.servers
        models = tuple(sorted({each.gpus.model for each in servers if each.gpus}))
        counts = _integers([each.devices for each in servers])
        there = np.arange(max(1, counts.max(initial=0))) < counts[:, None]  # (S, D)
        sizes = _integers([each.gpus.memory if each.gpus else 0 for each in servers])
        return Inventory(
            names=tuple(each.name for each in servers),
            index={each.name: place for place, each in enumerate(servers)},
            milli_cpus=_integers([each.milli_cpus for each in servers]),
            memory=_integers([each.memory for each in servers]),
            devices=counts,
            device_milli=np.where(there, WHOLE, 0).astype(np.int64),
            device_memory=np.where(there, sizes[:, None], 0).astype(np.int64),
            model=_integers(
                [models.index(each.gpus.model) if each.gpus else -1 for each in servers]
            ),
            models=models,
            labels=tuple(each.labels for each in servers),
            drained=np.array([each.drained for each in servers], dtype=np.bool_),
        )

    def admits(self, need: Resources) -> Mask:
        """(S,) Servers, not drained, that have what `need` asks of one server when they are empty.

        GPU models, labels, CPUs, memory, the number of devices and their memory count; the class
        and `need.servers` do not.
        """
        enough = ~self.drained & _enough(need, self.milli_cpus, self.memory)
        if need.milli_gpus or need.gpu_memory:
            enough &= _devices_that_fit(need, self.device_milli, self.device_memory) >= max(
                1, need.whole_devices
            )
        if need.gpu_models:
            wanted = [place for place, name in enumerate(self.models) if name in need.gpu_models]
            enough &= np.isin(self.model, wanted)
        if need.labels:
            wanted_labels = need.labels.items()
            enough &= np.array(
                [wanted_labels <= has.items() for has in self.labels], dtype=np.bool_
            )
        return enough


class Capacity:
    """What is free; arrays as those of `Inventory`, and no entry ever below 0.

    Attributes:
        inventory: What there is in all.
        milli_cpus, memory: (S,)
        device_milli, device_memory: (S, D)
    """

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.milli_cpus = inventory.milli_cpus.copy()
        self.memory = inventory.memory.copy()
        self.device_milli = inventory.device_milli.copy()
        self.device_memory = inventory.device_memory.copy()

    def copy(self) -> Capacity:
        """An independent copy."""
        copy = Capacity.__new__(Capacity)
        copy.inventory = self.inventory
        copy.milli_cpus = self.milli_cpus.copy()
        copy.memory = self.memory.copy()
        copy.device_milli = self.device_milli.copy()
        copy.device_memory = self.device_memory.copy()
        return copy

    def fitting(self, need: Resources, candidates: Integers) -> Integers:
        """Those of `candidates` (indices of servers) on which `need` fits now, as a fragment.

        Only amounts count: affinity, drained servers and classes are the business of whoever makes
        the candidates.
        """
        fits = _enough(need, self.milli_cpus[candidates], self.memory[candidates])
        if need.milli_gpus:
            devices = _devices_that_fit(
                need, self.device_milli[candidates], self.device_memory[candidates]
            )
            fits &= devices >= max(1, need.whole_devices)
        return candidates[fits]

    def usable_devices(self, need: Resources, server: int) -> Integers:
        """Indices of the devices of one server that can give what `need` asks of each device."""
        share = min(need.milli_gpus, WHOLE)
        milli, memory = self.device_milli[server], self.device_memory[server]
        return np.flatnonzero((milli >= max(1, share)) & (memory >= need.gpu_memory))

    def placement(self, need: Resources, server: int, devices: Devices) -> Placement:
        """A fragment's placement on one server, with the devices that a chooser named."""
        return Placement(
            server=self.inventory.names[server],
            milli_cpus=need.milli_cpus,
            memory=need.memory,
            devices=devices,
            gpu_memory=need.gpu_memory if devices else 0,
        )

    def whole(self, server: int) -> Placement:
        """The placement that is all of one server."""
        has = self.inventory
        count = int(has.devices[server])
        return Placement(
            server=has.names[server],
            milli_cpus=int(has.milli_cpus[server]),
            memory=int(has.memory[server]),
            devices=tuple((device, WHOLE) for device in range(count)),
            gpu_memory=int(has.device_memory[server, 0]) if count else 0,
        )

    def take(self, placement: Placement) -> None:
        """Occupy a placement. Raises ValueError, and changes nothing, if it does not fit."""
        self._add(placement, -1)

    def give(self, placement: Placement) -> None:
        """Free a placement that was taken. Raises ValueError if more is given than there is."""
        self._add(placement, 1)

    def _add(self, placement: Placement, sign: int) -> None:
        has = self.inventory
        server = has.index[placement.server]
        cpus = int(self.milli_cpus[server]) + sign * placement.milli_cpus
        memory = int(self.memory[server]) + sign * placement.memory
        milli = self.device_milli[server].copy()
        device_memory = self.device_memory[server].copy()
        for device, share in placement.devices:
            milli[device] += sign * share
            device_memory[device] += sign * placement.gpu_memory
        if not (
            0 <= cpus <= has.milli_cpus[server]
            and 0 <= memory <= has.memory[server]
            and (milli >= 0).all()
            and (milli <= has.device_milli[server]).all()
            and (device_memory >= 0).all()
            and (device_memory <= has.device_memory[server]).all()
        ):
            raise ValueError(f"{placement} is more than is there")
        self.milli_cpus[server] = cpus
        self.memory[server] = memory
        self.device_milli[server] = milli
        self.device_memory[server] = device_memory


class Chooser(Protocol):
    """Which of several servers gets a fragment, and which of its devices."""

    def __call__(
        self, need: Resources, capacity: Capacity, candidates: Integers
    ) -> tuple[int, Devices] | None:
        """The index of a server and its devices, or None to leave the job waiting.

        `candidates` are indices in rising order, never empty; `need` fits on each of them now
        (`Capacity.fitting`), and each may be used. The answer is taken by the caller; a chooser
        changes nothing. Equal arguments give equal answers.
        """


def best_fit(
    need: Resources, capacity: Capacity, candidates: Integers
) -> tuple[int, Devices] | None:
    """The server with the least left over: free GPU first, then CPUs, memory, place in the file.

    A share goes to the fullest device that can give it. A job without GPUs goes to servers without
    them first, as they have the least free GPU.
    """
    free_gpu = capacity.device_milli[candidates].sum(axis=1)
    order = np.lexsort((capacity.memory[candidates], capacity.milli_cpus[candidates], free_gpu))
    server = int(candidates[order[0]])
    return server, fullest_devices(need, capacity, server)


def fullest_devices(need: Resources, capacity: Capacity, server: int) -> Devices:
    """The devices of a server that `need` fits on which have the least free; () without GPUs."""
    if not need.milli_gpus:
        return ()
    usable = capacity.usable_devices(need, server)
    milli, memory = capacity.device_milli[server, usable], capacity.device_memory[server, usable]
    order = usable[np.lexsort((memory, milli))]
    share = min(need.milli_gpus, WHOLE)
    return tuple((int(device), share) for device in order[: max(1, need.whole_devices)])


def _enough(need: Resources, milli_cpus: Integers, memory: Integers) -> Mask:
    mask: Mask = (milli_cpus >= need.milli_cpus) & (memory >= need.memory)
    return mask


def _devices_that_fit(need: Resources, milli: Integers, memory: Integers) -> Integers:
    """(S,) How many devices of each server can give what `need` asks of each device."""
    share = min(need.milli_gpus, WHOLE)
    count: Integers = ((milli >= share) & (memory >= need.gpu_memory)).sum(axis=1)
    return count


def _integers(values: list[int]) -> Integers:
    return np.array(values, dtype=np.int64)
