"""The plan: reservations, backfill, dependencies, what runs already."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.planner import Policy, plan
from ort_optim.cluster.plan import Placement, Plan, Planned
from ort_optim.cluster.servers import Cluster
from ort_optim.errors import InputError
from tests.cluster.shorthand import (
    cluster,
    find,
    job,
    one_after_another,
    reason,
    server,
    servers_of,
    starts,
)
from tests.toolbox import ROOT, environment

INF = float("inf")


def test_nothing_is_planned_from_nothing() -> None:
    assert plan([], cluster(auto=2)).planned == ()


def test_small_whole_jobs_do_not_push_a_large_one_back() -> None:
    jobs = [job("first", 8, 10), job("large", 16, 10), *(job(f"s{i}", 8, 15) for i in range(9))]
    made = plan(jobs, cluster(one=2), ready_s=one_after_another(jobs))
    assert starts(made)["large"] == 10
    assert min(starts(made)[f"s{i}"] for i in range(9)) == 20


def test_a_small_whole_job_goes_ahead_where_it_delays_nobody() -> None:
    jobs = [job("first", 8, 10), job("large", 16, 10), job("long", 8, 11), job("short", 8, 10)]
    made = plan(jobs, cluster(one=2), ready_s=one_after_another(jobs))
    assert starts(made) == {"first": 0, "short": 0, "large": 10, "long": 20}


def test_a_large_fragment_at_the_head_waits_no_longer_than_what_runs() -> None:
    """Small ones come back all the time; without a reservation it would wait for all of them."""
    small = [job(f"s{i}", 1, 10 + i % 7) for i in range(200)]
    jobs = [*small[:20], job("large", 8, 10), *small[20:]]
    made = plan(jobs, cluster(two=2), ready_s=one_after_another(jobs))
    head_s = max(starts(made)[each.id] for each in small[:20])
    assert starts(made)["large"] <= head_s + max(each.duration_s for each in small)
    assert max(starts(made).values()) > 5 * starts(made)["large"]


@pytest.mark.parametrize("seed", range(60))
def test_the_head_of_the_queue_starts_within_the_longest_duration(seed: int) -> None:
    """For any mix of fragments: once all before it have started, a job waits for one of them."""
    rng = random.Random(seed)
    gpus = (0.3, 0.5, 1, 2, 4, 8)
    jobs = [
        job(f"j{i}", rng.choice(gpus), rng.randint(1, 50), milli_cpus=rng.randint(1, 64) * 1000)
        for i in range(40)
    ]
    made = plan(jobs, cluster(two=2), ready_s=one_after_another(jobs))
    longest_s = max(each.duration_s for each in jobs)
    head_s = 0.0
    for each in jobs:
        start_s = starts(made)[each.id]
        assert start_s <= head_s + longest_s
        head_s = max(head_s, start_s)


def test_jobs_wait_for_those_in_after() -> None:
    jobs = [
        job("d", after=("b", "c")),
        job("b", 8, 30, after=("a",)),
        job("c", 0, 5, after=("a",)),
        job("a", 1, 7),
    ]
    assert starts(plan(jobs, cluster(one=1, two=1))) == {"a": 0, "b": 7, "c": 7, "d": 37}


def test_what_waits_for_a_refused_job_is_refused_and_says_so() -> None:
    made = plan([job("a", 99), job("b", after=("a",)), job("c", after=("b",))], cluster(two=1))
    assert reason(made, "b") == "waits for job 'a', which can't be placed"
    assert reason(made, "c") == "waits for job 'b', which can't be placed"


def test_what_waits_for_a_job_that_is_not_there_has_waited_enough() -> None:
    assert starts(plan([job("b", after=("ended",))], cluster(two=1))) == {"b": 0}


BACKFILL = Policy(backfill=True)


def test_backfill_uses_idle_class_one_only_when_class_two_is_full() -> None:
    jobs = [job("a", 8, 10), job("b", 4, 10), job("c", 5, 10)]
    servers = cluster(one=2, two=1)
    assert starts(plan(jobs[1:], servers)) == {"b": 0, "c": 10}
    made = plan(jobs, servers, policy=BACKFILL)
    assert starts(made) == {"a": 0, "b": 0, "c": 0}
    assert servers_of(made, "b") == ["two0"]
    assert servers_of(made, "c") == ["one1"]
    assert "backfill" in find(made, "c").why


def test_backfill_ends_before_the_server_is_reserved() -> None:
    whole = [job("w1", 8, 10), job("w2", 16, 10)]
    fragments = [job("long", 3, 11), job("short", 3, 10)]
    made = plan([*whole, *fragments], cluster(one=2), policy=BACKFILL)
    assert servers_of(made, "short") == ["one1"]
    assert starts(made) == {"w1": 0, "short": 0, "w2": 10, "long": 20}


def test_backfill_keeps_clear_of_a_whole_job_that_is_not_ready_yet() -> None:
    jobs = [
        job("before", 0, 10),
        job("w", 8, 10, after=("before",)),
        job("full", 7, 50),
        job("long", 7, 11),
        job("short", 7, 10),
    ]
    made = plan(jobs, cluster(one=1, two=1), policy=BACKFILL)
    assert starts(made)["w"] == 10
    assert servers_of(made, "short") == ["one0"]
    assert starts(made)["short"] == 0
    assert starts(made)["long"] == 20


def running(name: str, at: Cluster, end_s: float, server_name: str, gpus: int) -> Planned:
    devices = tuple((device, 1000) for device in range(gpus))
    here = next(each for each in at.servers if each.name == server_name)
    cpus = here.milli_cpus if gpus == here.devices else 1000
    memory = here.memory if gpus == here.devices else 0
    gpu_memory = here.gpus.memory if here.gpus and gpus == here.devices else 0
    return Planned(name, 0, end_s, (Placement(server_name, cpus, memory, devices, gpu_memory),))


def test_what_runs_keeps_its_place_and_is_not_planned_again() -> None:
    at = cluster(one=1, two=1)
    busy = [running("w", at, 40, "one0", 8), running("f", at, 30, "two0", 6)]
    jobs = [job("w", 8), job("f", 6), job("next", 8), job("small", 2), job("big", 3)]
    made = plan(jobs, at, running=busy, now_s=20)
    assert starts(made) == {"next": 40, "small": 20, "big": 30}


def test_a_job_that_runs_over_is_expected_to_take_as_long_again() -> None:
    at = cluster(one=1)
    made = plan([job("next", 8)], at, running=[running("w", at, 40, "one0", 8)], now_s=45)
    assert starts(made) == {"next": 50}
    made = plan([job("next", 8)], at, running=[running("w", at, 40, "one0", 8)], now_s=40)
    assert starts(made) == {"next": 41}


def test_held_jobs_occupy_their_devices_for_ever() -> None:
    at = cluster(one=1, two=1)
    held = [running("w", at, INF, "one0", 8), running("f", at, INF, "two0", 6)]
    jobs = [job("next", 8), job("small", 2), job("big", 3), job("then", after=("w",))]
    made = plan(jobs, at, running=held)
    assert starts(made) == {"small": 0}
    assert "held" in reason(made, "next")
    assert "held" in reason(made, "big")
    assert reason(made, "then") == "waits for job 'w', which is held or runs without an end"


def test_a_whole_job_goes_where_nothing_is_held() -> None:
    at = cluster(one=2)
    made = plan([job("next", 8)], at, running=[running("w", at, INF, "one0", 8)])
    assert servers_of(made, "next") == ["one1"]


def test_what_ran_on_a_server_that_is_gone_is_in_nobodys_way() -> None:
    lost = Planned("w", 0, 50, (Placement("gone", 1000, 0, ((0, 1000),)),))
    assert starts(plan([job("next", 8)], cluster(one=1), running=[lost])) == {"next": 0}


def test_more_running_than_a_server_has_is_an_error_that_names_both() -> None:
    at = cluster(two=1)
    busy = [running("a", at, 10, "two0", 8), running("b", at, 10, "two0", 1)]
    with pytest.raises(InputError, match=r"job b runs on more of server two0"):
        plan([], at, running=busy)


def test_a_fragment_that_runs_on_class_one_is_waited_for_by_whole_jobs() -> None:
    at = cluster(one=1)
    made = plan([job("w", 8)], at, running=[running("f", at, 25, "one0", 3)], policy=BACKFILL)
    assert starts(made) == {"w": 25}


def test_auto_servers_stay_on_the_side_an_earlier_plan_put_them() -> None:
    at = cluster(auto=3)
    first = plan([job("w", 8, 10), job("f", 3, 10)], at)
    assert sorted(first.classes.values()) == ["one", "two", "two"]
    again = plan([job("f2", 3)], at, classes=first.classes, now_s=10)
    assert again.classes == first.classes


def test_a_drained_server_finishes_what_it_runs() -> None:
    at = cluster(server("d", "two", drained=True), two=1)
    made = plan([job("n", 8)], at, running=[running("f", at, 30, "d", 4)])
    assert servers_of(made, "n") == ["two0"]


def test_a_chooser_decides_on_server_and_device() -> None:
    def last(need: object, capacity: object, candidates: object) -> tuple[int, tuple[()]]:
        return int(candidates[-1]), ()  # type: ignore[index]

    made = plan([job("a")], cluster(two=3), choose=last)
    assert servers_of(made, "a") == ["two2"]


PROGRAM = """
import random
from ort_optim.cluster.plan import plan_to_json
from ort_optim.cluster.placement.planner import Policy, plan
from tests.cluster.instances import random_cluster, random_jobs
for seed in range(40):
    rng = random.Random(seed)
    cluster, jobs = random_cluster(rng), random_jobs(rng)
    print(plan_to_json(plan(jobs, cluster, policy=Policy(backfill=True))))
"""


def test_the_same_input_gives_the_same_plan_whatever_the_hash_seed() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment(PYTHONHASHSEED=seed),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(texts) == 1
    assert len(texts.pop()) > 10_000


def test_the_order_of_the_servers_in_the_file_settles_ties() -> None:
    at = cluster(two=3)
    assert servers_of(plan([job("a", 1)], at), "a") == ["two0"]
    turned = Cluster(at.servers[::-1])
    assert servers_of(plan([job("a", 1)], turned), "a") == ["two2"]


def without(made: Plan, names: set[str]) -> Plan:
    return replace(made, planned=tuple(each for each in made.planned if each.job not in names))


@pytest.mark.parametrize("seed", range(40))
def test_fragments_never_change_the_plan_of_whole_jobs(seed: int) -> None:
    rng = random.Random(seed)
    whole = [job(f"w{i}", 8 * rng.randint(1, 3), rng.randint(1, 40)) for i in range(8)]
    fragments = [job(f"f{i}", rng.choice((0, 0.5, 3)), rng.randint(1, 40)) for i in range(20)]
    mixed: list[Job] = [*whole, *fragments]
    rng.shuffle(mixed)
    in_order = [each for each in mixed if each in whole]
    at = cluster(one=3, two=1)
    for policy in (Policy(), BACKFILL):
        made = plan(mixed, at, policy=policy)
        alone = plan(in_order, at, policy=policy)
        assert without(made, {each.id for each in fragments}).planned == alone.planned
