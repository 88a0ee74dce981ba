"""A job on several servers: one keeper on each, and what they say put together.

The process of rank 0 stands in the job's own folder, the others in `ranks/JOB/RANK` of the state
folder. Each learns from its environment which one it is. A fault of one holds the job; a restart
starts those again that are held. When one is lost, the others are ended and the job is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import OVER, State

# The first of these that any member is in is the state of the job.
WORST_FIRST = (
    State.LOST,
    State.HELD,
    State.RUNNING,
    State.FAILED,
    State.CANCELLED,
    State.DONE,
)
ENDED = OVER | {State.LOST}


def members_of(job: Job, placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """Where processes are started: a command on each server, a model's `optimize` on the first."""
    return placements[:1] if job.model is not None else placements


def folder_of(state: Path, job: str, rank: int) -> Path:
    """The folder of one process of a job."""
    return state / "jobs" / job if rank == 0 else state / "ranks" / job / str(rank)


def environment_of(
    rank: int, placements: tuple[Placement, ...], addresses: Mapping[str, str]
) -> dict[str, str]:
    """What a process is told of the others: nothing where there are none.

    ORT_OPTIM_RANK counts from 0; ORT_OPTIM_SERVERS has the addresses of all servers by rank.
    """
    if len(placements) == 1:
        return {}
    servers = [addresses.get(placement.server, placement.server) for placement in placements]
    return {"ORT_OPTIM_RANK": str(rank), "ORT_OPTIM_SERVERS": ",".join(servers)}


def together(statuses: Sequence[Status], placements: Sequence[Placement]) -> Status:
    """The status of the job from those of its processes, by rank."""
    if len(statuses) == 1:
        return statuses[0]
    states = [status.state for status in statuses]
    state = next(each for each in WORST_FIRST if each in states)
    rank = states.index(state)
    speaker = statuses[rank]
    cause = f"on {placements[rank].server}: {speaker.cause}" if speaker.cause else ""
    # So that each start of any of them makes the number grow, and the first of all is 1.
    start = sum(status.start for status in statuses) - len(statuses) + 1
    return replace(speaker, cause=cause, start=start)
