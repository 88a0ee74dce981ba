"""From what a run found to its decision and its report.

Outcome       everything the stages hand over
decide        is the result worth keeping?
model_facts   one file, as the report shows it
report        the whole report
"""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np
from onnx import ModelProto

from ort_optim import report as reporting
from ort_optim._version import __version__
from ort_optim.config import Config
from ort_optim.graph import LoadedModel
from ort_optim.graph.stats import count_ops, weight_stats
from ort_optim.hardware import Target
from ort_optim.kernels.rule import Resources
from ort_optim.reference import shorten
from ort_optim.report import Decision, ModelFacts, Report
from ort_optim.rewriter import Candidate
from ort_optim.search import Failure, Faithful, Fast, Timed
from ort_optim.tiling import TiledLayer
from ort_optim.trial import Trial
from ort_optim.verify.inputs import InputPlan

LIBRARIES = ("onnx", "onnxruntime", "onnx-graphsurgeon", "numpy")
CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Outcome:
    """What the search ended with.

    `found` and `samples` are None where outputs could not be compared, for the given `reason`;
    `fast` is None where nothing was timed, `trial` where no regions were tried.
    """

    candidate: Candidate
    reason: str = ""
    samples: InputPlan | None = None
    found: Faithful | None = None
    fast: Fast | None = None
    trial: Trial | None = None

    @property
    def is_tiled(self) -> bool:
        """Whether the result has regions."""
        return self.trial is not None and self.trial.kept

    @property
    def model(self) -> ModelProto:
        """The result."""
        return self.trial.tiled.model if self.trial and self.trial.kept else self.candidate.model

    @property
    def keeps_pace(self) -> bool:
        """Whether the candidate agrees and nothing says that it is slower."""
        agrees = self.found is not None and self.found.verdict.passed
        return agrees and (self.fast is None or self.fast.keeps_pace)


def decide(
    outcome: Outcome, before: ModelFacts, repairs: Sequence[str], *, unverified: bool
) -> Decision:
    """Keep the result if it agrees, is not slower, and is faster, simpler, smaller or repaired."""
    if outcome.found is None:
        return Decision(
            unverified,
            "rewritten without verification" if unverified else "it could not be verified",
        )
    verdict = outcome.found.verdict
    if not verdict.passed:
        differ = any(not comparison.passed for comparison in (*verdict.outputs, *verdict.inner))
        what = "the outputs differ" if differ else "the result does not work"
        return Decision(False, f"{what}: {verdict.reason}")
    timed = outcome.fast.timed if outcome.fast else None
    if isinstance(timed, Failure):
        return Decision(False, f"the result can't be timed: {shorten(timed.reason)}")
    speed = timed.ratio.verdict if timed else "same"
    if speed == "slower":
        return Decision(False, "the result is slower")
    model = outcome.candidate.model
    if outcome.is_tiled and speed != "faster":
        return Decision(True, "the result is faster with ort_optim's library")
    nodes_saved = before.node_count - sum(count_ops(model).values())
    bytes_saved = before.weights_bytes - weight_stats(model).size_bytes
    gains = [
        *(["faster"] if speed == "faster" else []),
        *(["simpler"] if nodes_saved > 0 else []),
        *(["smaller"] if bytes_saved > 0 and nodes_saved >= 0 else []),
        *(["repaired"] if repairs else []),
    ]
    if gains:
        return Decision(True, f"the result is {' and '.join(gains)}")
    return Decision(False, "there is nothing to improve")


def model_facts(loaded: LoadedModel) -> ModelFacts:
    """The facts of a file. Raises InputError for tensors of unknown types."""
    stats, ops = weight_stats(loaded.model), count_ops(loaded.model)
    digest = hashlib.sha256()
    with loaded.path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return ModelFacts(
        path=str(loaded.path),
        sha256=digest.hexdigest(),
        size_bytes=loaded.size_bytes,
        ir_version=loaded.model.ir_version,
        opset={entry.domain: entry.version for entry in loaded.model.opset_import},
        node_count=sum(ops.values()),
        op_histogram=dict(sorted(ops.items())),
        weights_bytes=stats.size_bytes,
        parameter_count=stats.parameter_count,
    )


def report(
    *,
    config: Config,
    target: Target,
    threads: int,
    before: ModelFacts,
    after: ModelFacts,
    repairs: Sequence[str],
    outcome: Outcome,
    decision: Decision,
    warnings: Sequence[str],
    seconds: Mapping[str, float],
    taken_over: Sequence[str] = (),
) -> Report:
    """The report of a finished run."""
    candidate = outcome.candidate
    return Report(
        tool=reporting.ToolFacts(
            __version__,
            platform.python_version(),
            {name: metadata.version(name) for name in LIBRARIES},
        ),
        input=before,
        output=after,
        verification=_verification(outcome),
        timing=_timing(outcome, threads),
        decision=decision,
        options=_plain(asdict(config)),
        target=reporting.TargetFacts(target.name, target.model, _plain(asdict(target))),
        repairs=tuple(repairs),
        tiling=_tiling(outcome, target, threads),
        passes=tuple(
            reporting.PassSummary(p.name, p.applied, p.refused, p.seconds, candidate.rounds)
            for p in candidate.passes
        ),
        rewrites=tuple(
            reporting.Rewrite(r.number, r.pass_name, r.graph, r.node, r.op, r.detail)
            for r in candidate.rewrites
        ),
        refusals=_refusals(candidate),
        warnings=tuple(warnings),
        seconds=reporting.StageSeconds(**seconds),
        taken_over=tuple(taken_over),
    )


def _verification(outcome: Outcome) -> reporting.Verification:
    if outcome.found is None or outcome.samples is None:
        return reporting.Verification("unverified", reason=outcome.reason)
    tiled = outcome.trial.verdict if outcome.trial and outcome.trial.kept else None
    verdict = tiled or outcome.found.verdict
    return reporting.Verification(
        "passed" if verdict.passed else "failed",
        sets=verdict.sets,
        shapes=outcome.samples.shapes[: verdict.sets],
        outputs=tuple(reporting.OutputResult(**c.as_plain()) for c in verdict.outputs),
        inner=tuple(reporting.OutputResult(**c.as_plain()) for c in verdict.inner),
        culprits=tuple(
            reporting.Culprit(
                rewrite.pass_name,
                rewrite.node,
                rewrite.number,
                said.max_abs if np.isfinite(said.max_abs) else None,
            )
            for rewrite, said in outcome.found.culprits
        ),
        reason=verdict.reason,
    )


def _timing(outcome: Outcome, threads: int) -> reporting.Timing:
    timed = outcome.fast.timed if outcome.fast else None
    undone = outcome.fast.undone if outcome.fast else ()
    found = timed if isinstance(timed, Timed) else None
    return replace(_timing_of(found, threads), undone_passes=undone)


def _timing_of(timed: Timed | None, threads: int) -> reporting.Timing:
    if timed is None:
        return reporting.Timing("not timed")
    ratio = timed.ratio
    return reporting.Timing(
        ratio.verdict,
        original_ms=tuple(timed.original_ms),
        result_ms=tuple(timed.result_ms),
        median_original_ms=ratio.median_a_ms,
        median_result_ms=ratio.median_b_ms,
        ratio=ratio.ratio,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        runs=ratio.rounds,
        threads=threads,
    )


def _tiling(outcome: Outcome, target: Target, threads: int) -> reporting.Tiling:
    trial = outcome.trial
    if trial is None:
        return reporting.Tiling()
    return reporting.Tiling(
        kept=trial.kept,
        reason=trial.reason,
        regions=trial.tiled.regions,
        machine=Resources.of(target).text,
        layers=tuple(map(_tiled_layer, trial.tiled.layers)),
        timing=_timing_of(trial.timed, threads),
        gain=trial.gain.ratio if trial.gain else None,
    )


def _tiled_layer(layer: TiledLayer) -> reporting.TiledLayer:
    choice = layer.choice
    inside = choice is not None and layer.region is not None
    return reporting.TiledLayer(
        node=layer.node,
        op=layer.op,
        layer_class=choice.layer_class if choice else "",
        region=layer.region or "",
        template=str(choice.template) if choice and inside else "",
        tile=str(choice.tile) if choice and inside else "",
        reason=layer.refusal or (choice.reason if choice else ""),
        weighed=tuple(
            reporting.Weighed(
                each.template,
                str(each.tile or ""),
                each.demand.text if each.demand else "",
                each.refusal or "taken",
            )
            for each in (choice.weighed if choice else ())
        ),
    )


def _refusals(candidate: Candidate) -> tuple[reporting.Refusal, ...]:
    """Refusals that share pass, op and reason are one entry, told by the first node."""
    counts = Counter((r.pass_name, r.op, r.reason) for r in candidate.refusals)
    first = {(r.pass_name, r.op, r.reason): r for r in reversed(candidate.refusals)}
    return tuple(
        reporting.Refusal(r.pass_name, r.node, r.op, r.reason, counts[key])
        for key, r in sorted(first.items())
    )


def _plain(value: Any) -> Any:
    """JSON data: sets sorted, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
