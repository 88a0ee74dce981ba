"""Reservations of whole servers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from ort_optim.cluster.placement.capacity import Inventory
from ort_optim.cluster.placement.timeline import Timeline
from tests.cluster.shorthand import cluster, server


@pytest.mark.parametrize("seed", range(200))
def test_each_reservation_is_the_earliest_and_overlaps_none(seed: int) -> None:
    """Ready times come in any order, so that gaps are left and filled."""
    rng = random.Random(seed)
    count = rng.randint(1, 5)
    timeline = Timeline(Inventory.of(cluster(one=count)), 0)
    busy: list[set[int]] = [set() for _ in range(count)]
    for _ in range(25):
        allowed = np.array(sorted(rng.sample(range(count), rng.randint(1, count))))
        needed, ready = rng.randint(1, len(allowed)), rng.randint(0, 60)
        duration = rng.randint(1, 12)
        slot = timeline.reserve(allowed, needed, ready, duration)
        assert slot is not None
        start_s, servers = slot
        earliest = ready
        while (
            sum(busy[each].isdisjoint(range(earliest, earliest + duration)) for each in allowed)
            < needed
        ):
            earliest += 1
        assert start_s == earliest
        assert len(servers) == needed
        assert set(servers) <= set(allowed)
        for each in servers:
            taken = set(range(earliest, earliest + duration))
            assert busy[each].isdisjoint(taken)
            busy[each] |= taken
        now_s = rng.randint(0, 80)
        for each, limit_s in enumerate(timeline.limits(now_s)):
            later = [second for second in busy[each] if second >= now_s]
            assert limit_s == (min(later) if later else math.inf)


def test_what_never_ends_is_waited_for_in_vain() -> None:
    timeline = Timeline(Inventory.of(cluster(one=2)), 0)
    timeline.occupy(1, math.inf)
    assert timeline.reserve(np.arange(2), 2, 0, 1) is None
    assert timeline.reserve(np.arange(2), 1, 0, 1) is not None


def test_fragments_that_run_are_waited_for_and_gaps_that_passed_are_forgotten() -> None:
    timeline = Timeline(Inventory.of(cluster(one=1)), 0)
    timeline.share(0, 10)
    assert timeline.reserve(np.arange(1), 1, 0, 5) == (10, np.array([0]))
    assert timeline.limits(3).tolist() == [10]
    timeline.forget_before(12)
    assert timeline.limits(3).tolist() == [3]


def test_servers_with_fewer_devices_are_taken_first() -> None:
    at = cluster(server("large", "one", gpus=8), server("small", "one", gpus=2))
    timeline = Timeline(Inventory.of(at), 0)
    slot = timeline.reserve(np.arange(2), 1, 0, 5)
    assert slot is not None
    assert slot[1].tolist() == [1]
