"""From a run in which a pass failed to the smallest model on which it still does.

reduce_failure   DIR of `optimize --work DIR` -> DIR/smallest.onnx

Beside it, smallest.txt says in one line what fails, and smallest.npz has inputs to run it on.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ort_optim.checkpoints import WorkFolder
from ort_optim.checkpoints.failures import Failed, Failures, read_failures
from ort_optim.checkpoints.steps import kept_feeds
from ort_optim.config import Config
from ort_optim.engine import Engine, EngineError, ModelSource, Spill, make_source, unload
from ort_optim.errors import InputError, WorkerError
from ort_optim.graph import LoadedModel, load_model
from ort_optim.graph.leftovers import scratch_folder
from ort_optim.graph.save import save_model
from ort_optim.passes import PASSES
from ort_optim.passes.base import Pass
from ort_optim.passes.driver import PassError
from ort_optim.pipeline import prepare
from ort_optim.rewriter import Plan, Rewriter
from ort_optim.verify.compare import Tolerance
from ort_optim.verify.extract import Recorder
from ort_optim.verify.inputs import Feeds, InputFailure, find_inputs
from ort_optim.verify.reduce import (
    Budget,
    Fails,
    Judge,
    Reduced,
    breaks,
    differs,
    raises,
    reduce_model,
)

SMALLEST = "smallest.onnx"
CALL_SECONDS = 120.0  # what one call of ONNX Runtime may take: a part that hangs is tried often
WORDS = {
    "raises": "raises an error",
    "differs": "makes the outputs differ",
    "breaks": "makes a model that ONNX Runtime can't run",
}


def reduce_failure(
    work: Path, *, passes: Sequence[Pass] = PASSES, budget: Budget | None = None
) -> Path:
    """Write the smallest part of the model on which a pass that failed still fails.

    Of several failures, the first that can be repeated is taken. Returns the part's path in `work`.
    Raises InputError where no pass failed, the model is no longer what it was, or nothing fails.
    """
    folder = WorkFolder(work)
    failures = read_failures(folder)
    if failures is None:
        raise InputError(f"no pass failed in the run of {work}: there is nothing to reduce")
    with scratch_folder() as scratch, Engine(timeout_s=CALL_SECONDS) as engine:
        engine.start()
        bench = _Bench(folder, failures, passes, engine, Spill(scratch))
        found, failed = bench.reduce(budget or Budget())
        text = _text(failed, found)
        found.model.doc_string = text
        save_model(found.model, bench.original.folder, work / SMALLEST)
        folder.write("smallest.txt", f"{text}\n".encode())
        folder.write("smallest.npz", _archive(bench.feeds(found.model, failed)))
    return work / SMALLEST


def has_failures(work: Path) -> bool:
    """Whether there is something to reduce. Raises InputError as `reduce_failure` does."""
    return read_failures(WorkFolder(work)) is not None


@dataclass
class _Bench:
    """Lets passes fail on parts of one model."""

    folder: WorkFolder
    failures: Failures
    passes: Sequence[Pass]
    engine: Engine
    spill: Spill

    def __post_init__(self) -> None:
        known = self.failures
        self.original: LoadedModel = unload(load_model(Path(known.model)), self.spill)
        config = Config(shapes=known.shapes, keep_initializer_inputs=known.keep_initializer_inputs)
        self.model, _ = prepare(self.original, config)
        self._source_of_all = self.source(self.model)
        self._sets = self._input_sets()

    def reduce(self, budget: Budget) -> tuple[Reduced, Failed]:
        """The smallest part for the first failure that can be repeated, by the pass alone or else
        among all passes."""
        for failed in self.failures.failed:
            alone = [each for each in self.passes if each.name == failed.pass_name]
            for fails in (self._fails(failed, alone), self._fails_among_all(failed)):
                if fails(self.model):
                    recorder = self._recorder(failed)
                    return reduce_model(self.model, fails, recorder=recorder, budget=budget), failed
        names = ", ".join(dict.fromkeys(each.pass_name for each in self.failures.failed))
        raise InputError(f"{names}: the failure can't be repeated: run `optimize` again")

    def feeds(self, part: ModelProto, failed: Failed) -> Feeds:
        """Inputs for a part, as far as they are known."""
        recorder = self._recorder(failed)
        return (recorder.feeds(part) if recorder else None) or {}

    def source(self, model: ModelProto) -> ModelSource:
        """What the engine opens."""
        return make_source(model, self.original.folder, self.spill)

    def _fails(self, failed: Failed, passes: Sequence[Pass]) -> Fails:
        def rewrite(model: ModelProto) -> ModelProto:
            rewriter = Rewriter(model, self.original.folder, self.engine, passes)
            candidate = rewriter.candidate(Plan(disabled=frozenset(self.failures.disable)))
            said = rewriter.failures.get(failed.pass_name)
            if said is not None and _gist(said) == _gist(failed.reason):
                raise PassError(failed.pass_name, said)
            return candidate.model

        if failed.kind == "raises":
            return raises(rewrite, PassError)
        recorder = self._recorder(failed)
        if recorder is None:
            return lambda _: False
        tolerance = Tolerance(self.failures.rtol, self.failures.atol)
        judge = Judge(self.engine, rewrite, recorder, self.source, tolerance)
        return differs(judge) if failed.kind == "differs" else breaks(judge)

    def _fails_among_all(self, failed: Failed) -> Fails:
        """... and without the pass all is well."""
        others = [each for each in self.passes if each.name != failed.pass_name]
        fails, still_fails = self._fails(failed, self.passes), self._fails(failed, others)
        return lambda model: fails(model) and not still_fails(model)

    def _recorder(self, failed: Failed) -> Recorder | None:
        """Values of the input set on which the pass failed; None where the model can't be run."""
        if not self._sets:
            return None
        feeds = self._sets[min(failed.input_set, len(self._sets) - 1)]
        return Recorder(self.engine, self.model, self._source_of_all, feeds)

    def _input_sets(self) -> list[Feeds]:
        """Those that the run used, else generated ones; none where the model can't be run."""
        try:
            session = self.engine.open(self._source_of_all)
            wanted = {info.name for info in self.engine.inputs(session)}
            kept = [each for each in kept_feeds(self.folder) if each.keys() == wanted]
            if kept:
                return kept
            found = find_inputs(
                self.engine, session, self.model, seed=self.failures.seed, pins=self.failures.shapes
            )
        except (EngineError, WorkerError):
            return []
        return [] if isinstance(found, InputFailure) else list(found.feeds)


def _gist(reason: str) -> list[str]:
    """The pass and the type of its error, whose words may differ from part to part."""
    return reason.split()[:2]


def _text(failed: Failed, found: Reduced) -> str:
    """What fails, in one line."""
    count = len(found.model.graph.node)
    nodes = f"{count} node{'s' if count > 1 else ''}"
    ops = ", ".join(sorted({node.op_type for node in found.model.graph.node}))
    size = nodes if found.is_smallest else f"{nodes}, perhaps not all needed: time was up"
    reason = " ".join(failed.reason.split()).removeprefix(f"{failed.pass_name}: ")
    return f"pass {failed.pass_name} {WORDS[failed.kind]} on {ops} ({size}): {reason}"


def _archive(feeds: Feeds) -> bytes:
    """The tensors among `feeds` as `--data` takes them."""
    arrays = {
        name: value.astype(str) if value.dtype.kind == "O" else value
        for name, value in feeds.items()
        if isinstance(value, np.ndarray)
    }
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()
