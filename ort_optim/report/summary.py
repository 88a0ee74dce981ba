"""What a report says in words, the same for the terminal, Markdown and HTML.

headline      the result in one line
fact_rows     before and after: nodes, sizes, latency
op_rows       the ops whose count changed, largest change first
verdicts      verified? faster? kept? and the warnings
explanations  what each pass did and refused, node by node

Text taken from a model goes through `printable`; the writers escape it for their format.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ort_optim.report.model import (
    Culprit,
    OutputResult,
    PassSummary,
    Refusal,
    Report,
    Rewrite,
    TiledLayer,
    TimingVerdict,
)
from ort_optim.report.units import (
    count_text,
    delta_text,
    error_text,
    percent_text,
    plural,
    printable,
    size_text,
    time_text,
)

Mood = Literal["good", "bad", "warning", "neutral"]

SPEED_MOODS: Mapping[TimingVerdict, Mood] = {
    "faster": "good",
    "same": "neutral",
    "slower": "bad",
    "not timed": "neutral",
}


@dataclass(frozen=True)
class Row:
    """One line of a before/after table."""

    label: str
    before: str
    after: str
    change: str
    mood: Mood = "neutral"


@dataclass(frozen=True)
class Verdict:
    """One statement: `label` is a word ("verified"), `text` the rest."""

    mood: Mood
    label: str
    text: str


@dataclass(frozen=True)
class RefusalGroup:
    """Nodes that one pass left for one reason; `count` may exceed the nodes that are named."""

    reason: str
    count: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """One pass: its totals in words, each rewrite, and the refusals by reason."""

    name: str
    totals: str
    rewrites: tuple[Rewrite, ...]
    refusals: tuple[RefusalGroup, ...]


def headline(report: Report, arrow: str = "->") -> str:
    """The result in one line, such as "1.21x faster, 178 -> 110 nodes, verified"."""
    before, after = report.input, report.output
    parts = [_speed_words(report)] if report.timing.verdict != "not timed" else []
    if not report.decision.kept:
        parts = ["original returned unchanged"]
    elif before.node_count != after.node_count:
        parts.append(f"{before.node_count} {arrow} {after.node_count} nodes")
    else:
        parts.append(plural(after.node_count, "node"))
    status = report.verification.status
    parts.append({"passed": "verified", "failed": "NOT verified"}.get(status, status))
    return ", ".join(parts)


def _speed_words(report: Report) -> str:
    tiled = report.tiling.timing
    if report.tiling.kept and tiled.verdict == "faster" and tiled.ratio is not None:
        return f"{tiled.ratio:.2f}x faster with ort_optim"
    timing = report.timing
    if timing.verdict == "same":
        return "as fast as before"
    if timing.ratio is None or not 0 < timing.ratio < math.inf:
        return timing.verdict
    if timing.verdict == "faster":
        return f"{timing.ratio:.2f}x faster"
    return f"{1 / timing.ratio:.2f}x slower"


def fact_rows(report: Report) -> list[Row]:
    """Nodes, file size, weights, parameters and latency, before and after."""
    before, after = report.input, report.output
    rows = [
        _amount_row("Nodes", before.node_count, after.node_count, str),
        _amount_row("File size", before.size_bytes, after.size_bytes, size_text),
        _amount_row("Weights", before.weights_bytes, after.weights_bytes, size_text),
        _amount_row("Parameters", before.parameter_count, after.parameter_count, count_text),
    ]
    timing = report.timing
    if timing.verdict != "not timed":
        rows.append(
            Row(
                "Latency",
                time_text(timing.median_original_ms),
                time_text(timing.median_result_ms),
                f"{timing.ratio:.2f}x" if timing.ratio is not None else "-",
                SPEED_MOODS[timing.verdict],
            )
        )
    tiled = report.tiling.timing
    if report.tiling.kept and tiled.ratio is not None:
        rows.append(
            Row(
                "Latency with ort_optim",
                time_text(tiled.median_original_ms),
                time_text(tiled.median_result_ms),
                f"{tiled.ratio:.2f}x",
                SPEED_MOODS[tiled.verdict],
            )
        )
    return rows


def _amount_row(label: str, before: int, after: int, text: Callable[[int], str]) -> Row:
    mood: Mood = "good" if after < before else "bad" if after > before else "neutral"
    return Row(label, text(before), text(after), percent_text(before, after), mood)


def op_rows(report: Report) -> list[Row]:
    """The ops whose count changed, the largest change first."""
    before, after = report.input.op_histogram, report.output.op_histogram
    changed = [op for op in {**before, **after} if before.get(op, 0) != after.get(op, 0)]
    changed.sort(key=lambda op: (-abs(after.get(op, 0) - before.get(op, 0)), op))
    return [
        Row(
            printable(op),
            str(before.get(op, 0)),
            str(after.get(op, 0)),
            delta_text(before.get(op, 0), after.get(op, 0)),
        )
        for op in changed
    ]


def verdicts(report: Report) -> list[Verdict]:
    """Verification, speed, decision, steps taken over, then repairs, culprits, and all warnings."""
    found = [_verification(report)]
    found += [Verdict("warning", "undone", _undone(c)) for c in report.verification.culprits]
    found.append(_speed(report))
    found += [
        Verdict("warning", "undone", f"pass {printable(name)}: it made the model slower")
        for name in report.timing.undone_passes
    ]
    if report.tiling.layers:
        found.append(_tiling(report))
    found.append(_decision(report))
    if report.taken_over:
        steps = ", ".join(map(printable, report.taken_over))
        found.append(Verdict("neutral", "taken over", f"{steps}: done by an earlier run"))
    found += [Verdict("neutral", "repaired", printable(repair)) for repair in report.repairs]
    found += [Verdict("warning", "warning", printable(text)) for text in report.warnings]
    return found


def _tiling(report: Report) -> Verdict:
    tiling = report.tiling
    inside = sum(bool(layer.region) for layer in tiling.layers)
    reason = printable(tiling.reason)
    if not tiling.kept:
        return Verdict("neutral", "not tiled", reason)
    what = f"{inside} of {plural(len(tiling.layers), 'convolution')}"
    where = plural(tiling.regions, "region")
    return Verdict("good", "tiled", f"{what} in {where} for ort_optim's library; {reason}")


def _undone(culprit: Culprit) -> str:
    where = f"{printable(culprit.pass_name)} at {printable(culprit.node)}"
    error = "" if culprit.max_abs is None else f" by {error_text(culprit.max_abs)}"
    return f"{where} (rewrite {culprit.number}): it made the outputs differ{error}"


def _decision(report: Report) -> Verdict:
    reason = printable(report.decision.reason)
    if report.decision.kept:
        return Verdict("good", "kept", reason or "OUT is the result")
    text = "OUT is the original, byte for byte"
    if report.input.sha256 != report.output.sha256:
        text = "OUT is the original, with its external data written beside it"
    return Verdict("warning", "not kept", f"{text}: {reason}" if reason else text)


def _verification(report: Report) -> Verdict:
    verification = report.verification
    reason = printable(verification.reason)
    if verification.status == "failed":
        failed = [output for output in verification.outputs if not output.passed]
        text = "; ".join(
            f"'{printable(output.name)}': {printable(output.reason) or 'outside the bound'}"
            for output in failed[:3]
        )
        more = f"; and {len(failed) - 3} more outputs" if len(failed) > 3 else ""
        return Verdict("bad", "NOT verified", (text + more) or reason or "the outputs differ")
    if verification.status != "passed":
        default = {
            "unverified": "the outputs could not be compared",
            "skipped": "nothing to compare",
        }
        return Verdict("warning", verification.status, reason or default[verification.status])
    sets = plural(verification.sets, "input set")
    compared = plural(len(verification.outputs), "output")
    if verification.inner:
        compared += f" and {plural(len(verification.inner), 'inner tensor')}"
    text = f"{compared} on {sets}; {worst_error(report)}"
    return Verdict("good", "verified", f"{text}; {reason}" if reason else text)


def worst_error(report: Report) -> str:
    """The largest error of all that was compared in words, with the rule that decided there."""
    compared = (*report.verification.outputs, *report.verification.inner)
    measured = [output for output in compared if output.max_abs is not None]
    if not measured:
        return "no figures"
    worst = max(measured, key=_error_rank)
    if worst.max_abs == 0:
        return "all equal" if len(measured) > 1 else "equal"
    text = f"max error {error_text(worst.max_abs)}"
    if len(compared) > 1:
        text += f" in '{printable(worst.name)}'"
    return f"{text}, {bound_text(worst)}" if worst.decided_by else text


def _error_rank(output: OutputResult) -> float:
    """The share of the bound that the error takes, where errors are bounded; else the error."""
    error = output.max_abs or 0.0
    if math.isnan(error):
        return math.inf
    return error / output.bound if output.bound and bound_is_absolute(output) else error


def bound_is_absolute(output: OutputResult) -> bool:
    """Whether `bound` is an absolute error, and not a figure in dB or a share."""
    return output.bound is not None and output.decided_by not in ("SNR", "top-1")


def bound_text(output: OutputResult) -> str:
    """The rule that decided, and what it allows: "within 0.008 (rtol/atol)".

    Of relative bounds, `bound` is the one that an error comes closest to; the largest error may be
    another element's, and larger.
    """
    rule = printable(output.decided_by)
    if output.bound is None:
        return f"judged by {rule}"
    if output.decided_by == "SNR":
        return f"judged by SNR (at least {output.bound:.1f} dB)"
    if output.decided_by == "top-1":
        return f"judged by top-1 (at least {output.bound:.1%})"
    if output.passed and (output.max_abs or 0.0) > output.bound:
        return f"within {rule} ({error_text(output.bound)} where it comes closest)"
    word = "within" if output.passed else "beyond"
    return f"{word} {error_text(output.bound)} ({rule})"


def _speed(report: Report) -> Verdict:
    timing = report.timing
    if timing.verdict == "not timed":
        return Verdict("neutral", "not timed", "latency was not compared")
    mood = SPEED_MOODS[timing.verdict]
    how = f"{plural(timing.runs, 'run')} each, {plural(timing.threads, 'thread')}"
    if timing.ratio is None:
        return Verdict(mood, timing.verdict, how)
    spread = ""
    if timing.ratio_low is not None and timing.ratio_high is not None:
        spread = f" (95%: {timing.ratio_low:.2f} to {timing.ratio_high:.2f})"
    if timing.verdict == "same":
        return Verdict(mood, "same", f"speed ratio {timing.ratio:.2f}{spread}; {how}")
    return Verdict(mood, timing.verdict, f"{timing.ratio:.2f} times as fast{spread}; {how}")


def explanations(report: Report) -> list[Explanation]:
    """Per pass, in the order they ran: totals, rewrites by number, refusals by reason; then tiling.

    Passes that only rewrites or refusals name come last of all passes.
    """
    rewrites: dict[str, list[Rewrite]] = defaultdict(list)
    refusals: dict[str, list[Refusal]] = defaultdict(list)
    for rewrite in report.rewrites:
        rewrites[rewrite.pass_name].append(rewrite)
    for refusal in report.refusals:
        refusals[refusal.pass_name].append(refusal)
    summaries = {summary.name: summary for summary in report.passes}
    return [
        Explanation(
            printable(name),
            _totals(summaries.get(name), rewrites[name], refusals[name]),
            tuple(sorted(rewrites[name], key=lambda rewrite: rewrite.number)),
            tuple(_by_reason(refusals[name])),
        )
        for name in {**summaries, **rewrites, **refusals}
    ] + ([_tiling_explained(report)] if report.tiling.layers else [])


def _tiling_explained(report: Report) -> Explanation:
    """Each convolution: the demand of its template, what the machine has, and the verdict."""
    layers = report.tiling.layers
    inside = [layer for layer in layers if layer.region]
    outside = [
        Refusal("tiling", layer.node, layer.op, _weighed(layer) or layer.reason)
        for layer in layers
        if not layer.region
    ]
    return Explanation(
        "tiling",
        f"{len(inside)} in regions, {len(outside)} left; "
        f"the machine has {printable(report.tiling.machine)}",
        tuple(
            Rewrite(number, "tiling", "", layer.node, layer.op, _weighed(layer))
            for number, layer in enumerate(inside, 1)
        ),
        tuple(_by_reason(outside)),
    )


def _weighed(layer: TiledLayer) -> str:
    """Such as "3x3, stride 1: winograd_f43 T=52,nv=2 demands ...: taken"."""
    said = [
        f"{each.template} {each.tile} demands {each.demand}: {each.verdict}"
        if each.demand
        else f"{each.template}: {each.verdict}"
        for each in layer.weighed
    ]
    return f"{layer.layer_class}: {'; '.join(said)}" if said else ""


def _totals(
    summary: PassSummary | None, rewrites: Sequence[Rewrite], refusals: Sequence[Refusal]
) -> str:
    if summary is None:
        return f"{len(rewrites)} applied, {sum(refusal.count for refusal in refusals)} refused"
    return (
        f"{summary.applied} applied, {summary.refused} refused, "
        f"{plural(summary.rounds, 'round')}, {time_text(summary.seconds * 1000)}"
    )


def _by_reason(refusals: Iterable[Refusal]) -> list[RefusalGroup]:
    groups: dict[str, list[Refusal]] = defaultdict(list)
    for refusal in refusals:
        groups[printable(refusal.reason)].append(refusal)
    found = [
        RefusalGroup(
            reason,
            sum(refusal.count for refusal in group),
            tuple(f"{printable(refusal.node)} ({printable(refusal.op)})" for refusal in group),
        )
        for reason, group in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)
