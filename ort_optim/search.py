"""Finds the rewrites to keep: all of them, but for those that change outputs or cost time.

Search.faithful    the outputs agree: single rewrites at fault are found by bisection and denied
Search.as_fast     not slower than the original: passes at fault are found likewise and left out
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ort_optim.engine import Engine, EngineError, ModelSource, make_source
from ort_optim.errors import WorkerError
from ort_optim.passes.base import Rewrite
from ort_optim.reference import Reference
from ort_optim.rewriter import Candidate, Plan, Rewriter
from ort_optim.verify.bisect import find_culprit
from ort_optim.verify.inputs import Feeds
from ort_optim.verify.judge import Verdict, Verifier
from ort_optim.verify.speed import Ratio, compare_times, look_twice

MOST_CULPRITS = 20  # with more faulty rewrites than this the original is returned
MOST_CULPRITS_OF_A_PASS = 3  # a pass that was at fault so often is left out
MOST_SLOW_PASSES = 3
TIMING_RUNS = 20
TIMING_SECONDS = 10.0


@dataclass(frozen=True)
class Faithful:
    """A candidate, what the comparison said of it, and the rewrites denied on the way."""

    candidate: Candidate
    verdict: Verdict
    culprits: tuple[tuple[Rewrite, Verdict], ...] = ()


@dataclass(frozen=True)
class Timed:
    """How long the original and a candidate take, interleaved, in ms; `ratio` judges the two."""

    original_ms: list[float]
    result_ms: list[float]
    ratio: Ratio


@dataclass(frozen=True)
class Fast:
    """A candidate that keeps pace, its timing, and the passes left out on the way.

    `timed` is None where ORT's optimizations can't take one of the models.
    """

    found: Faithful
    timed: Timed | None
    undone: tuple[str, ...] = ()


@dataclass
class Search:
    """The search on one model. `threads` is for timing; `scratch` outlives the sessions.

    `verify_seconds` adds up what the comparison of outputs took.
    """

    engine: Engine
    rewriter: Rewriter
    verifier: Verifier
    reference: Reference
    threads: int
    scratch: Path
    verify_seconds: float = field(default=0.0, init=False)
    _optimized_counts: bool | None = field(default=None, init=False)

    def faithful(self, plan: Plan) -> Faithful:
        """The candidate of `plan` without the rewrites that make the outputs differ."""
        culprits: list[tuple[Rewrite, Verdict]] = []
        while True:
            candidate = self.rewriter.candidate(plan)
            verdict = self._judge(candidate)
            found = Faithful(candidate, verdict, tuple(culprits))
            if verdict.passed or not candidate.rewrites or len(culprits) >= MOST_CULPRITS:
                return found
            if not self._agrees(plan, 0):
                return found
            number = find_culprit(
                len(candidate.rewrites), partial(self._agrees, plan), ends_known=True
            )
            guilty = candidate.rewrites[number - 1]
            culprits.append((guilty, verdict))
            offences = sum(rewrite.pass_name == guilty.pass_name for rewrite, _ in culprits)
            wholly = offences >= MOST_CULPRITS_OF_A_PASS
            plan = plan.without(guilty.pass_name) if wholly else plan.deny(guilty)

    def as_fast(self, found: Faithful, feeds: Feeds) -> Fast:
        """`found`, less the passes that make it slower than the original."""
        undone: list[str] = []
        while True:
            timed = self._time(found.candidate, feeds)
            if timed is None or timed.ratio.verdict != "slower" or not found.candidate.rewrites:
                return Fast(found, timed, tuple(undone))
            if len(undone) >= MOST_SLOW_PASSES:
                return Fast(found, timed, tuple(undone))
            plan = found.candidate.plan
            number = find_culprit(
                len(found.candidate.rewrites),
                partial(self._keeps_pace, plan, feeds),
                ends_known=True,
            )
            slow = found.candidate.rewrites[number - 1].pass_name
            undone.append(slow)
            again = self.faithful(plan.without(slow))
            found = replace(again, culprits=found.culprits + again.culprits)

    def source(self, candidate: Candidate) -> ModelSource:
        """What the engine opens for a candidate."""
        return make_source(candidate.model, self.rewriter.folder, self.scratch)

    def _judge(self, candidate: Candidate) -> Verdict:
        started = time.perf_counter()
        try:
            return self._compare(candidate)
        finally:
            self.verify_seconds += time.perf_counter() - started

    def _compare(self, candidate: Candidate) -> Verdict:
        """Off against off, and then as users run the model: under ORT's own optimizations."""
        source = self.source(candidate)
        plain = self.verifier.check(source)
        if not plain.passed or self._optimized_counts is False:
            return plain
        optimized = self.verifier.check(source, optimize=True)
        if optimized.passed:
            return plain
        if self._optimized_counts is None:  # perhaps the original is no better
            original = self.verifier.check(self.reference.source, optimize=True)
            self._optimized_counts = original.passed
        return optimized if self._optimized_counts else plain

    def _agrees(self, plan: Plan, rewrites: int) -> bool:
        return self._judge(self.rewriter.candidate(replace(plan, limit=rewrites))).passed

    def _keeps_pace(self, plan: Plan, feeds: Feeds, rewrites: int) -> bool:
        timed = self._time(self.rewriter.candidate(replace(plan, limit=rewrites)), feeds)
        return timed is None or timed.ratio.verdict != "slower"

    def _time(self, candidate: Candidate, feeds: Feeds) -> Timed | None:
        """Both models under all of ORT's optimizations, as users run them; suspects twice."""
        last: list[list[float]] = []
        source = self.source(candidate)

        def measure() -> Ratio:
            handles = [
                self.engine.open(each, optimize=True, threads=self.threads)
                for each in (self.reference.source, source)
            ]
            last[:] = self.engine.time(handles, feeds, TIMING_RUNS, TIMING_SECONDS)
            for handle in handles:
                self.engine.close(handle)
            return compare_times(last[0], last[1])

        try:
            ratio = look_twice(measure(), measure)
        except (EngineError, WorkerError):
            return None
        return Timed(last[0], last[1], ratio)
