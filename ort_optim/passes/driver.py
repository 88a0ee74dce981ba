"""Runs the passes in their order, again and again until none of them finds anything to do."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ort_optim.graph.annotation import annotate
from ort_optim.graph.view import Graph
from ort_optim.passes.base import Context, Pass
from ort_optim.passes.measure import measure


@dataclass(frozen=True)
class PassStats:
    """What one pass did in all rounds together."""

    name: str
    applied: int
    refused: int
    seconds: float


@dataclass(frozen=True)
class RunStats:
    """What a run of the driver did."""

    rounds: int
    passes: tuple[PassStats, ...]


class PassError(Exception):
    """A pass failed, or changed the graph without lowering the measure: a fault of that pass."""

    def __init__(self, pass_name: str, reason: str) -> None:
        super().__init__(f"{pass_name}: {reason}")
        self.pass_name = pass_name


def run_passes(
    root: Graph, ctx: Context, passes: Sequence[Pass], disabled: Collection[str] = ()
) -> RunStats:
    """Apply `passes` until a fixed point. Raises PassError if a pass is faulty."""
    active = [each for each in passes if each.name not in disabled]
    active.sort(key=lambda each: each.waits)
    seconds = dict.fromkeys((each.name for each in active), 0.0)
    rounds = 0
    current = measure(root)
    changed = True
    while changed:
        rounds += 1
        changed = False
        annotate(root)
        for each in active:
            if each.waits and changed:
                continue
            before, started = len(ctx.rewrites), time.perf_counter()
            try:
                each.run(root, ctx)
            except Exception as error:
                raise PassError(each.name, f"{type(error).__name__}: {error}") from error
            seconds[each.name] += time.perf_counter() - started
            if len(ctx.rewrites) > before:
                lowered = measure(root)
                if not lowered < current:
                    raise PassError(each.name, f"the measure went from {current} to {lowered}")
                current, changed = lowered, True
    return RunStats(
        rounds,
        tuple(
            PassStats(
                each.name,
                sum(rewrite.pass_name == each.name for rewrite in ctx.rewrites),
                sum(refusal.pass_name == each.name for refusal in ctx.refusals),
                seconds[each.name],
            )
            for each in active
        ),
    )
