"""Packing a list that is known as a whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.capacity import Capacity, Inventory, best_fit
from ort_optim.cluster.placement.offline import pack
from ort_optim.cluster.placement.scoring import room_chooser
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.servers import Cluster, Gpus, Server

needs = st.builds(
    Resources,
    milli_cpus=st.integers(0, 9000),
    milli_gpus=st.sampled_from([0, 50, 190, 320, 470, 500, 650, 810, 1000, 2000, 4000]),
    memory=st.integers(0, 9),
    gpu_memory=st.sampled_from([0, 3, 6]),
    gpu_models=st.sets(st.sampled_from(["A", "B"])).map(frozenset),
)


def servers(count: int, gpus: int = 2, cpus: int = 16, model: str = "A") -> list[Server]:
    return [
        Server(f"{model}{place}", "two", cpus * 1000, 64, Gpus(model, gpus, 10))
        for place in range(count)
    ]


def shares(*milli: int, cpus: int = 1000) -> list[Resources]:
    return [Resources(milli_cpus=cpus, milli_gpus=each) for each in milli]


def packed(listed: list[Resources], cluster: list[Server]) -> list[Placement | None]:
    inventory = Inventory.of(Cluster(tuple(cluster)))
    return pack(listed, Capacity(inventory), room_chooser(listed, inventory))


@given(st.lists(needs, max_size=40))
@settings(deadline=None)
def test_each_job_gets_what_it_asks_for_and_no_server_gives_more_than_it_has(
    listed: list[Resources],
) -> None:
    cluster = servers(2, gpus=4) + servers(2, model="B")
    inventory = Inventory.of(Cluster(tuple(cluster)))
    placements = pack(listed, Capacity(inventory), room_chooser(listed, inventory))
    assert len(placements) == len(listed)
    again = Capacity(inventory)
    for need, placement in zip(listed, placements, strict=True):
        if placement is None:
            continue
        again.take(placement)  # raises if it does not fit
        assert sum(share for _, share in placement.devices) == need.milli_gpus
        assert placement.milli_cpus == need.milli_cpus
        assert placement.memory == need.memory
        assert not need.gpu_models or placement.server[0] in need.gpu_models
        assert placement.gpu_memory == (need.gpu_memory if need.milli_gpus else 0)


@given(st.lists(needs, max_size=30))
@settings(deadline=None)
def test_what_is_left_out_would_not_fit(listed: list[Resources]) -> None:
    inventory = Inventory.of(Cluster(tuple(servers(3))))
    capacity = Capacity(inventory)
    placements = pack(listed, capacity, best_fit)
    for need, placement in zip(listed, placements, strict=True):
        if placement is None:
            admitted = np.flatnonzero(inventory.admits(need))
            assert not len(capacity.fitting(need, admitted))


def test_shares_that_fill_a_device_together_get_one() -> None:
    listed = shares(810, 190, 500, 500, 650, 320)
    placements = packed(listed, servers(2, gpus=2))
    where = [(each.server, each.devices[0][0]) for each in placements if each]
    assert len(where) == 6
    assert where[0] == where[1]
    assert where[2] == where[3]
    assert where[4] == where[5]


def test_of_more_than_there_is_room_for_the_shares_that_waste_least_are_taken() -> None:
    listed = shares(*[810] * 8, *[500] * 4, *[1000] * 2)
    placements = packed(listed, servers(2))
    taken = Counter(need.milli_gpus for need, at in zip(listed, placements, strict=True) if at)
    assert taken == {500: 4, 1000: 2}


def test_jobs_of_several_devices_find_whole_servers() -> None:
    listed = [*shares(*[320] * 6), Resources(milli_cpus=1000, milli_gpus=4000)]
    placements = packed(listed, servers(2, gpus=4))
    assert all(placements)
    assert len(placements[-1].devices if placements[-1] else ()) == 4


def test_a_bundle_that_finds_no_place_is_placed_job_by_job() -> None:
    # Together they would need 20 CPUs, and no server has more than 16.
    placements = packed(shares(500, 500, cpus=10_000), servers(2, gpus=1))
    assert len({each.server for each in placements if each}) == 2


@pytest.mark.parametrize("listed", [[], [Resources(milli_cpus=1000)] * 3])
def test_without_gpu_jobs_all_is_placed_while_cpus_last(listed: list[Resources]) -> None:
    assert all(packed(listed, servers(1)))


def test_labels_and_models_are_kept_in_bundles() -> None:
    listed = [
        Resources(milli_cpus=0, milli_gpus=500, gpu_models=frozenset({model}))
        for model in ("A", "B", "A", "B")
    ]
    placements = packed(listed, servers(1, gpus=1) + servers(1, gpus=1, model="B"))
    assert [each.server[0] for each in placements if each] == ["A", "B", "A", "B"]
