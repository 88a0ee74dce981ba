"""The smallest part of a model that still fails, whatever failing means.

    reduce_model      takes nodes away as long as what is left fails
    raises            fails: a rewrite of the model raises an error
    differs           fails: the rewritten model gives other outputs than the model itself
    breaks            fails: ONNX Runtime can't load or run the rewritten model, or crashes on it

Nodes go in runs, first halves of the model, then quarters, and so on down to single nodes, until
none can go any more (delta debugging: Zeller and Hildebrandt, 2002). What the rest then reads from
outside becomes its input. Each part is valid by onnx's checker, and the same model, predicate and
budget of trials always give the same part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from ort_optim.engine import Engine, ModelSource
from ort_optim.verify.compare import Tolerance
from ort_optim.verify.extract import Extractor, Recorder
from ort_optim.verify.judge import Verdict, Verifier

Fails = Callable[[ModelProto], bool]
"""Whether a model still fails. It must not change the model, and not raise."""

Rewrite = Callable[[ModelProto], ModelProto]
"""Makes an optimized model of a model, which stays as it is."""

Rewritten = Callable[[ModelProto], tuple[ModelSource, ModelSource]]
"""Makes of a model what is opened of the optimized one without ONNX Runtime's own optimizations,
and with them."""


@dataclass(frozen=True)
class Budget:
    """When to be content with what there is: after so many calls of the predicate, or seconds."""

    trials: int = 1000
    seconds: float = 300.0


@dataclass(frozen=True)
class Reduced:
    """The part that still fails. `is_smallest`: the budget sufficed, and no node of it can go."""

    model: ModelProto
    trials: int
    is_smallest: bool


def reduce_model(
    model: ModelProto, fails: Fails, *, recorder: Recorder | None = None, budget: Budget = Budget()
) -> Reduced | None:
    """The smallest part of `model` found for which `fails` holds; None if the whole does not fail.

    `recorder` has the values of the model's tensors: with it, tensors whose type can't be inferred
    can be cut too, and small shapes that are computed before the cut become constants. Weights may
    be external; the part refers to them as the model does.
    """
    if not fails(model):
        return None
    reduction = _Reduction(Extractor(model, recorder), model, fails, budget)
    try:
        reduction.run()
    except _BudgetError:
        return Reduced(reduction.best, reduction.trials, False)
    return Reduced(reduction.best, reduction.trials, True)


def raises(rewrite: Rewrite, error: type[Exception] = Exception) -> Fails:
    """Fails where `rewrite` raises such an error; another one is another failure."""

    def fails(model: ModelProto) -> bool:
        try:
            rewrite(model)
        except Exception as raised:
            return isinstance(raised, error)
        return False

    return fails


@dataclass(frozen=True)
class Judge:
    """Runs a model beside what is `rewritten` of it, on what `recorder` has for its inputs.

    `source` makes of a model what the engine opens.
    """

    engine: Engine
    rewritten: Rewritten
    recorder: Recorder
    source: Callable[[ModelProto], ModelSource]
    tolerance: Tolerance

    def verdict(self, model: ModelProto) -> Verdict | None:
        """Off against off, and then under ONNX Runtime's own optimizations, if the model itself
        agrees with itself there; None where the model can't be run."""
        feeds = self.recorder.feeds(model)
        if feeds is None:
            return None
        try:
            (without, under), source = self.rewritten(model), self.source(model)
            verifier = Verifier(
                self.engine, source, [feeds], structure=model, tolerance=self.tolerance
            )
            plain = verifier.check(without)
            if not plain.passed:
                return plain
            optimized = verifier.check(under, optimize=True)
            if optimized.passed or not verifier.check(source, optimize=True).passed:
                return plain
        except Exception:  # a rewrite that raises is another failure than the one looked for
            return None
        return optimized


def differs(judge: Judge) -> Fails:
    """Fails where both models run, and their outputs differ."""

    def fails(model: ModelProto) -> bool:
        verdict = judge.verdict(model)
        return verdict is not None and not verdict.passed and bool(verdict.outputs)

    return fails


def breaks(judge: Judge) -> Fails:
    """Fails where the model runs, and what the rewrite makes of it does not."""

    def fails(model: ModelProto) -> bool:
        verdict = judge.verdict(model)
        return verdict is not None and not verdict.passed and not verdict.outputs

    return fails


class _BudgetError(Exception):
    """The budget is used up."""


class _Reduction:
    """One search: `best` is the smallest part so far that fails."""

    def __init__(
        self, extractor: Extractor, model: ModelProto, fails: Fails, budget: Budget
    ) -> None:
        self.best = model
        self.trials = 1
        self._extractor = extractor
        self._fails = fails
        self._budget = budget
        self._deadline = time.monotonic() + budget.seconds
        self._all_outputs = extractor.has_inner_outputs

    def run(self) -> None:
        """Take away what can go. Raises _BudgetError."""
        kept = list(range(self._extractor.count))
        if self._all_outputs:
            self._all_outputs = False
            self._all_outputs = not self._still_fails(kept)
        size = len(kept)
        while size > 1:
            size = (size + 1) // 2
            kept = self._without_runs(kept, size)
        while len(smaller := self._without_runs(kept, 1)) < len(kept):
            kept = smaller

    def _without_runs(self, kept: list[int], size: int) -> list[int]:
        """`kept` without the runs of `size` nodes that can go, the last ones first."""
        for start in reversed(range(0, len(kept), size)):
            rest = kept[:start] + kept[start + size :]
            if rest and self._still_fails(rest):
                kept = rest
        return kept

    def _still_fails(self, kept: Sequence[int]) -> bool:
        plain: ModelProto | None = None
        for constants in (False, True):
            part = self._extractor.extract(kept, all_outputs=self._all_outputs, constants=constants)
            if part is None or part == plain:
                continue
            plain = part
            if self.trials >= self._budget.trials or time.monotonic() > self._deadline:
                raise _BudgetError
            self.trials += 1
            if self._fails(part):
                self.best = part
                return True
        return False
