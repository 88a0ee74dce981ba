"""Who goes first: ready time and priority decide, then the longest chain, then the file."""

from __future__ import annotations

import random

import pytest

from ort_optim.cluster.placement.planner import Policy, plan
from ort_optim.cluster.plan import Plan
from tests.cluster.exact import shortest_makespan
from tests.cluster.shorthand import cluster, job, one_after_another, starts


def order(made: Plan) -> list[str]:
    """Jobs by their starts."""
    return sorted(starts(made), key=starts(made).__getitem__)


def test_priority_goes_first_then_the_order_of_the_file() -> None:
    jobs = [job("a", 8), job("b", 8, priority=2), job("c", 8), job("d", 8, priority=1)]
    made = plan(jobs, cluster(one=1))
    assert order(made) == ["b", "d", "a", "c"]


def test_of_equal_jobs_the_longest_goes_first_and_of_equally_long_ones_the_first() -> None:
    jobs = [job("a", 8, 5), job("b", 8, 30), job("c", 8, 10), job("d", 8, 30)]
    for at in (cluster(one=1), cluster(two=1)):
        assert order(plan(jobs, at)) == ["b", "d", "c", "a"]


def test_what_waits_for_a_job_counts_as_part_of_its_length() -> None:
    jobs = [
        job("alone", 8, 30),
        job("first", 8, 5, after=("ended",)),
        job("short", 0, 1, after=("first",)),
        job("long", 0, 20, after=("first", "short")),
        job("last", 0, 6, after=("long",)),
    ]
    assert order(plan(jobs, cluster(one=1, two=1)))[:2] == ["first", "alone"]


def test_length_never_goes_before_priority_or_ready_time() -> None:
    at = cluster(one=1)
    jobs = [job("a", 8, 1), job("b", 8, 100)]
    assert order(plan(jobs, at, ready_s=one_after_another(jobs))) == ["a", "b"]
    assert order(plan([job("a", 8, 1, priority=1), job("b", 8, 100)], at)) == ["a", "b"]


def test_the_caller_knows_of_more_that_waits() -> None:
    jobs = [job("a", 8, 100), job("b", 8, 1)]
    assert order(plan(jobs, cluster(one=1), chain_s={"a": 100, "b": 200})) == ["b", "a"]


@pytest.mark.parametrize("need", [{"gpus": 8}, {"servers": 1}])
@pytest.mark.parametrize("seed", range(15))
def test_the_makespan_on_equal_machines_is_within_grahams_bound(
    need: dict[str, int], seed: int
) -> None:
    """Longest first: at most 4/3 - 1/(3 m) of the shortest on m machines (Graham, 1969)."""
    pytest.importorskip("ortools")
    rng = random.Random(seed)
    m = rng.randint(2, 4)
    jobs = [job(f"j{i}", seconds=rng.randint(1, 20), **need) for i in range(9)]
    at = cluster(one=m) if "servers" in need else cluster(two=m)
    shortest_s = shortest_makespan(jobs, at)
    assert shortest_s <= plan(jobs, at).makespan_s <= (4 / 3 - 1 / (3 * m)) * shortest_s


@pytest.mark.parametrize(
    ("ageing_s", "earliest_s", "latest_s"), [(50, 50, 80), (100, 100, 130), (10_000, 600, 600)]
)
def test_a_job_that_waits_long_goes_before_later_ones_of_higher_priority(
    ageing_s: float, earliest_s: float, latest_s: float
) -> None:
    """One of two chains of a higher priority always has a job ready when the server is free."""
    chains = [
        job(f"{chain}{i}", 8, 10, priority=1, after=(f"{chain}{i - 1}",) if i else ())
        for i in range(30)
        for chain in "ab"
    ]
    made = plan([*chains, job("low", 8, 10)], cluster(two=1), policy=Policy(ageing_s=ageing_s))
    assert earliest_s <= starts(made)["low"] <= latest_s


def test_a_wait_that_the_caller_tells_counts() -> None:
    jobs = [job("new", 8, priority=1), job("old", 8)]
    times = {"ready_s": {"new": 900.0, "old": 0.0}, "now_s": 900.0}
    assert starts(plan(jobs, cluster(one=1), **times))["old"] == 900
    slow = Policy(ageing_s=1000)
    assert starts(plan(jobs, cluster(one=1), policy=slow, **times))["new"] == 900
