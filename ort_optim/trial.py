"""Tries a model with regions: do its outputs agree, and is it faster, with our library and without?

try_tiling   tile, compile, verify, time
Trial        what came of it
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from onnx import ModelProto

from ort_optim.compiler.cache import CodeCache
from ort_optim.engine import EngineError, ModelSource, make_source
from ort_optim.errors import WorkerError
from ort_optim.hardware import NATIVE, Target, detect
from ort_optim.reference import shorten
from ort_optim.runtime.library import unavailable_reason
from ort_optim.runtime.prepare import prepare
from ort_optim.search import Search, Timed
from ort_optim.tiling import Tiled, tile
from ort_optim.verify.inputs import Feeds
from ort_optim.verify.judge import Verdict
from ort_optim.verify.speed import Ratio, compare_times, look_twice

ERROR_CLASSES = (2, 1, 0)
"""All templates; none less exact than Winograd F(2x2); plain sums only."""

NO_REGION = "there is no convolution"


@dataclass(frozen=True)
class Trial:
    """A model with regions, and whether it is the better one.

    Attributes:
        tiled: The model and what the rule said.
        kept: Whether it is to be kept, for the `reason`.
        verdict: How its outputs agree with the original's, with our library.
        timed: The original beside it with our library.
        gain: The same model without our library beside it with the library.
    """

    tiled: Tiled
    kept: bool
    reason: str
    verdict: Verdict | None = None
    timed: Timed | None = None
    gain: Ratio | None = None


def try_tiling(
    search: Search,
    model: ModelProto,
    target: Target,
    feeds: Feeds,
    *,
    timing: bool,
) -> Trial:
    """Tile `model` for a target and find out whether that pays.

    Where outputs disagree, more exact templates are tried. Without `timing` what agrees is kept.
    """
    trial = Trial(Tiled(model, (), 0), False, NO_REGION)
    for worst in ERROR_CLASSES:
        tiled = tile(model, target, worst_error_class=worst)
        if not tiled.regions:
            return Trial(tiled, False, _why_none(tiled)) if trial.verdict is None else trial
        if tiled.layers == trial.tiled.layers:
            continue  # it has no template that exact ones would take the place of
        if reason := unavailable_reason() or _foreign(target):
            return Trial(tiled, False, reason)
        prepared = prepare(tiled.model, target, search.threads, CodeCache())
        if prepared.extension is None:
            return Trial(tiled, False, next(iter(prepared.left.values()), NO_REGION))
        source = make_source(tiled.model, search.rewriter.folder, search.spill)
        pair = source, replace(source, extension=prepared.extension)
        trial = _judged(search, tiled, pair)
        if trial.kept:
            return _timed(search, trial, pair, feeds) if timing else trial
    return trial


def _why_none(tiled: Tiled) -> str:
    """The reason that most convolutions are left for."""
    reasons = Counter(layer.refusal for layer in tiled.layers if layer.refusal)
    return (
        f"no convolution is in a region: {reasons.most_common(1)[0][0]}" if reasons else NO_REGION
    )


def _foreign(target: Target) -> str | None:
    """Why code for a target can't be run here."""
    if target.name == NATIVE:
        return None
    here = detect()
    missing = sorted(target.features - here.features)
    if target.arch != here.arch or missing:
        lacks = missing[0] if target.arch == here.arch else target.arch
        return f"code for {target.name} can't be verified on this machine, which lacks {lacks}"
    return None


Pair = tuple[ModelSource, ModelSource]
"""A tiled model without our library and with it."""


def _judged(search: Search, tiled: Tiled, pair: Pair) -> Trial:
    """Without our library, then as users run it."""
    for each in pair:
        verdict = search.verifier.check(each, optimize=each.extension is not None)
        if not verdict.passed:
            return Trial(tiled, False, f"its outputs differ: {verdict.reason}", verdict)
    return Trial(tiled, True, "its outputs agree", verdict)


def _timed(search: Search, trial: Trial, pair: Pair, feeds: Feeds) -> Trial:
    """Keep it if it is faster with our library than without, and not slower than the original."""
    sources = (search.reference.source, *pair)
    last: list[list[float]] = []

    def measure() -> Ratio:
        last[:] = search.interleaved(sources, feeds)
        return compare_times(last[0], last[2])

    try:
        ratio = look_twice(measure(), measure)
    except (EngineError, WorkerError) as error:
        return replace(trial, kept=False, reason=f"it can't be timed: {shorten(str(error))}")
    gain = compare_times(last[1], last[2])
    trial = replace(trial, timed=Timed(last[0], last[2], ratio), gain=gain)
    if ratio.verdict == "slower" or gain.verdict != "faster":
        return replace(trial, kept=False, reason="it is not faster with regions")
    return replace(trial, reason=f"{gain.ratio:.2f} times as fast as without our library")
