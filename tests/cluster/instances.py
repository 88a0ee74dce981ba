"""Random jobs and clusters, small enough to be many."""

from __future__ import annotations

import random
from dataclasses import replace

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.servers import Cluster, Gpus, Server

GIB = 2**30


def random_cluster(rng: random.Random) -> Cluster:
    """One to eight servers of up to three kinds."""
    kinds = []
    for kind in range(rng.choice((1, 1, 2, 3))):
        gpus = None
        if rng.random() < 0.85:
            count = rng.choice((1, 2, 4, 8, 8))
            gpus = Gpus(rng.choice(("T4", "T4", "A100")), count, rng.choice((16, 80)) * GIB)
        kinds.append(
            Server(
                name=f"k{kind}",
                cls="auto",
                milli_cpus=rng.choice((4, 16, 64)) * 1000,
                memory=rng.choice((8, 64)) * GIB,
                gpus=gpus,
                labels=rng.choice(({}, {"zone": "x"})),
            )
        )
    servers = []
    for number in range(rng.randint(1, 8)):
        server = replace(
            rng.choice(kinds),
            name=f"n{number}",
            cls=rng.choice(("one", "two", "auto", "auto")),
            drained=rng.random() < 0.05,
        )
        servers.append(server)
    return Cluster(tuple(servers))


def random_resources(rng: random.Random) -> Resources:
    """Mostly what a server of `random_cluster` can give, sometimes more."""
    memory = rng.choice((1, 4, 7, 16)) * GIB if rng.random() < 0.4 else 0
    gpu_models = frozenset({rng.choice(("T4", "A100"))}) if rng.random() < 0.1 else frozenset()
    labels = {"zone": rng.choice("xy")} if rng.random() < 0.05 else {}
    if rng.random() < 0.15:
        return Resources(rng.randint(1, 3), 1000, 0, memory, gpu_models=gpu_models, labels=labels)
    milli_gpus = rng.choice((0, 0, 100, 333, 500, 500, 900, 1000, 1000, 2000, 3000, 8000, 12000))
    return Resources(
        milli_cpus=rng.choice((0, 250, 1000, 1000, 3000, 4000, 20000)),
        milli_gpus=milli_gpus,
        memory=memory,
        gpu_memory=rng.choice((0, 0, 0, 4, 12, 40)) * GIB if milli_gpus else 0,
        gpu_models=gpu_models if milli_gpus else frozenset(),
        labels=labels,
    )


def random_jobs(rng: random.Random, most: int = 12) -> list[Job]:
    """Jobs j0, j1, ... that wait for earlier ones, if for any."""
    jobs: list[Job] = []
    kinds = [random_resources(rng) for _ in range(rng.randint(1, 5))]
    for number in range(rng.randint(1, most)):
        after: tuple[str, ...] = ()
        if jobs and rng.random() < 0.2:
            after = tuple({rng.choice(jobs).id: None, rng.choice(jobs).id: None})
        jobs.append(
            Job(
                id=f"j{number}",
                command=("true",),
                resources=rng.choice(kinds),
                priority=rng.choice((0, 0, 0, 1, 5)),
                duration_s=float(rng.choice((1, 5, 10, 10, 60, 700))),
                after=after,
            )
        )
    return jobs
