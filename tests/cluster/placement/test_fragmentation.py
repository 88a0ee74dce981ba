"""What a free part of a server is worth to the jobs that may come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.placement.fragmentation import (
    Mix,
    States,
    fragments,
    usable,
    usable_and_room,
)

MODELS = ("A", "B")

needs = st.builds(
    Resources,
    milli_cpus=st.integers(0, 9000),
    milli_gpus=st.sampled_from([0, 190, 470, 500, 810, 1000, 2000, 4000]),
    memory=st.integers(0, 9),
    gpu_models=st.sets(st.sampled_from(MODELS)).map(frozenset),
)
counts = st.lists(st.tuples(needs, st.integers(1, 9)), min_size=1, max_size=6)
devices = st.lists(st.sampled_from([0, 190, 470, 530, 810, 1000]), min_size=4, max_size=4)


def state(cpus: int, memory: int, milli: list[int], model: int = 0) -> States:
    """One server."""
    return States(np.array([cpus]), np.array([memory]), np.array([milli]), np.array([model]))


def one_kind(**fields: int) -> Mix:
    return Mix.of([(Resources(**fields), 1.0)], MODELS)


def test_a_share_uses_all_of_each_device_that_is_large_enough() -> None:
    mix = one_kind(milli_cpus=1000, milli_gpus=470)
    assert usable(state(4000, 9, [1000, 470, 460, 0]), mix) == [[1470]]


def test_without_cpus_or_memory_for_one_job_nothing_is_usable() -> None:
    mix = one_kind(milli_cpus=1000, milli_gpus=470, memory=5)
    assert usable(state(999, 9, [1000]), mix) == [[0]]
    assert usable(state(1000, 4, [1000]), mix) == [[0]]


def test_room_for_many_jobs_ends_where_cpus_do() -> None:
    mix = one_kind(milli_cpus=1000, milli_gpus=500)
    one, many = usable_and_room(state(2999, 9, [1000, 1000]), mix)
    assert (one, many) == ([[2000]], [[1000]])


def test_room_for_jobs_of_two_devices_counts_pairs() -> None:
    mix = one_kind(milli_cpus=0, milli_gpus=2000)
    one, many = usable_and_room(state(0, 0, [1000, 1000, 1000, 900]), mix)
    assert (one, many) == ([[3000]], [[2000]])


def test_a_model_that_a_job_may_not_use_is_all_fragment() -> None:
    mix = Mix.of([(Resources(milli_gpus=500, gpu_models=frozenset({"B"})), 1.0)], MODELS)
    there = state(9000, 9, [1000, 300], model=0)
    assert fragments(there, mix) == [1300.0]
    assert fragments(state(9000, 9, [1000, 300], model=1), mix) == [300.0]


def test_to_jobs_without_gpus_all_of_the_gpu_is_a_fragment() -> None:
    mix = Mix.of([(Resources(), 3.0), (Resources(milli_gpus=500), 1.0)], MODELS)
    assert mix.probability == pytest.approx([0.25])
    assert fragments(state(9000, 9, [1000]), mix) == pytest.approx([750.0])


def test_only_the_most_frequent_kinds_that_make_up_the_popularity_count() -> None:
    listed = [
        (Resources(milli_gpus=milli), count) for milli, count in ((100, 6), (200, 3), (300, 1))
    ]
    mix = Mix.of(listed, MODELS, popularity=0.9)
    assert mix.share.tolist() == [100, 200]
    assert mix.probability == pytest.approx([6 / 9, 3 / 9])


def test_memory_left_aside_makes_kinds_one() -> None:
    listed = [(Resources(milli_gpus=100, memory=memory), 1.0) for memory in (1, 2)]
    assert len(Mix.of(listed, MODELS).share) == 2
    assert Mix.of(listed, MODELS, memory=False).probability == [1.0]


def test_more_kinds_than_allowed_are_merged_with_their_neighbours() -> None:
    listed = [(Resources(milli_cpus=place, milli_gpus=place), 1.0) for place in range(1, 101)]
    mix = Mix.of(listed, MODELS, most=10)
    assert len(mix.share) == 10
    assert mix.probability == pytest.approx([0.1] * 10)
    assert mix.share.tolist() == list(range(6, 101, 10))
    assert len(Mix.of(listed, MODELS, most=100).share) == 100


@settings(deadline=None)
@given(counts, st.integers(0, 40_000), st.integers(0, 40), devices, st.integers(-1, 1))
def test_it_is_what_a_plain_count_gives(
    listed: list[tuple[Resources, int]], cpus: int, memory: int, milli: list[int], model: int
) -> None:
    there = state(cpus, memory, milli, model)
    total = sum(count for _, count in listed)
    expected = 0.0
    for need, count in listed:
        share, wanted = min(need.milli_gpus, 1000), max(1, need.milli_gpus // 1000)
        large = [free for free in milli if free >= share]
        fits = (
            need.milli_gpus > 0
            and model >= 0
            and (not need.gpu_models or MODELS[model] in need.gpu_models)
            and cpus >= need.milli_cpus
            and memory >= need.memory
            and len(large) >= wanted
        )
        expected += count / total * (sum(milli) - (sum(large) if fits else 0))
    mix = Mix.of(listed, MODELS)
    assert fragments(there, mix) == pytest.approx([expected])
    one, many = usable_and_room(there, mix)
    assert (many <= one).all()
    assert (one == usable(there, mix)).all()
