"""The weighted room of servers before and after placements, worked out fast.

`Rooms` gives what `fragmentation.usable_and_room` gives, summed over the kinds of jobs with
weights, without looking at a server's devices again: a placement changes one device's part of a
sum.

Letters: S servers, n placements, s servers among them, K kinds, R distinct requests of devices: a
share of one, or whole ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import WHOLE, Capacity, Floats, Integers
from ort_optim.cluster.placement.fragmentation import MANY, Mix


@dataclass(frozen=True)
class Placements:
    """Ways to place one job that differ in what they leave free.

    Attributes:
        need: The job's.
        servers: (s,) those of the placements, each once.
        origin: (n,) index into `servers`, rising.
        device: (n,) the device that gives a share, else the first of whole ones; 0 without GPUs.
    """

    need: Resources
    servers: Integers
    origin: Integers
    device: Integers


class Rooms:
    """Room by kind of job, weighted; see `fragmentation` for the two rooms of a kind."""

    def __init__(self, mix: Mix, next_job: Floats, many_jobs: Floats | None) -> None:
        """The weights (K,) of the room for the next job, and of the room for many jobs of a kind.

        None: the room for many jobs does not count.
        """
        self._mix = mix
        self._many = many_jobs
        requests, own = np.unique(
            np.stack([mix.share, mix.devices]), axis=1, return_inverse=True
        )  # (2, R), (K,)
        self._share, self._devices = requests
        self._own = own.ravel()
        self._several = np.flatnonzero(self._devices > 1)
        self._next_of = np.zeros((len(own), len(self._share)))  # (K, R)
        self._next_of[np.arange(len(own)), self._own] = next_job
        free = np.arange(WHOLE + 1)[:, None]
        self._given = np.where(free >= self._share, free, 0).astype(np.float64)  # (free, R)
        self._cpus = np.maximum(mix.milli_cpus, 1).astype(np.float64)
        self._memory = np.maximum(mix.memory, 1).astype(np.float64)
        self._no_cpus = np.where(mix.milli_cpus > 0, 0, MANY)
        self._no_memory = np.where(mix.memory > 0, 0, MANY)
        self._milli_gpus = mix.milli_gpus.astype(np.float64)
        self._may = np.vstack([mix.models.T, np.zeros((1, len(own)), dtype=np.bool_)])
        """(M + 1, K); a server without devices has model -1, the last row."""
        self._gpu = np.zeros((0, 0))  # (S, R) free GPU on devices that are large enough
        self._value = np.zeros(0)  # (S,) room now

    def follow(self, capacity: Capacity, servers: Integers) -> None:
        """What is free on these servers has changed."""
        if len(self._gpu) != len(capacity.milli_cpus):
            self._gpu = np.zeros((len(capacity.milli_cpus), len(self._share)))
            self._value = np.zeros(len(capacity.milli_cpus))
        self._gpu[servers] = self._given[capacity.device_milli[servers]].sum(axis=1)
        host = self._host(
            capacity.milli_cpus[servers], capacity.memory[servers], self._model(capacity, servers)
        )
        self._value[servers] = self._room(self._gpu[servers], host, np.arange(len(servers)))

    def lost(self, capacity: Capacity, placements: Placements) -> Floats:
        """(n,) The room that each placement takes from its server, in thousandths of a device."""
        need, servers = placements.need, placements.servers
        chosen = servers[placements.origin]
        gpu = self._gpu[chosen]  # (n, R)
        if need.whole_devices:
            gpu -= WHOLE * need.whole_devices
        elif need.milli_gpus:
            free = capacity.device_milli[chosen, placements.device]
            gpu += self._given[free - need.milli_gpus] - self._given[free]
        host = self._host(
            capacity.milli_cpus[servers] - need.milli_cpus,
            capacity.memory[servers] - need.memory,
            self._model(capacity, servers),
        )
        left: Floats = self._value[chosen] - self._room(gpu, host, placements.origin)
        return left

    def _model(self, capacity: Capacity, servers: Integers) -> Integers:
        return capacity.inventory.model[servers]

    def _host(self, milli_cpus: Integers, memory: Integers, model: Integers) -> Floats:
        """(s, K) GPU of as many jobs as CPUs and memory suffice for; 0 on a model not theirs."""
        # Quotients of integers below 2**53 never round up to the next integer.
        jobs = np.minimum(
            milli_cpus[:, None] / self._cpus + self._no_cpus,
            memory[:, None] / self._memory + self._no_memory,
        )
        np.floor(jobs, out=jobs)
        jobs *= self._milli_gpus
        jobs *= self._may[model]
        return jobs

    def _room(self, gpu: Floats, host: Floats, origin: Integers) -> Floats:
        """(n,) Weighted room; `gpu` (n, R) is changed. `host[origin[i]]` belongs to `gpu[i]`."""
        some, whole = self._several, WHOLE * self._devices[self._several]
        sets = gpu[:, some] // whole
        gpu[:, some] *= sets > 0
        room: Floats = np.einsum("nr,nr->n", gpu, ((host > 0) @ self._next_of)[origin])
        if self._many is not None:
            gpu[:, some] = sets * whole
            room += np.minimum(gpu[:, self._own], host[origin]) @ self._many
        return room
