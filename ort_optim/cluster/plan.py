"""A plan: which job runs when, on which servers and devices, and which can't run and why.

Its JSON is the interface to other programs and between versions of this one; it has a version.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ort_optim.errors import InputError

VERSION = 1

ServerClass = Literal["one", "two"]


@dataclass(frozen=True)
class Placement:
    """What a job has of one server.

    Attributes:
        server: Its name.
        milli_cpus: Thousandths of a CPU.
        memory: Bytes.
        devices: Pairs of a device's index and the share of it, in thousandths; 1000 is all of it.
        gpu_memory: Bytes on each of the devices.
    """

    server: str
    milli_cpus: int
    memory: int
    devices: tuple[tuple[int, int], ...] = ()
    gpu_memory: int = 0


@dataclass(frozen=True)
class Planned:
    """A job with its time, [start_s, end_s) as expected, its placements, and the reason for them.

    Seconds count from the zero that `now_s` of the planner counts from. A job that may stay for
    ever (it is held) has end_s = inf.
    """

    job: str
    start_s: float
    end_s: float
    placements: tuple[Placement, ...]
    why: str = ""


@dataclass(frozen=True)
class Refused:
    """A job that can't be placed, and why, in one line that says what to do."""

    job: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What the planner decided.

    Attributes:
        planned: By start, then in the order of the queue.
        refused: In the order of the job file.
        classes: The class of each server by its name, with `auto` resolved.
        reason_of_classes: Why `auto` servers were split as they are; empty where there are none.
    """

    version: int = VERSION
    planned: tuple[Planned, ...] = ()
    refused: tuple[Refused, ...] = ()
    classes: Mapping[str, ServerClass] = field(default_factory=dict, hash=False)
    reason_of_classes: str = ""

    @property
    def makespan_s(self) -> float:
        """When the last job ends; 0 where none is planned."""
        return max((each.end_s for each in self.planned), default=0.0)


def plan_to_json(plan: Plan) -> str:
    """The plan as JSON text: keys in a fixed order, an endless job's end as null."""
    content = {
        "version": plan.version,
        "makespan_s": _finite(plan.makespan_s),
        "classes": dict(plan.classes),
        "reason_of_classes": plan.reason_of_classes,
        "planned": [planned_to_dict(each) for each in plan.planned],
        "refused": [{"job": each.job, "reason": each.reason} for each in plan.refused],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON, whole or not at all. Raises InputError where that can't be."""
    target = path.resolve()  # a link stays, and what it leads to is replaced
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix=f".{target.name}.", dir=target.parent, delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(plan_to_json(plan))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(target))
        temporary.replace(target)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}): give another file"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def plan_from_json(text: str, source: str | Path = "plan") -> Plan:
    """The plan that `plan_to_json` wrote. Raises InputError for anything else."""
    try:
        content = json.loads(text)
        version = content["version"]
        if version != VERSION:
            raise InputError(
                f"{source}: a plan of version {version}, and this program reads {VERSION}: "
                "plan again with `batch plan`"
            )
        return Plan(
            version=VERSION,
            planned=tuple(planned_from_dict(each) for each in content["planned"]),
            refused=tuple(
                Refused(str(each["job"]), str(each["reason"])) for each in content["refused"]
            ),
            classes={str(name): _class(each) for name, each in content["classes"].items()},
            reason_of_classes=str(content["reason_of_classes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source}: not a plan ({type(error).__name__}: {error}): write one with `batch plan`"
        ) from error


def planned_to_dict(planned: Planned) -> dict[str, Any]:
    """One entry as plain data for JSON; `planned_from_dict` reads it."""
    return {
        "job": planned.job,
        "start_s": planned.start_s,
        "end_s": _finite(planned.end_s),
        "placements": [
            {
                "server": each.server,
                "milli_cpus": each.milli_cpus,
                "memory": each.memory,
                "devices": [list(device) for device in each.devices],
                "gpu_memory": each.gpu_memory,
            }
            for each in planned.placements
        ],
        "why": planned.why,
    }


def planned_from_dict(content: Mapping[str, Any]) -> Planned:
    """One entry from plain data. Raises KeyError, TypeError or ValueError for anything else."""
    end = content["end_s"]
    return Planned(
        job=str(content["job"]),
        start_s=float(content["start_s"]),
        end_s=math.inf if end is None else float(end),
        placements=tuple(
            Placement(
                server=str(each["server"]),
                milli_cpus=int(each["milli_cpus"]),
                memory=int(each["memory"]),
                devices=tuple((int(device), int(milli)) for device, milli in each["devices"]),
                gpu_memory=int(each["gpu_memory"]),
            )
            for each in content["placements"]
        ),
        why=str(content["why"]),
    )


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _class(text: Any) -> ServerClass:
    if text == "one":
        return "one"
    if text == "two":
        return "two"
    raise ValueError(f"class {text!r}")


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those that a new file gets."""
    with contextlib.suppress(FileNotFoundError):
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
