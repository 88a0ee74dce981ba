"""Short ways to write jobs and servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.plan import Plan, Planned
from ort_optim.cluster.servers import Cluster, Gpus, Server

GIB = 2**30


def server(name: str, cls: Any = "two", gpus: int = 8, model: str = "A100", **rest: Any) -> Server:
    """A server of 64 CPUs and 256 GiB with GPUs of 80 GiB."""
    values = {"milli_cpus": 64_000, "memory": 256 * GIB, **rest}
    return Server(name, cls, gpus=Gpus(model, gpus, 80 * GIB) if gpus else None, **values)


def cluster(*servers: Server, **counts: int) -> Cluster:
    """Given servers, and `one=2, two=1, auto=3` of the plain kind: one0, one1, two0, ..."""
    plain = [server(f"{cls}{i}", cls) for cls, count in counts.items() for i in range(count)]
    return Cluster((*servers, *plain))


def job(name: str, gpus: float = 0, seconds: float = 10, **rest: Any) -> Job:
    """A job of one CPU; `rest` are fields of Resources, or of Job."""
    fields = {key: rest.pop(key) for key in ("after", "priority", "owner") if key in rest}
    return Job(
        name,
        command=("true",),
        duration_s=seconds,
        resources=Resources(**{"milli_gpus": round(gpus * 1000), **rest}),
        **fields,
    )


def one_after_another(jobs: Sequence[Job]) -> dict[str, float]:
    """When jobs became ready that are served in their order, whatever their durations."""
    return {each.id: float(place - len(jobs)) for place, each in enumerate(jobs)}


def starts(made: Plan) -> dict[str, float]:
    """When each planned job starts."""
    return {each.job: each.start_s for each in made.planned}


def servers_of(made: Plan, name: str) -> list[str]:
    """Where a job runs; [] if it is refused."""
    return [place.server for place in find(made, name).placements] if name in starts(made) else []


def find(made: Plan, name: str) -> Planned:
    """The plan of one job."""
    return next(each for each in made.planned if each.job == name)


def reason(made: Plan, name: str) -> str:
    """Why a job is refused."""
    return next(each.reason for each in made.refused if each.job == name)
