"""The straight line from a model file to an optimized one. Read this first.

load -> repair -> rewrite and verify -> time -> tile, verify, time -> decide -> save -> report

What costs time is done through `Steps`, which takes over what an earlier run in the same work
folder found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from ort_optim import assembly
from ort_optim.assembly import Outcome
from ort_optim.checkpoints import Steps, WorkFolder
from ort_optim.config import Config
from ort_optim.engine import Engine, EngineError, Spill, unload
from ort_optim.errors import InputError, VerificationError, WorkerError
from ort_optim.graph import LoadedModel, load_model
from ort_optim.graph.functions import inline_functions
from ort_optim.graph.leftovers import scratch_folder
from ort_optim.graph.regions import weights_apart
from ort_optim.graph.repair import pin_shapes, repair
from ort_optim.graph.save import check_writable, clean_up, copy_model, save_model
from ort_optim.hardware import Target, load_target
from ort_optim.passes import PASSES
from ort_optim.reference import Reference, Unrunnable, open_reference, shorten
from ort_optim.report import Report, check_report_path, write_report
from ort_optim.rewriter import Plan, Rewriter
from ort_optim.search import Faithful, Fast, Search
from ort_optim.tiling import TILING
from ort_optim.trial import try_tiling
from ort_optim.verify.compare import Tolerance
from ort_optim.verify.data import load_samples
from ort_optim.verify.dimensions import check_pins
from ort_optim.verify.inputs import Feeds, InputFailure, InputPlan, find_inputs
from ort_optim.verify.judge import Verifier

STAGES = ("load", "rewrite", "time", "tile", "save")
UNVERIFIED_MARK = "ort_optim.unverified"  # metadata key of a model that was rewritten unchecked

Observer = Callable[[str], None]
"""Told the name of each of the `STAGES` when it begins."""


def optimize(
    source: str | Path,
    destination: str | Path,
    *,
    report: str | Path | Sequence[str | Path] = (),
    work: str | Path | None = None,
    observer: Observer = lambda stage: None,
    **options: Any,
) -> Report:
    """Optimize the model `source` into `destination`, and say what was done.

    The result is written only if its outputs agree with the original's, it is not slower, and it
    is smaller, simpler or faster; else `destination` is the original byte for byte. Both paths
    may be the same. `report` names files to write the report to (.json, .md, .html). In the folder
    `work` each step that is finished is kept, and a later run there, of the same model with the
    same options, goes on after the last one that is still valid (see `ort_optim.checkpoints`).
    `options` are the fields of `Config`.

    Raises InputError for a bad argument or model, with `destination` untouched, and
    VerificationError where `require_verify` is set and the outputs can't be compared.
    """
    config = Config(**options)
    reports = [Path(report)] if isinstance(report, (str, Path)) else [Path(p) for p in report]
    for path in reports:
        check_report_path(path)
        if path.resolve() in (Path(source).resolve(), Path(destination).resolve()):
            raise InputError(f"report '{path}' would take the place of a model: name another file")
    folder = None if work is None else Path(work)
    done = _Run(Path(source), Path(destination), config, observer, folder).report()
    for path in reports:
        write_report(done, path)
    return done


@dataclass
class _Run:
    """One run: what `optimize` was told, and what the stages note down on the way."""

    source: Path
    destination: Path
    config: Config
    observer: Observer
    work: Path | None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    steps: Steps = field(init=False)

    def report(self) -> Report:
        """Do it all."""
        _check_pass_names(self.config.disable)
        check_writable(self.destination)
        folder = WorkFolder(self.work) if self.work else None
        if folder is not None:
            folder.refuse(self.source, self.destination)
        self.steps = Steps(folder, self.warnings)
        with (  # the engine ends first: it maps files in the scratch folder
            scratch_folder() as scratch,
            Engine(timeout_s=self.config.timeout_s) as engine,
        ):
            engine.start()
            engine.on_reply = self.steps.touch
            return self._run(engine, Spill(scratch), load_target(self.config.target))

    def _run(self, engine: Engine, spill: Spill, target: Target) -> Report:
        with self._stage("load"):
            original = unload(load_model(self.source), spill)
            before = assembly.model_facts(original)
            threads = self._threads(target)
            self.steps.begin(original, self.config, target, threads, spill)
            clean_up(self.destination)
            repaired, repairs = prepare(original, self.config)
            reference = open_reference(engine, original, repaired, spill)
            samples = self.steps.inputs(lambda: self._samples(engine, reference))
        rewriter = Rewriter(repaired, original.folder, engine)
        self.steps.follow_failures(rewriter.failures)
        if isinstance(reference, Reference) and isinstance(samples, InputPlan):
            verifier = self._verifier(engine, reference, samples)
            seconds = self.config.search_seconds
            search = Search(engine, rewriter, verifier, reference, threads, spill, seconds)
            self.steps.follow(search.notes)
            outcome = self._search(search, samples, has_repairs=bool(repairs))
            outcome = self._tiled(search, outcome, target, samples)
            self.warnings += search.notes
        else:
            reason = next(x.reason for x in (reference, samples) if isinstance(x, Unrunnable))
            outcome = self._unverified(rewriter, reason, Plan(disabled=self.config.disable))
        self.warnings += [f"pass left out: {reason}" for reason in rewriter.failures.values()]
        with self._stage("save"):
            decision = assembly.decide(outcome, before, repairs, unverified=self.config.unverified)
            if decision.kept:
                model, external = outcome.model, bool(original.data_files)
                save_model(
                    model,
                    original.folder,
                    self.destination,
                    external=external,
                    apart=weights_apart(model),
                )
            else:
                if self.config.shapes:
                    self.warnings.append("--shape is not in OUT, which is the original")
                copy_model(original, self.destination)
            if decision.kept or original.data_files:
                after = assembly.model_facts(load_model(self.destination))
            else:  # the same bytes
                after = replace(before, path=str(self.destination))
        self.steps.finish("save", self.seconds["save"])
        return assembly.report(
            config=self.config,
            target=target,
            threads=threads,
            before=before,
            after=after,
            repairs=repairs,
            outcome=outcome,
            decision=decision,
            warnings=self.warnings,
            seconds=self.seconds,
            taken_over=self.steps.taken_over,
        )

    def _threads(self, target: Target) -> int:
        """As asked for or as the target has cores, but no more than this machine has CPUs."""
        wanted = self.config.threads or target.cores
        most = os.cpu_count() or wanted
        if wanted > most:  # their spinning would cost more than any model takes
            self.warnings.append(f"timed with {most} threads: this machine has no {wanted} CPUs")
        return min(wanted, most)

    def _samples(self, engine: Engine, reference: Reference | Unrunnable) -> InputPlan | Unrunnable:
        """Inputs that the reference runs on: the user's, or generated ones."""
        if isinstance(reference, Unrunnable):
            return reference
        config, infos = self.config, engine.inputs(reference.session)
        check_pins(infos, config.shapes)
        if config.data is not None:
            given = load_samples(config.data, infos)
            _check_samples(given, config.shapes)
            return _run_samples(engine, reference.session, given)
        found = find_inputs(
            engine,
            reference.session,
            reference.model,
            seed=config.seed,
            count=config.sets,
            pins=config.shapes,
        )
        if isinstance(found, InputFailure):
            reason = found.reason or "all shapes that were tried are too large"
            return Unrunnable(f"no inputs were found that it runs on: {shorten(reason)}")
        self.warnings += found.notes
        return found

    def _verifier(self, engine: Engine, reference: Reference, samples: InputPlan) -> Verifier:
        verifier = Verifier(
            engine,
            reference.source,
            samples.feeds,
            samples.outputs,
            session=None if samples.session_lost else reference.session,
            structure=reference.model,
            tolerance=Tolerance(self.config.rtol, self.config.atol),
        )
        if not samples.session_lost:
            engine.close(reference.session)  # it may hold a packed copy of all weights
        return verifier

    def _search(self, search: Search, samples: InputPlan, *, has_repairs: bool) -> Outcome:
        with self._stage("rewrite"):
            found = self.steps.rewrite(lambda: self._rewritten(search, has_repairs=has_repairs))
        self.seconds["verify"] = search.verify_seconds
        self.seconds["rewrite"] -= search.verify_seconds
        if found.verdict.passed and not _is_proof(found):
            return self._unverified(search.rewriter, found.verdict.reason, found.candidate.plan)
        fast = None
        if found.verdict.passed and found.candidate.rewrites and self.config.timing:
            with self._stage("time"):
                feeds, slow = samples.feeds[0], found
                fast = self.steps.time(
                    lambda: self._fast(search, slow, feeds, has_repairs=has_repairs)
                )
                found = fast.found
        _unmark(found.candidate.model)
        return Outcome(found.candidate, samples=samples, found=found, fast=fast)

    def _rewritten(self, search: Search, *, has_repairs: bool) -> Faithful:
        found = search.faithful(Plan(disabled=self.config.disable))
        return search.bare(found) if has_repairs and not found.verdict.passed else found

    def _fast(self, search: Search, found: Faithful, feeds: Feeds, *, has_repairs: bool) -> Fast:
        fast = search.as_fast(found, feeds)
        if fast.keeps_pace or not has_repairs:
            return fast
        self.warnings.append("only repaired: all rewrites together are slower")
        return Fast(search.bare(fast.found), None, fast.undone)

    def _tiled(
        self, search: Search, outcome: Outcome, target: Target, samples: InputPlan
    ) -> Outcome:
        """With regions for code of ours, if they pay."""
        if TILING in self.config.disable or outcome.found is None or not outcome.keeps_pace:
            return outcome
        with self._stage("tile"):
            model, feeds, timing = outcome.model, samples.feeds[0], self.config.timing
            trial = self.steps.tile(
                model, lambda: try_tiling(search, model, target, feeds, timing=timing)
            )
        return replace(outcome, trial=trial)

    def _unverified(self, rewriter: Rewriter, reason: str, plan: Plan) -> Outcome:
        """What becomes of a model whose outputs can't be compared."""
        if self.config.require_verify:
            raise VerificationError(f"{self.source} can't be verified: {reason}")
        if not self.config.unverified:
            self.warnings.append(f"copied as it is, since it can't be verified: {reason}")
            return Outcome(rewriter.candidate(Plan(limit=0)), reason=reason)
        self.warnings.append(f"rewritten without verification: {reason}")
        with self._stage("rewrite"):
            candidate = rewriter.candidate(plan)
        self.steps.record_failures()
        _mark_unverified(candidate.model, reason)
        return Outcome(candidate, reason=reason)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.observer(name)
        self.steps.touch()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - started


def _is_proof(found: Faithful) -> bool:
    """Whether outputs that agree say anything: they held values, or never can."""
    if found.is_original or found.verdict.exercised:
        return True
    return all(
        any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in output.dim)
        for output in (value.type.tensor_type.shape for value in found.candidate.model.graph.output)
    )


def _mark_unverified(model: ModelProto, reason: str) -> None:
    _unmark(model)
    model.metadata_props.add(key=UNVERIFIED_MARK, value=reason)


def _unmark(model: ModelProto) -> None:
    """Take back what an earlier run noted: it does not hold for a result that was compared."""
    for index in reversed(range(len(model.metadata_props))):
        if model.metadata_props[index].key == UNVERIFIED_MARK:
            del model.metadata_props[index]


def _check_pass_names(disabled: frozenset[str]) -> None:
    known = [*(each.name for each in PASSES), TILING]
    for name in sorted(disabled - set(known)):
        raise InputError(f"--disable: no pass '{name}'; the passes are {', '.join(known)}")


def prepare(original: LoadedModel, config: Config) -> tuple[ModelProto, list[str]]:
    """A repaired copy with pinned shapes and without model-local functions, and what was done."""
    model = ModelProto()
    model.CopyFrom(original.model)
    repairs = repair(model, keep_initializer_inputs=config.keep_initializer_inputs)
    repairs += pin_shapes(model, config.shapes)
    return inline_functions(model), repairs


def _check_samples(samples: list[Feeds], pins: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError where the user's samples have other shapes than the user pinned."""
    for feeds in samples:
        for name, wanted in pins.items():
            found = np.shape(feeds[name])
            if found != wanted:
                raise InputError(
                    f"--shape {name}:{'x'.join(map(str, wanted))} contradicts --data, where "
                    f"'{name}' is {'x'.join(map(str, found)) or 'a scalar'}: give matching samples"
                )


def _run_samples(engine: Engine, session: int, samples: list[Feeds]) -> InputPlan | Unrunnable:
    """The user's samples with the reference's answers."""
    outputs, seconds = [], []
    try:
        for feeds in samples:
            started = time.perf_counter()
            outputs.append(engine.run(session, feeds))
            seconds.append(time.perf_counter() - started)
    except (EngineError, WorkerError) as error:
        return Unrunnable(f"it does not run on the given data: {shorten(str(error))}")
    shapes = tuple(
        {name: value.shape for name, value in feeds.items() if isinstance(value, np.ndarray)}
        for feeds in samples
    )
    return InputPlan(tuple(samples), tuple(outputs), shapes, tuple(seconds))
