"""A shorter plan by trying other orders of the jobs that are equal in priority.

The planner starts what it can in the order of the queue, so the order decides on the makespan.
Tried are the order as it is, the most work first, and then changes of the best so far, each by one
job moved to another place: hill climbing with a fixed seed, so that equal arguments give equal
answers. Every plan keeps the promises of the planner; the best of those that were tried is no proof
that there is none shorter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.links import chains_s
from ort_optim.cluster.plan import Plan

SEED = 0


def shortest(jobs: Sequence[Job], make: Callable[[Sequence[Job]], Plan], tries: int) -> Plan:
    """The best plan of those for several orders of the jobs.

    What counts is how many jobs are placed, then the makespan, then the mean end.

    Args:
        make: The plan for an order; jobs of another priority or ready time keep their places.
        tries: How many plans are made at most, besides that of the order as it is.
    """
    best = list(jobs)
    best_plan = make(best)
    bound_s = _bound_s(jobs, best_plan)
    source = random.Random(SEED)
    for number in range(tries if len(jobs) > 1 else 0):
        if best_plan.makespan_s <= bound_s:
            break
        order = _moved(best, source) if number else sorted(jobs, key=_work, reverse=True)
        made = make(order)
        if _cost(made) <= _cost(best_plan):  # equal ones, too: a way off the plateau
            best, best_plan = order, made
    return best_plan


def _cost(made: Plan) -> tuple[int, float, float]:
    return len(made.refused), made.makespan_s, sum(each.end_s for each in made.planned)


def _bound_s(jobs: Sequence[Job], made: Plan) -> float:
    """No order ends sooner: the longest chain of jobs that can be placed."""
    placed = {each.job for each in made.planned}
    chains = chains_s([job for job in jobs if job.id in placed])
    first = min((each.start_s for each in made.planned), default=0.0)
    return first + max(chains.values(), default=0.0)


def _work(job: Job) -> float:
    """Roughly how much of a cluster a job takes for how long."""
    need = job.resources
    size = need.servers * 100 + need.milli_gpus / 1000 + need.milli_cpus / 100_000
    return size * job.duration_s


def _moved(order: Sequence[Job], source: random.Random) -> list[Job]:
    """The order with one job in another place."""
    moved = list(order)
    job = moved.pop(source.randrange(len(moved)))
    moved.insert(source.randrange(len(moved) + 1), job)
    return moved
