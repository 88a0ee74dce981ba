"""How long the chains of jobs take that wait for one another."""

from __future__ import annotations

import random

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.links import Links, chains_s
from tests.cluster.instances import random_jobs
from tests.cluster.shorthand import job


def longest_s(name: str, jobs: list[Job]) -> float:
    """By definition: each of those that wait for it tried."""
    duration_s = next(each.duration_s for each in jobs if each.id == name)
    after = (longest_s(each.id, jobs) for each in jobs if name in each.after)
    return duration_s + max(after, default=0.0)


@pytest.mark.parametrize("seed", range(30))
def test_a_chain_is_the_longest_way_to_a_job_that_nobody_waits_for(seed: int) -> None:
    jobs = random_jobs(random.Random(seed))
    expected = {each.id: longest_s(each.id, jobs) for each in jobs}
    assert chains_s(jobs) == expected
    assert chains_s(jobs[::-1]) == expected


def test_jobs_that_are_not_there_do_not_count() -> None:
    assert chains_s([job("b", seconds=3, after=("gone",))]) == {"b": 3}


@pytest.mark.parametrize("seed", range(30))
def test_all_after_some_jobs_wait_for_one_of_them_or_for_one_that_does(seed: int) -> None:
    rng = random.Random(seed)
    jobs = random_jobs(rng)
    some = {each.id for each in jobs if rng.random() < 0.3}
    expected: set[str] = set()
    for each in jobs:  # which wait for earlier ones alone
        if (some | expected) & set(each.after):
            expected.add(each.id)
    assert Links(jobs, {}, 0.0).all_after(some) == expected
