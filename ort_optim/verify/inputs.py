"""Generated inputs on which the reference model runs and answers with finite numbers.

    generate       feeds for given shapes
    find_inputs    tries shapes and ranges of values in the engine until the reference accepts them

Where things are: `rules` and `uses` know what a model does with its inputs, `dimensions` proposes
sizes for open dimensions, `values` draws.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from ort_optim.engine import Engine, EngineError, TensorInfo, Value
from ort_optim.errors import WorkerError
from ort_optim.verify.dimensions import Schedule, Shapes
from ort_optim.verify.metrics import is_float
from ort_optim.verify.shapes import infer_shapes
from ort_optim.verify.uses import Extent, InputUses, find_uses
from ort_optim.verify.values import LEVELS, Draw, draw_value

Feeds = dict[str, Value]
Outputs = dict[str, Value]

SMALLEST_PICTURE = 32  # a fixed extent of an output that may tell an open extent of an input
HOLLOW_TRIES = 6  # further contents for a model that answers with empty tensors
FURTHER_NUMBERS = 1 << 16  # of those contents: no input set has such a number
LEVELS_ON_REFUSAL = 2  # a refusal is mostly about shapes: two ranges of values for each are enough


@dataclass(frozen=True)
class InputPlan:
    """Inputs that the reference runs on, and what it answered.

    `feeds[i]` gave `outputs[i]` in `seconds[i]` with input shapes `shapes[i]`. `notes` say in
    words what was chosen. `session_lost`: the worker died while a further set was tried, so the
    caller's handles are gone.
    """

    feeds: tuple[Feeds, ...]
    outputs: tuple[Outputs, ...]
    shapes: tuple[Shapes, ...]
    seconds: tuple[float, ...]
    notes: tuple[str, ...] = ()
    session_lost: bool = False


@dataclass(frozen=True)
class InputFailure:
    """No inputs were found: `reason` is what the reference said to the most likely ones."""

    reason: str
    tries: int


@dataclass
class InputGenerator:
    """Draws feeds for one model; the model is analysed once."""

    infos: Sequence[TensorInfo]
    model: ModelProto
    seed: int
    uses: InputUses = field(init=False)
    _inferred: dict[tuple[tuple[str, tuple[int, ...]], ...], dict[str, tuple[int | None, ...]]] = (
        field(default_factory=dict)
    )

    _element_shapes: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uses = find_uses(self.model, [info.name for info in self.infos])
        for value in self.model.graph.input:
            element = value.type.sequence_type.elem_type.tensor_type
            if element.HasField("shape"):  # a tensor's; an open dimension becomes 2
                self._element_shapes[value.name] = (
                    tuple(max(dim.dim_value, 0) or 2 for dim in element.shape.dim),
                )

    def draw(
        self, shapes: Shapes, number: int, level: int = 0, variant: int | None = None
    ) -> Feeds:
        """Feeds for input set `number`; the same arguments always give the same values.

        `level` narrows the ranges; `variant` (default: `number`) picks among the kinds of content
        (images of 0..1, of 0..255, conditions true or false).
        """
        dims = self._dimensions(shapes)

        def dims_of(tensor: str) -> tuple[int, ...] | None:
            found = dims.get(tensor)
            if found is None or None in found:
                return None
            return tuple(dim for dim in found if dim is not None)

        def resolve(extent: Extent) -> int | None:
            found = dims.get(extent.tensor)
            if found is None or extent.axis == "all":
                return None
            if extent.axis is None:
                return min((dim for dim in found if dim is not None), default=None)
            return found[extent.axis] if -len(found) <= extent.axis < len(found) else None

        feeds: Feeds = {}
        for position, info in enumerate(self.infos):
            draw = Draw(
                np.random.default_rng((self.seed, number, position)),
                variant=number if variant is None else variant,
                level=level,
                resolve=resolve,
                dims_of=dims_of,
            )
            uses = self.uses.uses.get(info.name, [])
            shape = shapes.get(info.name, ())
            elements = self._element_shapes.get(info.name, ((2, 3),))
            feeds[info.name] = draw_value(info.name, info.type, shape, uses, draw, elements)
        return feeds

    def schedule(self, pins: Mapping[str, tuple[int, ...]]) -> Schedule:
        """Candidate shapes for this model."""
        rankless = frozenset(
            value.name
            for value in self.model.graph.input
            if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
        )
        outputs = (value.type.tensor_type.shape.dim for value in self.model.graph.output)
        hints = {
            dim.dim_value
            for dims in outputs
            if len(dims) == 4
            for dim in dims[1:]
            if dim.dim_value >= SMALLEST_PICTURE
        }
        return Schedule(
            self.infos,
            pins=pins,
            demanded=self.uses.dims,
            rankless=rankless,
            spatial_hints=sorted(hints, reverse=True),
        )

    def _dimensions(self, shapes: Shapes) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes by tensor name, as far as some use of an input asks for them."""
        needed = {extent.tensor for extent in self.uses.extents}
        if needed <= shapes.keys():
            return shapes
        key = tuple(sorted(shapes.items()))
        if key not in self._inferred:
            self._inferred[key] = {**infer_shapes(self.model, shapes), **shapes}
        return self._inferred[key]


def generate(
    infos: Sequence[TensorInfo],
    model: ModelProto,
    seed: int,
    count: int,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> list[Feeds]:
    """`count` feeds of the most likely shapes (`shapes` fixes whole inputs), untried.

    Raises ValueError for an input of a type that nothing can be drawn for.
    """
    generator = InputGenerator(infos, model, seed)
    chosen = next(iter(generator.schedule(shapes or {})), {})
    return [generator.draw(chosen, number) for number in range(count)]


def find_inputs(
    engine: Engine,
    session: int,
    model: ModelProto,
    *,
    seed: int = 0,
    count: int = 3,
    pins: Mapping[str, tuple[int, ...]] | None = None,
    budget_s: float = 30.0,
) -> InputPlan | InputFailure:
    """Inputs for the reference, open as `session`; `model` is the same model, for its structure.

    Shapes are tried in the order of their likelihood until the reference runs; values that drive
    it to NaN or Inf are drawn again from narrower ranges, values that leave outputs empty from
    other ranges and kinds of content; if all do, the least bad are taken.
    Further sets vary the open dimensions and the kind of content. After the first set that runs,
    others are tried only while `budget_s` lasts. `pins` must have passed `check_pins`.
    """
    return _Search(engine, session, model, seed, budget_s).run(count, dict(pins or {}))


@dataclass(frozen=True)
class _Trial:
    feeds: Feeds
    outputs: Outputs
    seconds: float
    not_finite: float  # share of float output elements
    hollow: int  # outputs without elements

    @property
    def faults(self) -> tuple[float, int]:
        """The less of it, the more the outputs say."""
        return self.not_finite, self.hollow


class _Search:
    def __init__(
        self, engine: Engine, session: int, model: ModelProto, seed: int, budget_s: float
    ) -> None:
        self.engine = engine
        self.session = session
        self.generator = InputGenerator(engine.inputs(session), model, seed)
        self.deadline = time.monotonic() + budget_s
        self.first_error = ""
        self.tries = 0
        self.level = 0
        self.variant = 0  # the first set's kind of content

    def run(self, count: int, pins: dict[str, tuple[int, ...]]) -> InputPlan | InputFailure:
        """All sets, or why there is not even one."""
        schedule = self.generator.schedule(pins)
        try:
            first = self._first_that_runs(schedule)
        except (WorkerError, ValueError) as error:
            return InputFailure(str(error), self.tries)
        if first is None:
            return InputFailure(self.first_error, self.tries)
        shapes, trial = first
        trials, all_shapes = [trial], [shapes]
        notes = self._notes(schedule, trial)
        lost = False
        if self.generator.infos:
            for number in range(1, count):
                if time.monotonic() + trial.seconds > self.deadline:
                    notes.append(f"only {len(trials)} of {count} input sets: time is up")
                    break
                try:
                    further = self._further_set(schedule, shapes, number, trial.hollow)
                except WorkerError as error:
                    lost = True
                    notes.append(f"input set {number}: {error}")
                    break
                if further is not None:
                    all_shapes.append(further[0])
                    trials.append(further[1])
        return InputPlan(
            feeds=tuple(t.feeds for t in trials),
            outputs=tuple(t.outputs for t in trials),
            shapes=tuple(all_shapes),
            seconds=tuple(t.seconds for t in trials),
            notes=tuple(notes),
            session_lost=lost,
        )

    def _first_that_runs(self, schedule: Schedule) -> tuple[Shapes, _Trial] | None:
        for shapes in schedule:
            if self.tries and time.monotonic() > self.deadline:
                break
            most = LEVELS if schedule.is_fixed else LEVELS_ON_REFUSAL
            for level in range(most):
                trial = self._try(shapes, 0, level)
                if trial is None:
                    continue
                self.level = level
                return shapes, self._filled(shapes, self._made_finite(shapes, trial))
        return None

    def _made_finite(self, shapes: Shapes, trial: _Trial) -> _Trial:
        """`trial`, or one from narrower ranges whose outputs hold less NaN and Inf."""
        for level in range(self.level + 1, LEVELS):
            if trial.not_finite == 0 or time.monotonic() + trial.seconds > self.deadline:
                break
            other = self._try(shapes, 0, level)
            if other is not None and other.not_finite < trial.not_finite:
                trial, self.level = other, level
        return trial

    def _filled(self, shapes: Shapes, trial: _Trial) -> _Trial:
        """`trial`, or one of other values and kinds of content with fewer empty outputs."""
        for number in range(1, HOLLOW_TRIES + 1):
            if not trial.hollow or time.monotonic() + trial.seconds > self.deadline:
                break
            level = self.level if number <= HOLLOW_TRIES // 2 else (self.level + 1) % LEVELS
            other = self._try(shapes, FURTHER_NUMBERS + number, level, number)
            if other is not None and other.faults < trial.faults:
                trial, self.level, self.variant = other, level, number
        return trial

    def _further_set(
        self, schedule: Schedule, shapes: Shapes, number: int, hollow: int
    ) -> tuple[Shapes, _Trial] | None:
        """Set `number`: other sizes and content if the reference takes them, else like the first.

        A set that brings NaN or Inf where the first had none is drawn again, then left out; one
        with more than `hollow` empty outputs is drawn again.
        """
        candidates: list[tuple[Shapes, int]] = [
            (varied, number) for varied in schedule.variations(shapes, number)
        ]
        candidates.append((shapes, self.variant))  # the first set's kind of content, other values
        best: tuple[Shapes, _Trial] | None = None
        for varied, variant in candidates:
            trial = self._try(varied, number, self.level, variant)
            if trial is not None and trial.not_finite == 0:
                if best is None or trial.hollow < best[1].hollow:
                    best = varied, trial
                if trial.hollow <= hollow:
                    break
            if time.monotonic() > self.deadline:
                break
        return best

    def _try(
        self, shapes: Shapes, number: int, level: int, variant: int | None = None
    ) -> _Trial | None:
        """One run of the reference; None if it refuses."""
        self.tries += 1
        feeds = self.generator.draw(shapes, number, level, variant)
        start = time.monotonic()
        try:
            outputs = self.engine.run(self.session, feeds)
        except EngineError as error:
            self.first_error = self.first_error or str(error)
            return None
        seconds = time.monotonic() - start
        hollow = sum(isinstance(v, np.ndarray) and not v.size for v in outputs.values())
        return _Trial(feeds, outputs, seconds, share_not_finite(outputs.values()), hollow)

    def _notes(self, schedule: Schedule, trial: _Trial) -> list[str]:
        notes = []
        if not schedule.is_fixed:
            chosen = ", ".join(
                f"{name}: {'x'.join(map(str, value.shape)) or 'scalar'}"
                for name, value in trial.feeds.items()
                if isinstance(value, np.ndarray)
            )
            notes.append(f"open dimensions were chosen ({chosen})")
        if trial.not_finite:
            notes.append(
                f"{trial.not_finite:.1%} of the reference's outputs are NaN or Inf whatever the "
                "inputs"
            )
        if trial.hollow:
            notes.append(
                f"{trial.hollow} of {len(trial.outputs)} outputs are empty, whatever the inputs"
            )
        return notes


def share_not_finite(outputs: Iterable[Value]) -> float:
    """The share of NaN and Inf among all float elements in `outputs`, 0 where there are none."""
    bad = total = 0
    for value in outputs:
        if isinstance(value, np.ndarray) and is_float(value.dtype):
            bad += value.size - int(np.count_nonzero(np.isfinite(value)))
            total += value.size
    return bad / total if total else 0.0
