"""Finds the rewrites to keep: all of them, but for those that change outputs or cost time.

Search.faithful    the outputs agree: single rewrites at fault are found by bisection and denied
Search.as_fast     not slower than the original: passes at fault are found likewise and left out
Search.bare        no rewrite at all: what was repaired and pinned while loading

Where the search runs out of time, all passes that are still suspect are left out at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ort_optim.engine import Engine, EngineError, ModelSource, Spill, make_source
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
    """A candidate, what the comparison said of it, and the rewrites denied on the way.

    `is_original`: the candidate is the reference itself.
    """

    candidate: Candidate
    verdict: Verdict
    culprits: tuple[tuple[Rewrite, Verdict], ...] = ()
    is_original: bool = False


@dataclass(frozen=True)
class Timed:
    """How long the original and a candidate take, interleaved, in ms; `ratio` judges the two."""

    original_ms: list[float]
    result_ms: list[float]
    ratio: Ratio


@dataclass(frozen=True)
class Failure:
    """A candidate can't be timed where the original can: as bad as one that is slower."""

    reason: str


@dataclass(frozen=True)
class Fast:
    """A candidate, its timing, and the passes left out on the way.

    It keeps pace if there was any that does. `timed` is None where ORT's optimizations can't take
    the original.
    """

    found: Faithful
    timed: Timed | Failure | None
    undone: tuple[str, ...] = ()

    @property
    def keeps_pace(self) -> bool:
        """Whether nothing says that the candidate is slower than the original."""
        return _keeps_pace(self.timed)


@dataclass
class Search:
    """The search on one model. `threads` is for timing.

    The first candidate takes the time it takes; from the first fault on, `seconds` are left to
    find those at fault. `verify_seconds` adds up what the comparison of outputs took, `notes`
    says in words where the search was cut short.
    """

    engine: Engine
    rewriter: Rewriter
    verifier: Verifier
    reference: Reference
    threads: int
    spill: Spill
    seconds: float
    verify_seconds: float = field(default=0.0, init=False)
    notes: list[str] = field(default_factory=list, init=False)
    _deadline: float | None = field(default=None, init=False)
    _optimized_counts: bool | None = field(default=None, init=False)
    _original_is_timed: bool | None = field(default=None, init=False)

    def faithful(self, plan: Plan) -> Faithful:
        """The candidate of `plan` without the rewrites that make the outputs differ."""
        culprits: list[tuple[Rewrite, Verdict]] = []
        is_last = False
        while True:
            candidate = self.rewriter.candidate(plan)
            is_original = self._is_original(candidate)
            verdict = self.verifier.unchanged() if is_original else self._judge(candidate)
            found = Faithful(candidate, verdict, tuple(culprits), is_original)
            if verdict.passed or not candidate.rewrites or len(culprits) >= MOST_CULPRITS:
                return found
            if is_last or not self._agrees(plan, 0):
                return found
            suspects = self._suspects(candidate, partial(self._agrees, plan))
            if len(suspects) > 1:
                plan, is_last = self._without_all(plan, suspects), True
                continue
            guilty = suspects[0]
            culprits.append((guilty, verdict))
            offences = sum(rewrite.pass_name == guilty.pass_name for rewrite, _ in culprits)
            wholly = offences >= MOST_CULPRITS_OF_A_PASS
            plan = plan.without(guilty.pass_name) if wholly else plan.deny(guilty)

    def as_fast(self, found: Faithful, feeds: Feeds) -> Fast:
        """`found`, less the passes that make it slower than the original.

        If no candidate keeps pace, the last one that was timed is returned.
        """
        undone: list[str] = []
        while True:
            fast = Fast(found, self._time(found.candidate, feeds), tuple(undone))
            if fast.keeps_pace or not found.candidate.rewrites:
                return fast
            if len(undone) >= MOST_SLOW_PASSES:
                return fast
            plan = found.candidate.plan
            suspects = self._suspects(found.candidate, partial(self._is_fast_enough, plan, feeds))
            undone += sorted({rewrite.pass_name for rewrite in suspects})
            again = self.faithful(self._without_all(plan, suspects))
            if not again.verdict.passed:
                return fast
            found = replace(again, culprits=found.culprits + again.culprits)

    def bare(self, found: Faithful) -> Faithful:
        """The candidate without rewrites, in place of `found`, whose culprits stay told."""
        bare = self.faithful(Plan(limit=0))
        return replace(bare, culprits=found.culprits + bare.culprits)

    def source(self, candidate: Candidate) -> ModelSource:
        """What the engine opens for a candidate."""
        return make_source(candidate.model, self.rewriter.folder, self.spill)

    def _suspects(self, candidate: Candidate, ok: Callable[[int], bool]) -> tuple[Rewrite, ...]:
        """The rewrite of a faulty candidate at fault; where time is up, all that may be."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.seconds
        good, bad = 0, len(candidate.rewrites)

        def watched(limit: int) -> bool:
            nonlocal good, bad
            if self._is_late():
                raise _TimeUpError
            fine = ok(limit)
            good, bad = (limit, bad) if fine else (good, limit)
            return fine

        try:
            bad = find_culprit(bad, watched, ends_known=True)
            good = bad - 1
        except _TimeUpError:
            pass
        return candidate.rewrites[good:bad]

    def _without_all(self, plan: Plan, suspects: tuple[Rewrite, ...]) -> Plan:
        """`plan` without the passes of all suspects, which are noted if time is up."""
        names = sorted({rewrite.pass_name for rewrite in suspects})
        if self._is_late():
            self.notes.append(
                f"the search for rewrites at fault was ended after {self.seconds:g} s: "
                f"left out as a whole: {', '.join(names)}"
            )
        return replace(plan, disabled=plan.disabled.union(names))

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _is_original(self, candidate: Candidate) -> bool:
        return not candidate.rewrites and candidate.model == self.reference.model

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

    def _is_fast_enough(self, plan: Plan, feeds: Feeds, rewrites: int) -> bool:
        candidate = self.rewriter.candidate(replace(plan, limit=rewrites))
        return _keeps_pace(self._time(candidate, feeds))

    def _time(self, candidate: Candidate, feeds: Feeds) -> Timed | Failure | None:
        """Both models under all of ORT's optimizations, as users run them; suspects twice."""
        last: list[list[float]] = []
        sources = (self.reference.source, self.source(candidate))

        def measure() -> Ratio:
            last[:] = self.interleaved(sources, feeds)
            return compare_times(last[0], last[1])

        try:
            ratio = look_twice(measure(), measure)
        except (EngineError, WorkerError) as error:
            return Failure(str(error)) if self._can_time_original(feeds) else None
        return Timed(last[0], last[1], ratio)

    def _can_time_original(self, feeds: Feeds) -> bool:
        if self._original_is_timed is None:
            try:
                self.interleaved((self.reference.source,), feeds, runs=1)
                self._original_is_timed = True
            except (EngineError, WorkerError):
                self._original_is_timed = False
        return self._original_is_timed

    def interleaved(
        self, sources: Sequence[ModelSource], feeds: Feeds, runs: int = TIMING_RUNS
    ) -> list[list[float]]:
        """Times of fresh sessions, in ms, one list per model, under all of ORT's optimizations.

        Raises EngineError or WorkerError where one can't be run.
        """
        handles: list[int] = []
        try:
            for source in sources:
                handle = self.engine.open(source, optimize=True, threads=self.threads)
                handles.append(handle)
            return self.engine.time(handles, feeds, runs, TIMING_SECONDS)
        except WorkerError:
            handles.clear()  # they are gone with the worker
            raise
        finally:
            for handle in handles:
                self.engine.close(handle)


class _TimeUpError(Exception):
    """The search has used up its seconds."""


def _keeps_pace(timed: Timed | Failure | None) -> bool:
    return timed is None or (isinstance(timed, Timed) and timed.ratio.verdict != "slower")
