"""Applies the passes to a model, as often as the search for a faulty rewrite needs it.

Passes are deterministic, so a run is told apart by three things only: how many rewrites it may
make, which single rewrites are denied, and which passes are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnx import ModelProto

from ort_optim.engine import Engine
from ort_optim.graph.importing import view
from ort_optim.graph.merge import merge
from ort_optim.passes import PASSES
from ort_optim.passes.base import Context, Pass, Refusal, Rewrite
from ort_optim.passes.driver import PassError, PassStats, run_passes


@dataclass(frozen=True)
class Plan:
    """Which rewrites may be made.

    `limit` is the number of rewrites, None for all; `denied` holds (pass name, node key) pairs;
    `disabled` holds pass names.
    """

    limit: int | None = None
    denied: frozenset[tuple[str, str]] = frozenset()
    disabled: frozenset[str] = frozenset()

    def deny(self, rewrite: Rewrite) -> Plan:
        """This plan without one rewrite."""
        return replace(self, denied=self.denied | {(rewrite.pass_name, rewrite.node)})

    def without(self, pass_name: str) -> Plan:
        """This plan without one pass."""
        return replace(self, disabled=self.disabled | {pass_name})


@dataclass(frozen=True)
class Candidate:
    """A rewritten model, and what was done to get it."""

    model: ModelProto
    plan: Plan
    rewrites: tuple[Rewrite, ...]
    refusals: tuple[Refusal, ...]
    passes: tuple[PassStats, ...]
    rounds: int


@dataclass
class Rewriter:
    """Makes candidates of one model, whose external data lies in `folder`.

    `failures` collects the passes that raised an error: they are left out from then on, and the
    candidate is made anew without them. Rewrites are numbered differently before and after.
    """

    model: ModelProto
    folder: Path
    engine: Engine
    passes: Sequence[Pass] = PASSES
    failures: dict[str, str] = field(default_factory=dict)

    def candidate(self, plan: Plan) -> Candidate:
        """The model after the rewrites that `plan` allows. The original stays as it is."""
        while True:
            root = view(self.model, self.folder)
            ctx = Context(self.engine, limit=plan.limit, denied=plan.denied)
            try:
                stats = run_passes(root, ctx, self.passes, plan.disabled | self.failures.keys())
            except PassError as error:
                self.failures[error.pass_name] = str(error)
                continue
            return Candidate(
                merge(root),
                plan,
                tuple(ctx.rewrites),
                tuple(ctx.refusals),
                stats.passes,
                stats.rounds,
            )
