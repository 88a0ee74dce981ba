"""What starts now: the planner asked again each time something has changed.

A plan of thousands of jobs takes seconds, and what starts now depends on the first of them, so the
planner sees the first WINDOW jobs of the queue; what comes after them waits until those have
started.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ort_optim.cluster.links import chains_s
from ort_optim.cluster.plan import Placement, Plan, Planned, ServerClass
from ort_optim.cluster.servers import Cluster
from ort_optim.cluster.states import OCCUPYING, OVER, Record, State

AT_ONCE_S = 1e-6
WINDOW = 500


@dataclass
class Turn:
    """What is to be done now."""

    starts: dict[str, tuple[Placement, ...]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # why the others wait
    hopeless: dict[str, str] = field(default_factory=dict)  # what they need will never be done
    partial: bool = False  # more wait than the planner was shown


class Planner:
    """Asks `planner.plan` with what runs, and keeps the classes of servers.

    Args:
        ask: `planner.plan`, with its policy bound.
        classes: Of a plan of all jobs.
        ageing_s: Of the policy: what a point of priority is worth.
    """

    def __init__(
        self,
        ask: Callable[..., Plan],
        classes: Mapping[str, ServerClass] | None = None,
        ageing_s: float = 600.0,
    ) -> None:
        self._ask = ask
        self._classes = classes or {}
        self._ageing_s = ageing_s

    def decide(self, records: Mapping[str, Record], cluster: Cluster, now_s: float) -> Turn:
        """What starts, what waits and why. `now_s` is seconds since 1970."""
        turn = Turn(hopeless=_hopeless(records))
        chain_s = chains_s([each.job for each in records.values() if each.state is State.QUEUED])
        queue = self._queue(records, turn, chain_s)
        if not queue:
            return turn
        waiting = [replace(record.job, after=_left(record, records)) for record in queue]
        occupying = [record for record in records.values() if record.state in OCCUPYING]
        arguments = {
            "running": [_planned(record, now_s) for record in occupying],
            "now_s": 0.0,
            "ready_s": {record.id: _ready_s(record, records) - now_s for record in queue},
            "chain_s": chain_s,
        }
        decided = self._ask(waiting, cluster, classes=self._classes, **arguments)
        if decided.refused and not occupying and self._classes:
            # Servers have come or gone: another split may have room for all.
            decided = self._ask(waiting, cluster, classes={}, **arguments)
        self._classes = decided.classes
        for planned in decided.planned:
            left = _left(records[planned.job], records)
            if planned.start_s <= AT_ONCE_S and not left:
                turn.starts[planned.job] = planned.placements
            else:
                turn.notes[planned.job] = _why_later(left)
        turn.notes |= {refused.job: refused.reason for refused in decided.refused}
        return turn

    def _queue(
        self, records: Mapping[str, Record], turn: Turn, chain_s: Mapping[str, float]
    ) -> list[Record]:
        """What the planner is shown, in the order of arrival."""
        waiting = [
            record
            for record in records.values()
            if record.state is State.QUEUED and record.id not in turn.hopeless
        ]
        if len(waiting) > WINDOW:
            ready = [record for record in waiting if not _left(record, records)]
            ready.sort(  # as the planner does
                key=lambda each: (
                    _ready_s(each, records) - each.job.priority * self._ageing_s,
                    -chain_s[each.id],
                )
            )
            first = {record.id for record in ready[:WINDOW]}
            waiting = [record for record in waiting if record.id in first]
            turn.partial = True
        return waiting


def held_share(records: list[Record], cluster: Cluster) -> float:
    """The larger of the shares that these jobs have of the cluster's CPUs and of its GPUs."""
    cpus = sum(server.milli_cpus for server in cluster.servers)
    gpus = sum(server.devices * 1000 for server in cluster.servers)
    placements = [placement for record in records for placement in record.placements]
    held_cpus = sum(placement.milli_cpus for placement in placements)
    held_gpus = sum(milli for placement in placements for _, milli in placement.devices)
    return max(held_cpus / max(cpus, 1), held_gpus / max(gpus, 1))


def _why_later(left: Sequence[str]) -> str:
    """Why a job that was planned does not start now. No times: they would be outdated when read."""
    if not left:
        return "waits for room"
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return f"comes after {', '.join(left[:3])}{more}"


def _planned(record: Record, now_s: float) -> Planned:
    """What runs, in the planner's seconds, which begin now."""
    held = record.state is State.HELD
    end_s = math.inf if held else record.since_s + record.job.duration_s - now_s
    return Planned(record.id, min(record.since_s - now_s, 0.0), end_s, record.placements)


def _ready_s(record: Record, records: Mapping[str, Record]) -> float:
    """Since when it could have started; what it waited in earlier attempts counts, too."""
    before = (records[name].ended_s for name in record.job.after if name in records)
    return max((record.since_s - record.wait_s, *before))


def _left(record: Record, records: Mapping[str, Record]) -> tuple[str, ...]:
    """What must still be done before this job."""
    return tuple(
        name
        for name in record.job.after
        if name not in records or records[name].state is not State.DONE
    )


def _hopeless(records: Mapping[str, Record]) -> dict[str, str]:
    """Queued jobs that come after one that is over but not done, and those after them."""
    reasons: dict[str, str] = {}
    found = True
    while found:
        found = False
        for record in records.values():
            if record.state is not State.QUEUED or record.id in reasons:
                continue
            for name in _left(record, records):
                before = records.get(name)
                if name in reasons or (before is not None and before.state in OVER):
                    state = State.FAILED if before is None else before.state
                    reasons[record.id] = f"comes after {name}, which " + (
                        "can't be done" if name in reasons else f"is {state}"
                    )
                    found = True
                    break
    return reasons
