"""One run of a placement policy over arrivals of an openb workload.

POLICIES    by name: how each one's chooser is made
Outcome     what a run gives
run         arrivals one by one, each placed at once or lost; `offline` knows them as a list
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _openb import arrivals, read_cluster, read_pods

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import Capacity, Chooser, Integers, Inventory
from ort_optim.cluster.placement.fragmentation import Mix, States, fragments
from ort_optim.cluster.placement.offline import pack
from ort_optim.cluster.placement.scoring import (
    BestFitLoss,
    FragmentationLoss,
    RandomChooser,
    Scorer,
    room_chooser,
)
from ort_optim.cluster.plan import Placement

TYPICAL = 0.95
"""The published typical jobs: the most frequent ones that make up this part of the list."""

Counts = Counter[Resources]

POLICIES: Mapping[str, Callable[[Counts, Inventory, int], Chooser]] = {
    "random": lambda counts, inventory, seed: RandomChooser(seed),
    "best fit": lambda counts, inventory, seed: Scorer(BestFitLoss()),
    "FGD": lambda counts, inventory, seed: Scorer(FragmentationLoss(_typical(counts, inventory))),
    "ours": lambda counts, inventory, seed: room_chooser(counts.elements(), inventory),
    "offline": lambda counts, inventory, seed: room_chooser(counts.elements(), inventory),
}


@dataclass(frozen=True)
class Outcome:
    """What a run gives.

    Attributes:
        allocation: Percent of the cluster's GPU that is allocated at the end.
        placed: Pods that got a place.
        fragments: Percent of the cluster's GPU that the next pod could not use, on average (FGD's
            measure).
        seconds: CPU time of this process for all decisions.
    """

    workload: str
    seed: int
    policy: str
    allocation: float
    placed: int
    fragments: float
    seconds: float


def run(folder: Path, workload: str, seed: int, policy: str) -> Outcome:
    """One policy on one workload with the arrivals of one seed.

    Raises RuntimeError if more was placed than there is, by a count of its own.
    """
    pods = read_pods(folder, workload)
    counts = Counter(pod.need for pod in pods)
    inventory = Inventory.of(read_cluster(folder, seed))
    needs = arrivals(pods, int(inventory.devices.sum()), seed)
    capacity = Capacity(inventory)
    choose = POLICIES[policy](counts, inventory, seed)
    start = time.process_time()
    if policy == "offline":
        placements = pack(needs, capacity, choose)
    else:
        placements = _online(needs, capacity, choose)
    seconds = time.process_time() - start
    _check(needs, placements, inventory)
    total = inventory.device_milli.sum()
    states = States(capacity.milli_cpus, capacity.memory, capacity.device_milli, inventory.model)
    taken = sum(need.milli_gpus for need, place in zip(needs, placements, strict=True) if place)
    return Outcome(
        workload=workload,
        seed=seed,
        policy=policy,
        allocation=100 * taken / float(total),
        placed=sum(place is not None for place in placements),
        fragments=100 * float(fragments(states, _typical(counts, inventory)).sum() / total),
        seconds=seconds,
    )


def _online(needs: list[Resources], capacity: Capacity, choose: Chooser) -> list[Placement | None]:
    """Each job is placed when it comes, or lost."""
    fitting: dict[Resources, Integers] = {}
    placements: list[Placement | None] = []
    for need in needs:
        # Nothing ends, so a server that a need did not fit on never gets room for it.
        candidates = fitting.get(need)
        if candidates is None:
            candidates = np.flatnonzero(capacity.inventory.admits(need))
        candidates = fitting[need] = capacity.fitting(need, candidates)
        choice = choose(need, capacity, candidates) if len(candidates) else None
        placement = capacity.placement(need, *choice) if choice else None
        if placement:
            capacity.take(placement)
        placements.append(placement)
    return placements


def _typical(counts: Counts, inventory: Inventory) -> Mix:
    return Mix.of(counts.items(), inventory.models, popularity=TYPICAL, memory=False)


def _check(
    needs: list[Resources], placements: list[Placement | None], inventory: Inventory
) -> None:
    """Add up what each server and device gives; raises RuntimeError where it is too much."""
    cpus: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    devices: Counter[tuple[str, int]] = Counter()
    for need, placement in zip(needs, placements, strict=True):
        if placement is None:
            continue
        server = inventory.index[placement.server]
        shares = [share for _, share in placement.devices]
        model = inventory.models[inventory.model[server]]
        if sum(shares) != need.milli_gpus or (need.gpu_models and model not in need.gpu_models):
            raise RuntimeError(f"{need} does not get what it asks for: {placement}")
        cpus[placement.server] += need.milli_cpus
        memory[placement.server] += need.memory
        for device, share in placement.devices:
            devices[placement.server, device] += share
    for name, server in inventory.index.items():
        if cpus[name] > inventory.milli_cpus[server] or memory[name] > inventory.memory[server]:
            raise RuntimeError(f"{name} gives more than it has")
    for (name, device), share in devices.items():
        if share > inventory.device_milli[inventory.index[name], device]:
            raise RuntimeError(f"device {device} of {name} gives more than it has")
