"""What the steps of a run find, as JSON and content files, and back.

Keeper            packs and unpacks: one `Form` for each of `inputs`, `rewrite`, `time`, `tile`
Form              how one kind of finding is kept, and whether it is worth it

What could not be run or timed is not kept: it may have been for want of memory or time, and a run
that goes on tries it again. The model with regions is not kept either, for `tile` makes it in no
time; it must come out as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from onnx import ModelProto

from ort_optim.checkpoints.folder import WorkFolder
from ort_optim.checkpoints.models import KeptModels
from ort_optim.checkpoints.tensors import pack_values, unpack_values
from ort_optim.engine import Spill
from ort_optim.graph import LoadedModel
from ort_optim.graph.skeleton import copy_fields
from ort_optim.hardware import Target
from ort_optim.passes.base import Refusal, Rewrite
from ort_optim.passes.driver import PassStats
from ort_optim.reference import Unrunnable
from ort_optim.report.codec import JsonValue, decode_value, encode
from ort_optim.rewriter import Candidate, Plan
from ort_optim.search import Failure, Faithful, Fast, Timed
from ort_optim.tiling import tile
from ort_optim.trial import ERROR_CLASSES, Trial
from ort_optim.verify.inputs import Feeds, InputPlan
from ort_optim.verify.judge import Verdict
from ort_optim.verify.speed import Ratio

T = TypeVar("T")


@dataclass(frozen=True)
class Form(Generic[T]):
    """How findings of one kind are kept. `unpack` raises ValueError or DamagedError, or whatever
    comes of JSON that is not what `pack` made."""

    pack: Callable[[T], JsonValue]
    unpack: Callable[[Any], T]
    is_worth_it: Callable[[T], bool]


class Keeper:
    """The forms for one run on `original`, whose heavy weights lie in `spill`."""

    def __init__(
        self, folder: WorkFolder, original: LoadedModel, spill: Spill, target: Target
    ) -> None:
        self._folder = folder
        self._models = KeptModels(folder, original, spill)
        self._target = target

    @property
    def inputs(self) -> Form[InputPlan | Unrunnable]:
        """Input sets with the reference's answers."""
        return Form(self._pack_inputs, self._unpack_inputs, lambda x: isinstance(x, InputPlan))

    @property
    def rewrite(self) -> Form[Faithful]:
        """The candidate that agrees, or what was compared of the one that does not."""
        return Form(self._pack_faithful, self._unpack_faithful, lambda x: _was_run(x.verdict))

    @property
    def time(self) -> Form[Fast]:
        """The candidate that keeps pace, and its timing."""
        return Form(self._pack_fast, self._unpack_fast, lambda x: not isinstance(x.timed, Failure))

    def tile(self, model: ModelProto) -> Form[Trial]:
        """What the trial of `model` with regions came to."""
        return Form(_pack_trial, lambda data: self._unpack_trial(model, data), _was_tried)

    def put(self, model: ModelProto) -> str:
        """Keep a model by itself; the steps' models are kept with them. Raises TooLargeError."""
        return self._models.put(model)

    def _pack_inputs(self, plan: InputPlan | Unrunnable) -> JsonValue:
        assert isinstance(plan, InputPlan)
        return {
            "values": self._folder.put(pack_values([plan.feeds, plan.outputs]), ".npz"),
            "shapes": encode(plan.shapes),
            "seconds": encode(plan.seconds),
            "notes": encode(plan.notes),
        }

    def _unpack_inputs(self, data: Any) -> InputPlan:
        feeds, outputs = _sets_of(self._folder, data)
        shapes = data["shapes"]
        return InputPlan(
            feeds,
            outputs,
            tuple({name: tuple(map(int, dims)) for name, dims in each.items()} for each in shapes),
            decode_value(tuple[float, ...], data["seconds"]),
            decode_value(tuple[str, ...], data["notes"]),
        )

    def _pack_faithful(self, found: Faithful) -> JsonValue:
        candidate = found.candidate
        return {
            "model": self._models.put(candidate.model),
            "plan": encode(candidate.plan),
            "rewrites": encode(candidate.rewrites),
            "refusals": encode(candidate.refusals),
            "passes": encode(candidate.passes),
            "rounds": candidate.rounds,
            "verdict": encode(found.verdict),
            "culprits": encode(found.culprits),
            "is_original": found.is_original,
        }

    def _unpack_faithful(self, data: Any) -> Faithful:
        candidate = Candidate(
            self._models.get(data["model"]),
            decode_value(Plan, data["plan"]),
            decode_value(tuple[Rewrite, ...], data["rewrites"]),
            decode_value(tuple[Refusal, ...], data["refusals"]),
            decode_value(tuple[PassStats, ...], data["passes"]),
            decode_value(int, data["rounds"]),
        )
        return Faithful(
            candidate,
            decode_value(Verdict, data["verdict"]),
            decode_value(tuple[tuple[Rewrite, Verdict], ...], data["culprits"]),
            decode_value(bool, data["is_original"]),
        )

    def _pack_fast(self, fast: Fast) -> JsonValue:
        return {
            "found": self._pack_faithful(fast.found),
            "timed": encode(fast.timed),
            "undone": encode(fast.undone),
        }

    def _unpack_fast(self, data: Any) -> Fast:
        return Fast(
            self._unpack_faithful(data["found"]),
            decode_value(Timed | None, data["timed"]),
            decode_value(tuple[str, ...], data["undone"]),
        )

    def _unpack_trial(self, model: ModelProto, data: Any) -> Trial:
        worst = decode_value(int, data["worst_error_class"])
        if worst not in ERROR_CLASSES:
            raise ValueError(f"there is no error class {worst}")
        tiled = tile(model, self._target, worst_error_class=worst)
        if _digest(tiled.model) != data["structure"]:
            raise ValueError("the regions come out otherwise")
        return Trial(
            tiled,
            decode_value(bool, data["kept"]),
            decode_value(str, data["reason"]),
            decode_value(Verdict | None, data["verdict"]),
            decode_value(Timed | None, data["timed"]),
            decode_value(Ratio | None, data["gain"]),
        )


def feeds_of(folder: WorkFolder, data: Any) -> list[Feeds]:
    """The input sets alone of kept `inputs`."""
    return list(_sets_of(folder, data)[0])


def _sets_of(folder: WorkFolder, data: Any) -> tuple[tuple[Feeds, ...], tuple[Feeds, ...]]:
    feeds, outputs = unpack_values(folder.get(data["values"]))
    return tuple(feeds), tuple(outputs)


def _pack_trial(trial: Trial) -> JsonValue:
    return {
        "worst_error_class": trial.tiled.worst_error_class,
        "structure": _digest(trial.tiled.model),
        "kept": trial.kept,
        "reason": trial.reason,
        "verdict": encode(trial.verdict),
        "timed": encode(trial.timed),
        "gain": encode(trial.gain),
    }


def _digest(model: ModelProto) -> str:
    """Of all but the main graph's weights, which tiling leaves alone."""
    bare = ModelProto()
    copy_fields(model, bare, skip=frozenset({"graph"}))
    copy_fields(model.graph, bare.graph, skip=frozenset({"initializer"}))
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _was_run(verdict: Verdict) -> bool:
    return verdict.passed or bool(verdict.outputs)


def _was_tried(trial: Trial) -> bool:
    verdict = trial.verdict
    if verdict is None or not _was_run(verdict):
        return False
    return trial.kept or not verdict.passed or trial.timed is not None
