"""The verdict on a candidate model: does it still compute what the reference computes?

Verifier    holds the reference's answers; `check` opens a candidate and runs it once per set
Verdict     per output the worst comparison over all input sets

Two helpers look further where outputs say little: `chance` makes random ops certain, `frontier`
compares the inner tensors before ops that jump.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from ort_optim.engine import Engine, EngineError, ModelSource, TensorInfo, Value
from ort_optim.errors import WorkerError
from ort_optim.verify.chance import (
    drawn_feeds,
    has_random_ops,
    make_certain,
    odds_name,
    random_tensors,
)
from ort_optim.verify.compare import (
    OutputComparison,
    Tolerance,
    at_set,
    compare_outputs,
    worst,
)
from ort_optim.verify.frontier import Frontier
from ort_optim.verify.metrics import is_float
from ort_optim.verify.origins import Origin, trace_origins
from ort_optim.verify.replay import explain_by_near_tie, tap_all

Feeds = Mapping[str, Value]
Outputs = Mapping[str, Value]
Model = ModelProto | ModelSource
"""A model without external data, or what `ort_optim.engine.make_source` makes of any."""

UNCHANGED = "nothing was changed"
NOT_EXERCISED = "no output holds a value that could be compared: they are empty, NaN or random"


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate agrees with the reference, and how nearly.

    `outputs` has one comparison per output (per leaf of a sequence or map): the worst of the
    `sets` input sets that were compared. A candidate that could not be run at all has none, and
    `reason` says why. `reason` is empty where everything agrees. `inner` has the inner tensors
    that were compared where outputs prove little (see `frontier`).
    """

    passed: bool
    outputs: tuple[OutputComparison, ...]
    sets: int
    reason: str = ""
    inner: tuple[OutputComparison, ...] = ()

    @property
    def exercised(self) -> bool:
        """Whether any value was compared; False where all that agrees is emptiness, NaN or chance.

        `reason` then says so, though `passed` is True.
        """
        return any(comparison.is_telling for comparison in (*self.outputs, *self.inner))

    @property
    def max_abs(self) -> float:
        """The largest absolute error of any output, or else of the inner tensors."""
        largest = max((comparison.max_abs for comparison in self.outputs), default=0.0)
        return largest or max((comparison.max_abs for comparison in self.inner), default=0.0)


class Verifier:
    """Judges candidates against one reference model on fixed input sets.

    The reference runs once per set with graph optimizations off, here or (with `outputs`) before.
    What ONNX Runtime's own optimizations make of it is found out only if a candidate misses the
    plain tolerance; `own_noise` False leaves that rule out, as a stated tolerance does by default:
    it is meant as it is stated. Random ops that the candidate still has are fed with the same
    tensors in both models.

    `session` is a handle of the open reference, else it is opened and closed again; `structure`
    spares parsing a reference that comes as ModelSource. Raises EngineError if the reference
    fails on `feeds`.
    """

    def __init__(
        self,
        engine: Engine,
        reference: Model,
        feeds: Sequence[Feeds],
        outputs: Sequence[Outputs] | None = None,
        *,
        session: int | None = None,
        structure: ModelProto | None = None,
        tolerance: Tolerance | None = None,
        own_noise: bool | None = None,
    ) -> None:
        self._engine = engine
        self._source = _source(reference)
        self._structure = structure or _structure(reference)
        self._feeds = list(feeds)
        self._tolerance = tolerance or Tolerance()
        self._own_noise = not self._tolerance.is_stated if own_noise is None else own_noise
        self._own: list[Outputs | None] | None = None
        self._worker_died = False  # while something other than the candidate was run
        self._origins: dict[str, Origin] | None = None
        self._frontier: Frontier | None = None
        self._random = has_random_ops(self._structure)
        self._certain: dict[frozenset[str], Certain | None] = {}
        handle = engine.open(self._source) if session is None else session
        try:
            self._inputs = engine.inputs(handle)
            self._outputs = engine.outputs(handle)
            self.expected: list[Outputs] = (
                list(outputs)
                if outputs is not None
                else [engine.run(handle, each) for each in self._feeds]
            )
        finally:
            if session is None:
                engine.close(handle)

    def check(self, candidate: Model, *, optimize: bool = False, all_sets: bool = False) -> Verdict:
        """Run the candidate on every set and compare.

        The first set that fails ends the check unless `all_sets`. `optimize` opens the candidate
        with ONNX Runtime's optimizations on; inner tensors are compared without them only. A
        candidate that ORT refuses or crashes on fails, with the reason.
        """
        certain = self._made_certain(candidate) if self._random else None
        if certain is not None:
            theirs = make_certain(_source(candidate), certain.values)
            verdict = certain.verifier.check(theirs, optimize=optimize, all_sets=all_sets)
            return _without_odds(verdict, certain.values)
        compared: list[list[OutputComparison]] = []
        try:
            session = self._engine.open(_source(candidate), optimize=optimize)
        except (EngineError, WorkerError) as error:
            return Verdict(False, (), 0, f"it can't be loaded: {error}")
        try:
            if changed := self._changed_interface(session):
                self._engine.close(session)
                return Verdict(False, (), 0, changed)
            for index, feeds in enumerate(self._feeds):
                if self._worker_died:
                    self._worker_died = False
                    session = self._engine.open(_source(candidate), optimize=optimize)
                found = self._engine.run(session, feeds)
                comparisons = self._compare(index, candidate, found)
                compared.append(at_set(comparisons, index))
                if not all_sets and not all(c.passed for c in comparisons):
                    break
        except WorkerError as error:  # the session is gone with the worker
            return Verdict(False, (), len(compared), f"it can't be run: {error}")
        except EngineError as error:
            self._engine.close(session)
            return Verdict(False, (), len(compared), f"it can't be run: {error}")
        if not self._worker_died:
            self._engine.close(session)
        self._worker_died = False
        verdict = _verdict(compared)
        if verdict.passed and not optimize and self._is_mute:
            return self._look_inside(verdict, candidate)
        return verdict

    def unchanged(self) -> Verdict:
        """What is to be said of the reference itself: it need not be run once more."""
        compared = [
            at_set(compare_outputs(outputs, outputs, Tolerance()), index)
            for index, outputs in enumerate(self.expected)
        ]
        return Verdict(True, _by_name(compared), len(compared), UNCHANGED)

    def _made_certain(self, candidate: Model) -> Certain | None:
        """The reference fed with those random tensors that the candidate also makes, if any."""
        ours = random_tensors(self._structure.graph)
        theirs = random_tensors(_structure(candidate).graph)
        names = frozenset(name for name, op in ours.items() if theirs.get(name) == op)
        if not names:
            return None
        if names not in self._certain:
            try:
                self._certain[names] = self._make_certain(sorted(names))
            except (EngineError, WorkerError):
                self._certain[names] = None
        return self._certain[names]

    def _make_certain(self, names: Sequence[str]) -> Certain:
        drawn = tap_all(self._engine, (self._structure, self._source), self._feeds, names)
        verifier = Verifier(
            self._engine,
            make_certain(self._source, drawn[0]),
            [
                {**feeds, **drawn_feeds(values)}
                for feeds, values in zip(self._feeds, drawn, strict=True)
            ],
            tolerance=self._tolerance,
            own_noise=self._own_noise,
        )
        return Certain(verifier, drawn[0])

    @property
    def _is_mute(self) -> bool:
        """Whether some output in some set is empty or not of floats."""
        return any(
            isinstance(value, np.ndarray) and (value.size == 0 or not is_float(value.dtype))
            for outputs in self.expected
            for value in outputs.values()
        )

    def _look_inside(self, verdict: Verdict, candidate: Model) -> Verdict:
        """`verdict`, with the tensors before the jumps compared on sets with mute outputs."""
        if self._frontier is None:
            self._frontier = Frontier(
                self._engine,
                (self._structure, self._source),
                self._feeds,
                self.expected,
                self._tolerance,
                self.origins,
                own_noise=self._own_noise,
            )
        try:
            compared = self._frontier.compare((_structure(candidate), _source(candidate)))
        except WorkerError:
            return verdict
        inner = _by_name(compared)
        reason = _differences(inner, "inner tensor ") or verdict.reason
        return _checked(replace(verdict, passed=not _failed(inner), inner=inner, reason=reason))

    def _compare(self, index: int, candidate: Model, found: Outputs) -> list[OutputComparison]:
        expected = self.expected[index]
        quick = compare_outputs(expected, found, self._tolerance, origins=self._known_origins())
        if all(comparison.passed for comparison in quick):
            return quick
        origins = self.origins
        own = self._own_outputs(index) if self._own_noise else None
        compared = compare_outputs(expected, found, self._tolerance, origins=origins, own=own)
        failed = [comparison for comparison in compared if not comparison.passed]
        if not failed:
            return compared
        try:
            explained = explain_by_near_tie(
                self._engine,
                (self._structure, self._source),
                (_structure(candidate), _source(candidate)),
                self._feeds[index],
                found,
                failed,
                self._tolerance,
                origins,
            )
        except WorkerError:
            self._worker_died = True
            return compared
        return [
            explained.get(comparison.name, comparison) if not comparison.passed else comparison
            for comparison in compared
        ]

    @property
    def origins(self) -> Mapping[str, Origin]:
        """What each output of the reference depends on."""
        if self._origins is None:
            self._origins = trace_origins(self._structure)
        return self._origins

    def _known_origins(self) -> Mapping[str, Origin]:
        """Origins if they are known or needed: equal outputs of models without chance need none."""
        return self.origins if self._random else self._origins or {}

    def _own_outputs(self, index: int) -> Outputs | None:
        """The reference's outputs under ONNX Runtime's own optimizations; None where it fails."""
        if self._own is None:
            self._own = [None] * len(self._feeds)
            try:
                session = self._engine.open(self._source, optimize=True)
                for i, feeds in enumerate(self._feeds):
                    self._own[i] = self._engine.run(session, feeds)
                self._engine.close(session)
            except EngineError:
                pass
            except WorkerError:
                self._worker_died = True
        return self._own[index]

    def _changed_interface(self, session: int) -> str:
        """What differs between the inputs and outputs of candidate and reference, in words."""
        for what, before, after in (
            ("inputs", self._inputs, self._engine.inputs(session)),
            ("outputs", self._outputs, self._engine.outputs(session)),
        ):
            if _interface(before) != _interface(after):
                return f"the {what} are {_spell(after)} instead of {_spell(before)}"
        return ""


@dataclass(frozen=True)
class Certain:
    """A verifier whose reference is fed with random tensors; `values` are those of one set."""

    verifier: Verifier
    values: Outputs


def _without_odds(verdict: Verdict, names: Iterable[str]) -> Verdict:
    """`verdict`, with what random ops read moved from the outputs to the inner tensors."""
    odds = {odds_name(name) for name in names}
    return replace(
        verdict,
        outputs=tuple(c for c in verdict.outputs if c.name not in odds),
        inner=verdict.inner + tuple(c for c in verdict.outputs if c.name in odds),
    )


def _verdict(compared: Sequence[Sequence[OutputComparison]]) -> Verdict:
    outputs = _by_name(compared)
    passed = not _failed(outputs)
    return _checked(Verdict(passed, outputs, len(compared), _differences(outputs)))


def _checked(verdict: Verdict) -> Verdict:
    """`verdict`, with the reason if it passed for want of anything to compare."""
    if not verdict.passed:
        return verdict
    return replace(verdict, reason="" if verdict.exercised else NOT_EXERCISED)


def _by_name(compared: Sequence[Sequence[OutputComparison]]) -> tuple[OutputComparison, ...]:
    """The worst comparison of each tensor over all sets."""
    by_name: dict[str, list[OutputComparison]] = {}
    for comparisons in compared:
        for comparison in comparisons:
            by_name.setdefault(comparison.name, []).append(comparison)
    return tuple(worst(each) for each in by_name.values())


def _failed(comparisons: Sequence[OutputComparison]) -> list[OutputComparison]:
    return [comparison for comparison in comparisons if not comparison.passed]


def _differences(comparisons: Sequence[OutputComparison], what: str = "") -> str:
    """What differs, in words."""
    failed = _failed(comparisons)
    reason = "; ".join(f"{what}'{c.name}': {c.reason} ({c.decided_by})" for c in failed[:3])
    if len(failed) > 3:
        reason += f"; and {len(failed) - 3} more"
    return reason


def _interface(infos: Sequence[TensorInfo]) -> list[tuple[str, str]]:
    return [(info.name, info.type) for info in infos]


def _spell(infos: Sequence[TensorInfo]) -> str:
    return ", ".join(f"{info.name}: {info.type}" for info in infos) or "none"


def _source(model: Model) -> ModelSource:
    return model if isinstance(model, ModelSource) else ModelSource(proto=model.SerializeToString())


def _structure(model: Model) -> ModelProto:
    if isinstance(model, ModelProto):
        return model
    if model.proto is None:
        raise ValueError("a ModelSource that is only a path has no structure to look at")
    return ModelProto.FromString(model.proto)
