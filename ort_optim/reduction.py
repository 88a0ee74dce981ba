"""From a run in which a pass or a region failed to the smallest model on which it still does.

reduce_failure   DIR of `optimize --work DIR` -> DIR/smallest.onnx

Beside it, smallest.txt says in one line what fails, and smallest.npz has inputs to run it on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from ort_optim.checkpoints import WorkFolder
from ort_optim.checkpoints.failures import SMALLEST, Failed, Failures, Regions, read_failures
from ort_optim.checkpoints.folder import DamagedError
from ort_optim.checkpoints.models import KeptModels
from ort_optim.checkpoints.steps import kept_feeds
from ort_optim.compiler.cache import CodeCache
from ort_optim.config import Config
from ort_optim.engine import Engine, EngineError, ModelSource, Spill, make_source, unload
from ort_optim.errors import InputError, WorkerError
from ort_optim.graph import LoadedModel, load_model
from ort_optim.graph.leftovers import scratch_folder
from ort_optim.graph.save import save_model
from ort_optim.hardware import from_json
from ort_optim.passes import PASSES
from ort_optim.passes.base import Pass
from ort_optim.passes.driver import PassError
from ort_optim.pipeline import prepare
from ort_optim.rewriter import Plan, Rewriter
from ort_optim.runtime.prepare import prepare as compile_regions
from ort_optim.tiling import TILING, tile
from ort_optim.verify.compare import Tolerance
from ort_optim.verify.extract import Recorder
from ort_optim.verify.inputs import Feeds, InputFailure, find_inputs
from ort_optim.verify.reduce import (
    Budget,
    Fails,
    Judge,
    Reduced,
    Rewritten,
    breaks,
    differs,
    raises,
    reduce_model,
)

CALL_SECONDS = 120.0  # what one call of ONNX Runtime may take: a part that hangs is tried often
WORDS = {
    "raises": "raises an error",
    "differs": "makes the outputs differ",
    "breaks": "makes a model that ONNX Runtime can't run",
}


def reduce_failure(
    work: Path, *, passes: Sequence[Pass] = PASSES, budget: Budget | None = None
) -> Path:
    """Write the smallest part of the model on which what failed still fails.

    Of several failures, the first that can be repeated is taken. Returns the part's path in `work`.
    Raises InputError where nothing failed, the model is no longer what it was, or nothing fails.
    """
    folder = WorkFolder(work)
    failures = read_failures(folder)
    if failures is None:
        raise InputError(f"nothing failed in the run of {work}: there is nothing to reduce")
    part, line, inputs = SMALLEST
    with scratch_folder() as scratch, Engine(timeout_s=CALL_SECONDS) as engine:
        engine.start()
        engine.on_reply = folder.touch
        bench = _Bench(folder, failures, passes, engine, Spill(scratch))
        found = bench.smallest(budget or Budget())
        found.model.doc_string = found.text
        save_model(found.model, bench.original.folder, work / part)
        folder.write(line, f"{found.text}\n".encode())
        folder.write(inputs, _archive(found.feeds))
    return work / part


def has_failures(work: Path) -> bool:
    """Whether there is something to reduce. Raises InputError as `reduce_failure` does."""
    return read_failures(WorkFolder(work)) is not None


@dataclass(frozen=True)
class _Case:
    """A model that may fail; `recorder` has its values, None where it can't be run."""

    model: ModelProto
    fails: Fails
    recorder: Recorder | None


@dataclass(frozen=True)
class _Smallest:
    """The part, what is said of it, and inputs for it, as far as they are known."""

    model: ModelProto
    text: str
    feeds: Feeds


@dataclass
class _Bench:
    """Lets passes and regions fail on parts of one model."""

    folder: WorkFolder
    failures: Failures
    passes: Sequence[Pass]
    engine: Engine
    spill: Spill

    def __post_init__(self) -> None:
        known = self.failures
        self.original: LoadedModel = unload(load_model(Path(known.model)), self.spill)
        config = Config(shapes=known.shapes, keep_initializer_inputs=known.keep_initializer_inputs)
        self._model, _ = prepare(self.original, config)
        self._sets = self._input_sets()
        self._tolerance = Tolerance(known.rtol, known.atol)

    def smallest(self, budget: Budget) -> _Smallest:
        """The smallest part for the first failure that can be repeated."""
        for failed in self.failures.failed:
            for case in self._cases(failed):
                found = reduce_model(case.model, case.fails, recorder=case.recorder, budget=budget)
                if found is not None:
                    feeds = case.recorder.feeds(found.model) if case.recorder else None
                    return _Smallest(found.model, _text(failed, found), feeds or {})
        names = ", ".join(dict.fromkeys(each.pass_name for each in self.failures.failed))
        raise InputError(f"{names}: the failure can't be repeated: run `optimize` again")

    def _cases(self, failed: Failed) -> Iterator[_Case]:
        """By the pass alone, or else among all passes."""
        if self.failures.regions is not None and failed.pass_name == TILING:
            yield from self._cases_of_regions(failed, self.failures.regions)
            return
        recorder = self._recorder(self._model, failed)
        alone = [each for each in self.passes if each.name == failed.pass_name]
        yield _Case(self._model, self._fails(failed, alone, recorder), recorder)
        yield _Case(self._model, self._fails_among_all(failed, recorder), recorder)

    def _cases_of_regions(self, failed: Failed, regions: Regions) -> Iterator[_Case]:
        """On the model that passes made, which agrees with the original."""
        try:
            model = KeptModels(self.folder, self.original, self.spill).get(regions.model)
        except DamagedError as error:
            raise InputError(f"{self.folder.path}: {error}: run `optimize` again") from None
        target, cache = from_json(regions.target), CodeCache()

        def rewritten(part: ModelProto) -> tuple[ModelSource, ModelSource]:
            tiled = tile(part, target, worst_error_class=regions.worst_error_class)
            compiled = compile_regions(tiled.model, target, regions.threads, cache)
            without = self._source(tiled.model)
            return without, replace(without, extension=compiled.extension)

        recorder = self._recorder(model, failed)
        if recorder is not None:
            yield _Case(model, self._disagrees(failed, rewritten, recorder), recorder)

    def _fails(self, failed: Failed, passes: Sequence[Pass], recorder: Recorder | None) -> Fails:
        def rewrite(model: ModelProto) -> ModelProto:
            rewriter = Rewriter(model, self.original.folder, self.engine, passes)
            candidate = rewriter.candidate(Plan(disabled=frozenset(self.failures.disable)))
            said = rewriter.failures.get(failed.pass_name)
            if said is not None and _gist(said) == _gist(failed.reason):
                raise PassError(failed.pass_name, said)
            return candidate.model

        def rewritten(model: ModelProto) -> tuple[ModelSource, ModelSource]:
            source = self._source(rewrite(model))
            return source, source

        if failed.kind == "raises":
            return raises(rewrite, PassError)
        if recorder is None:
            return lambda _: False
        return self._disagrees(failed, rewritten, recorder)

    def _fails_among_all(self, failed: Failed, recorder: Recorder | None) -> Fails:
        """... and without the pass all is well."""
        others = [each for each in self.passes if each.name != failed.pass_name]
        fails = self._fails(failed, self.passes, recorder)
        still_fails = self._fails(failed, others, recorder)
        return lambda model: fails(model) and not still_fails(model)

    def _disagrees(self, failed: Failed, rewritten: Rewritten, recorder: Recorder) -> Fails:
        judge = Judge(self.engine, rewritten, recorder, self._source, self._tolerance)
        return differs(judge) if failed.kind == "differs" else breaks(judge)

    def _source(self, model: ModelProto) -> ModelSource:
        """What the engine opens."""
        return make_source(model, self.original.folder, self.spill)

    def _recorder(self, model: ModelProto, failed: Failed) -> Recorder | None:
        """Values of the input set where it failed; None where the model can't be run."""
        if not self._sets:
            return None
        feeds = self._sets[min(failed.input_set, len(self._sets) - 1)]
        return Recorder(self.engine, model, self._source(model), feeds)

    def _input_sets(self) -> list[Feeds]:
        """Those that the run used, else generated ones; none where the model can't be run."""
        try:
            session = self.engine.open(self._source(self._model))
            wanted = {info.name for info in self.engine.inputs(session)}
            kept = [each for each in kept_feeds(self.folder) if each.keys() == wanted]
            if kept:
                return kept
            found = find_inputs(
                self.engine,
                session,
                self._model,
                seed=self.failures.seed,
                pins=self.failures.shapes,
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
    what = "a region" if failed.pass_name == TILING else f"pass {failed.pass_name}"
    return f"{what} {WORDS[failed.kind]} on {ops} ({size}): {reason}"


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
