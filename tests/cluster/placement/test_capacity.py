"""What is free never goes below nothing or above what there is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import Capacity, Inventory, best_fit
from ort_optim.cluster.placement.room import Needs, Room
from ort_optim.cluster.plan import Placement
from tests.cluster.instances import random_cluster, random_resources
from tests.cluster.shorthand import GIB, cluster, server


def state(capacity: Capacity) -> list[object]:
    arrays = (
        capacity.milli_cpus,
        capacity.memory,
        capacity.device_milli,
        capacity.device_memory,
    )
    return [array.tolist() for array in arrays]


@pytest.mark.parametrize("seed", range(100))
def test_taking_all_that_fits_and_giving_it_back_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    inventory = Inventory.of(random_cluster(rng))
    capacity = Capacity(inventory)
    empty, taken = state(capacity), []
    for _ in range(60):
        need = random_resources(rng)
        fits = capacity.fitting(need, np.flatnonzero(inventory.admits(need)))
        if len(fits):
            server_index, devices = best_fit(need, capacity, fits)  # type: ignore[misc]
            assert server_index in fits
            taken.append(capacity.placement(need, server_index, devices))
            capacity.take(taken[-1])
    rng.shuffle(taken)
    for placement in taken:
        capacity.give(placement)
    assert state(capacity) == empty


@pytest.mark.parametrize("seed", range(100))
def test_the_ways_to_ask_what_fits_agree(seed: int) -> None:
    rng = random.Random(seed)
    inventory = Inventory.of(random_cluster(rng))
    capacity = Capacity(inventory)
    needs = [random_resources(rng) for _ in range(20)]
    everywhere = np.arange(len(inventory.names))
    arrays = Needs.of(needs)
    for need in needs:
        fits = capacity.fitting(need, everywhere)
        if len(fits):
            server_index, devices = best_fit(need, capacity, fits)  # type: ignore[misc]
            capacity.take(capacity.placement(need, server_index, devices))
        for server_index in everywhere.tolist():
            room = Room(capacity, server_index)
            many = arrays.fit_on(capacity, server_index).tolist()
            one = [len(capacity.fitting(each, np.array([server_index]))) == 1 for each in needs]
            assert many == one == [room.fits(each) for each in needs]


@pytest.mark.parametrize(
    "placement",
    [
        Placement("n", 64_001, 0),
        Placement("n", 0, 256 * GIB + 1),
        Placement("n", 0, 0, ((0, 1001),)),
        Placement("n", 0, 0, ((0, 600), (0, 600))),
        Placement("n", 0, 0, ((1, 1000),)),
        Placement("n", 0, 0, ((0, 100),), 81 * GIB),
    ],
)
def test_more_than_there_is_can_not_be_taken(placement: Placement) -> None:
    wide = server("wide")
    capacity = Capacity(Inventory.of(cluster(server("n", gpus=1), wide)))
    before = state(capacity)
    with pytest.raises(ValueError, match="more than is there"):
        capacity.take(placement)
    assert state(capacity) == before


def test_nothing_can_be_given_that_was_not_taken() -> None:
    capacity = Capacity(Inventory.of(cluster(server("n", gpus=1))))
    with pytest.raises(ValueError, match="more than is there"):
        capacity.give(Placement("n", 1, 0))


def test_a_copy_is_independent() -> None:
    capacity = Capacity(Inventory.of(cluster(server("n"))))
    copy = capacity.copy()
    copy.take(Placement("n", 1000, 1, ((3, 10),), 5))
    assert state(capacity) == state(Capacity(capacity.inventory))


def test_best_fit_takes_the_fullest_server_and_device() -> None:
    capacity = Capacity(Inventory.of(cluster(server("a", gpus=2), server("b", gpus=2))))
    capacity.take(Placement("b", 0, 0, ((1, 400),)))
    assert best_fit(Resources(milli_gpus=500), capacity, np.arange(2)) == (1, ((1, 500),))
    assert best_fit(Resources(milli_gpus=700), capacity, np.arange(2)) == (1, ((0, 700),))
    assert best_fit(Resources(milli_gpus=2000), capacity, np.arange(1)) == (
        0,
        ((0, 1000), (1, 1000)),
    )


def test_jobs_without_gpus_go_to_servers_without_them() -> None:
    capacity = Capacity(Inventory.of(cluster(server("a"), server("b", gpus=0))))
    assert best_fit(Resources(), capacity, np.arange(2)) == (1, ())
