"""Models and samples given on the command line, opened and ready to run.

read_model       path -> ModelArgument, with what the engine opens;  with_library: and our library
open_session     a session, or one line that says why ONNX Runtime refuses the model
choose_inputs    the user's samples, or generated ones that the model accepts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from ort_optim.compiler.cache import CodeCache
from ort_optim.engine import Engine, EngineError, ModelSource, TensorInfo, Value, make_source
from ort_optim.errors import InputError, WorkerError
from ort_optim.graph import load_model
from ort_optim.hardware import NATIVE, load_target
from ort_optim.runtime.library import unavailable_reason
from ort_optim.runtime.prepare import prepare
from ort_optim.verify.data import load_samples
from ort_optim.verify.dimensions import check_pins
from ort_optim.verify.inputs import InputFailure, find_inputs

Feeds = dict[str, Value]


@dataclass(frozen=True)
class ModelArgument:
    """A model file: its structure, and the form in which it travels to the engine.

    `is_extended`: sessions run its regions with our library.
    """

    path: Path
    structure: ModelProto
    source: ModelSource
    is_extended: bool = False

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.path} (with ort_optim)" if self.is_extended else str(self.path)


@dataclass(frozen=True)
class ChosenInputs:
    """Input sets, and in words how they came about."""

    feeds: tuple[Feeds, ...]
    notes: tuple[str, ...] = ()


def read_model(path: Path, scratch: Path) -> ModelArgument:
    """Read a model; `scratch` takes files that must outlive its sessions. Raises InputError."""
    loaded = load_model(path)
    source = make_source(loaded.model, loaded.folder, scratch)
    return ModelArgument(path, loaded.model, source)


def with_library(model: ModelArgument, threads: int) -> ModelArgument | None:
    """The same model with its regions run by our library; None where it has none that can be."""
    if unavailable_reason() is not None:
        return None
    prepared = prepare(model.structure, load_target(NATIVE), threads, CodeCache())
    if prepared.extension is None:
        return None
    source = replace(model.source, extension=prepared.extension)
    return replace(model, source=source, is_extended=True)


def open_session(
    engine: Engine, model: ModelArgument, *, optimize: bool, threads: int | None = None
) -> int:
    """A session of the model. Raises InputError where ONNX Runtime refuses it or crashes."""
    try:
        return engine.open(model.source, optimize=optimize, threads=threads)
    except (EngineError, WorkerError) as error:
        raise InputError(f"{model.path}: ONNX Runtime can't load it: {error}") from None


def choose_inputs(
    engine: Engine,
    session: int,
    model: ModelArgument,
    *,
    data: Path | None,
    pins: Mapping[str, tuple[int, ...]],
    seed: int,
    sets: int,
    budget_s: float = 30.0,
) -> ChosenInputs:
    """Samples from `data`, or else at most `sets` generated input sets that the model runs on.

    Raises InputError where pins or samples do not fit, or the model runs on nothing generated.
    """
    infos = engine.inputs(session)
    check_pins(infos, pins)
    if data is not None:
        if pins:
            raise InputError("--shape and --data exclude each other: the samples have their shapes")
        return ChosenInputs(tuple(load_samples(data, infos)))
    found = find_inputs(
        engine, session, model.structure, seed=seed, count=sets, pins=pins, budget_s=budget_s
    )
    if isinstance(found, InputFailure):
        raise InputError(
            f"{model.path}: no generated inputs make it run, give --data or --shape "
            f"({found.tries} tried; {found.reason})"
        )
    return ChosenInputs(found.feeds, found.notes)


def check_same_interface(
    a: ModelArgument,
    b: ModelArgument,
    infos: tuple[Sequence[TensorInfo], Sequence[TensorInfo]],
    what: str,
) -> None:
    """Raise InputError where two models' inputs or outputs (`what`) differ in name or type."""
    before, after = ({info.name: info.type for info in each} for each in infos)
    shapes = [{info.name: info.shape for info in each} for each in infos]
    if before.keys() != after.keys():
        raise InputError(
            f"the models' {what} differ: {a.path} has {_listed(before)}, "
            f"{b.path} has {_listed(after)}"
        )
    for name, kind in before.items():
        if after[name] != kind:
            raise InputError(
                f"the models' {what} differ: '{name}' is {kind} in {a.path}, "
                f"{after[name]} in {b.path}"
            )
        fixed = [_fixed(each[name]) for each in shapes]
        if fixed[0] and fixed[1] and fixed[0] != fixed[1]:
            raise InputError(
                f"the models' {what} differ: '{name}' is {_spell(fixed[0])} in {a.path}, "
                f"{_spell(fixed[1])} in {b.path}"
            )


def shared_pins(
    pins: Mapping[str, tuple[int, ...]],
    first: Sequence[TensorInfo],
    others: Sequence[Sequence[TensorInfo]],
) -> dict[str, tuple[int, ...]]:
    """`pins`, and the shapes that another model fixes where the first leaves them open."""
    result = dict(pins)
    for info in first:
        for infos in others:
            sizes = _fixed(next((other.shape for other in infos if other.name == info.name), ()))
            if sizes and len(sizes) == len(info.shape) and not _fixed(info.shape):
                result.setdefault(info.name, sizes)
    return result


def _fixed(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """The shape where all of it is fixed, else ()."""
    sizes = tuple(dim for dim in shape if isinstance(dim, int) and dim >= 0)
    return sizes if len(sizes) == len(shape) else ()


def _spell(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _listed(infos: Mapping[str, str]) -> str:
    return ", ".join(f"'{name}'" for name in infos) or "none"
