"""Jobs, placements and rows as the journal writes them: JSON text with sorted keys."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import Event, Lease, Record, Request, State


def job_to_text(job: Job) -> str:
    """One text for equal jobs, so that texts tell whether a definition has changed."""
    values = asdict(job) | {"options": dict(job.options), "env": dict(job.env)}
    values["resources"] |= {
        "gpu_models": sorted(job.resources.gpu_models),
        "labels": dict(job.resources.labels),
    }
    return json.dumps(values, sort_keys=True, default=str)


def job_from_text(text: str) -> Job:
    values: dict[str, Any] = json.loads(text)
    resources = values.pop("resources")
    resources["gpu_models"] = frozenset(resources["gpu_models"])
    for name in ("command", "after"):
        values[name] = tuple(values[name])
    for name in ("model", "output"):
        values[name] = Path(values[name]) if values[name] else None
    return Job(**values | {"resources": Resources(**resources)})


def placements_to_text(placements: tuple[Placement, ...]) -> str:
    return json.dumps([asdict(placement) for placement in placements], sort_keys=True)


def placements_from_text(text: str) -> tuple[Placement, ...]:
    return tuple(
        Placement(
            **values | {"devices": tuple((index, share) for index, share in values["devices"])}
        )
        for values in json.loads(text)
    )


def record_of(row: sqlite3.Row) -> Record:
    return Record(
        job=job_from_text(row["definition"]),
        state=State(row["state"]),
        placements=placements_from_text(row["placements"]),
        **{
            name: row[name]
            for name in (
                *("position", "owner", "cause", "note", "attempt", "starts"),
                *("since_s", "wait_s", "started_s", "ended_s", "last_step", "container"),
            )
        },
    )


def event_of(row: sqlite3.Row) -> Event:
    return Event(
        at_s=row["at_s"],
        job=row["job"],
        attempt=row["attempt"],
        before=State(row["before"]),
        after=State(row["after"]),
        cause=row["cause"],
    )


def request_of(row: sqlite3.Row) -> Request:
    return Request(row["number"], row["job"], row["kind"], json.loads(row["body"]))


def lease_of(row: sqlite3.Row) -> Lease:
    return Lease(
        row["pid"],
        row["pid_started_s"],
        row["host"],
        row["beat_s"],
        row["address"],
        bool(row["transfer"]),
        Path(row["folder"]),
    )
