"""Ten thousand random instances: whatever is planned is possible, at every moment."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.planner import Policy, plan
from ort_optim.cluster.plan import Plan, Planned
from ort_optim.cluster.servers import Cluster
from tests.cluster.checker import faults
from tests.cluster.instances import random_cluster, random_jobs

INSTANCES = 10_000
SLICES = 10


@pytest.mark.parametrize("part", range(SLICES))
def test_no_plan_is_over_capacity_or_breaks_a_need_or_an_order(part: int) -> None:
    planned = later = 0
    for seed in range(part, INSTANCES, SLICES):
        rng = random.Random(seed)
        cluster, jobs = random_cluster(rng), random_jobs(rng)
        backfill = rng.random() < 0.5
        ready_s = {job.id: -rng.random() for job in jobs} if rng.random() < 0.3 else None
        made = plan(jobs, cluster, policy=Policy(backfill=backfill), ready_s=ready_s)
        assert faults(jobs, cluster, made, backfill=backfill) == [], seed
        planned += len(made.planned)
        later += sum(each.start_s > 0 for each in made.planned)
    assert planned > 3 * INSTANCES / SLICES
    assert later > INSTANCES / SLICES


@pytest.mark.parametrize("part", range(3))
def test_a_plan_made_again_while_jobs_run_leaves_them_where_they_are(part: int) -> None:
    going_on = 0
    for seed in range(part, 1500, 3):
        rng = random.Random(seed)
        cluster, jobs = random_cluster(rng), random_jobs(rng)
        policy = Policy(backfill=rng.random() < 0.5)
        first = plan(jobs, cluster, policy=policy)
        now_s = rng.choice((0.5, 5.0, 30.0, 100.0))
        waiting, running = as_of(first, jobs, now_s)
        if rng.random() < 0.3 and running:
            running[0] = replace(running[0], end_s=float("inf"))
        again = plan(
            waiting, cluster, running=running, now_s=now_s, policy=policy, classes=first.classes
        )
        found = faults(waiting, cluster, again, running, now_s, backfill=policy.backfill)
        assert found == [], seed
        assert again.classes == first.classes
        going_on += len(running)
    assert going_on > 500


def test_plans_made_again_at_each_end_never_push_a_whole_machine_job_back() -> None:
    """Of jobs of equal priority; all of which can be placed, as in `batch submit`."""
    whole = 0
    for seed in range(150):
        rng = random.Random(seed)
        cluster, jobs = random_cluster(rng), random_jobs(rng)
        policy = Policy(backfill=rng.random() < 0.5)
        classes = plan(jobs, cluster, policy=policy).classes
        placed = {each.job for each in plan(jobs, cluster, policy=policy, classes=classes).planned}
        left = {job.id: replace(job, priority=0) for job in jobs if job.id in placed}
        promised = plan([*left.values()], cluster, policy=policy, classes=classes)
        starts: dict[str, float] = {}
        running: list[Planned] = []
        ready_s = dict.fromkeys(left, 0.0)
        now_s = 0.0
        while left:
            waiting = [*left.values()]
            times = {"now_s": now_s, "ready_s": ready_s}
            made = plan(waiting, cluster, running=running, policy=policy, classes=classes, **times)
            for each in made.planned:
                if each.start_s == now_s:
                    running.append(each)
                    starts[each.job] = now_s
                    del left[each.job]
            now_s = min(each.end_s for each in running)
            ended = {each.job for each in running if each.end_s == now_s}
            running = [each for each in running if each.job not in ended]
            ready_s |= {job.id: now_s for job in left.values() if ended & set(job.after)}
        for each in promised.planned:
            if is_whole(each, promised) and "backfill" not in each.why:
                assert starts[each.job] <= each.start_s, seed
                whole += 1
    assert whole > 150


@pytest.mark.parametrize("part", range(3))
def test_backfill_never_delays_a_whole_machine_job(part: int) -> None:
    used = 0
    for seed in range(part, 1800, 3):
        rng = random.Random(seed)
        cluster, jobs = random_cluster(rng), random_jobs(rng)
        without = plan(jobs, cluster, policy=Policy(backfill=False))
        with_it = plan(jobs, cluster, policy=Policy(backfill=True))
        starts = {each.job: each.start_s for each in with_it.planned}
        for each in without.planned:
            if is_whole(each, without):
                assert starts[each.job] <= each.start_s, seed
        used += sum("backfill" in each.why for each in with_it.planned)
    assert used > 180


def as_of(made: Plan, jobs: list[Job], now_s: float) -> tuple[list[Job], list[Planned]]:
    """Jobs that have not started, and those that run, if all goes as planned."""
    ended = {each.job for each in made.planned if each.end_s <= now_s}
    running = [each for each in made.planned if each.start_s <= now_s < each.end_s]
    gone = ended | {each.job for each in running}
    return [job for job in jobs if job.id not in gone], running


def is_whole(planned: Planned, made: Plan) -> bool:
    """Class one is for whole machines alone in a plan without backfill."""
    return all(made.classes[placement.server] == "one" for placement in planned.placements)


def test_the_checker_finds_every_kind_of_fault() -> None:
    """Plans are damaged in one place each; none of the damage goes unseen."""
    damaged = crowded = 0
    for seed in range(300):
        rng = random.Random(seed)
        cluster, jobs = random_cluster(rng), random_jobs(rng)
        made = plan(jobs, cluster)
        if made.planned:
            for broken in damages(made):
                damaged += 1
                assert faults(jobs, cluster, broken), (seed, broken)
            for more_jobs, broken in crowds(made, jobs, cluster):
                crowded += 1
                found = faults(more_jobs, cluster, broken)
                assert any("too m" in fault for fault in found), (seed, broken)
    assert damaged > 1000
    assert crowded > 100


def damages(made: Plan) -> list[Plan]:
    """Plans that are wrong in one way each."""
    first, others = made.planned[0], made.planned[1:]
    broken = [
        (),
        (first, first),
        (replace(first, start_s=first.start_s - 1),),
        (replace(first, end_s=first.end_s + 1),),
        (replace(first, placements=()),),
        (replace(first, placements=first.placements * 2),),
        (with_place(first, milli_cpus=10**9),),
        (with_place(first, memory=2**50),),
        (with_place(first, devices=((0, 1000), (99, 1000))),),
    ]
    if first.placements[0].devices:
        broken.append((with_place(first, devices=()),))
    return [replace(made, planned=(*each, *others)) for each in broken]


def crowds(made: Plan, jobs: list[Job], cluster: Cluster) -> list[tuple[list[Job], Plan]]:
    """As many copies of one job in the same place as are too many."""
    first = made.planned[0]
    (place, *_) = first.placements
    server = next(each for each in cluster.servers if each.name == place.server)
    job = next(job for job in jobs if job.id == first.job)
    counts = []
    if place.milli_cpus:
        counts.append(server.milli_cpus // place.milli_cpus)
    if place.memory:
        counts.append(server.memory // place.memory)
    if place.devices:
        counts.append(1000 // place.devices[0][1])
    found = []
    for count in counts:
        names = [f"copy{number}" for number in range(count)]
        copies = tuple(replace(first, job=name) for name in names)
        more_jobs = [*jobs, *(replace(job, id=name) for name in names)]
        found.append((more_jobs, replace(made, planned=(*made.planned, *copies))))
    return found


def with_place(planned: Planned, **changes: object) -> Planned:
    first, *others = planned.placements
    return replace(planned, placements=(replace(first, **changes), *others))
