"""How long the chains of jobs take that wait for one another."""

from __future__ import annotations

import random

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.links import chains_s
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
