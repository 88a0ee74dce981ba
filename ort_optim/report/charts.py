"""The plots of the HTML page, as SVG text to be set inline. Drawn by pygal (extra `report`).

Colours are CSS variables of the page, so that one drawing serves light and dark.

op_chart            counts of the ops that changed, before and after
distribution_chart  the latencies of original and result, one dot a run on one axis
run_chart           the same, run by run
error_chart         error of each output, on a logarithmic scale
stage_chart         where the time of `optimize` went
pass_chart          the passes that took longest
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pygal
from pygal.style import Style

from ort_optim.report.model import Report
from ort_optim.report.units import error_text, printable, time_text

OPS_SHOWN = 12
OUTPUTS_SHOWN = 12
PASSES_SHOWN = 8
LABEL_CHARACTERS = 30
BAR_HEIGHT_PX = 19
CHART_WIDTH_PX = 520
AXES_HEIGHT_PX = 90
LEAST_ERROR = 1e-12
"""Where the logarithmic axis starts; an error of zero has no bar."""
LARGEST_PLOTTED = 1e15
LEAST_RUNS = 2

BEFORE_COLOUR, AFTER_COLOUR, THIRD_COLOUR = "var(--before)", "var(--after)", "var(--third)"
LOOK = {
    "background": "transparent",
    "plot_background": "transparent",
    "foreground": "var(--ink)",
    "foreground_strong": "var(--ink)",
    "foreground_subtle": "var(--line)",
    "guide_stroke_color": "var(--line)",
    "major_guide_stroke_color": "var(--line)",
    "guide_stroke_dasharray": "0",
    "major_guide_stroke_dasharray": "0",
    "opacity": "1",
    "opacity_hover": "0.8",
    "transition": "0s",
    "font_family": "inherit",
    "label_font_size": 12.5,
    "major_label_font_size": 12.5,
    "legend_font_size": 12.5,
}


def op_chart(report: Report) -> str:
    """Horizontal bars, two an op; the ops with the largest change. "" if none changed."""
    before, after = report.input.op_histogram, report.output.op_histogram
    changed = [op for op in {**before, **after} if before.get(op, 0) != after.get(op, 0)]
    changed.sort(key=lambda op: (-abs(after.get(op, 0) - before.get(op, 0)), op))
    shown = changed[:OPS_SHOWN][::-1]  # pygal draws upwards
    if not shown:
        return ""
    labels = [f"{op}  {before.get(op, 0)} → {after.get(op, 0)}" for op in shown]
    chart = _horizontal_bars(labels, len(shown) * 2)
    chart.add("before", [before.get(op, 0) for op in shown])
    chart.add("after", [after.get(op, 0) for op in shown])
    return _svg(chart, "ops")


def distribution_chart(report: Report) -> str:
    """Dots along one latency axis, a row each for original and result. "" without timings."""
    original, result = _latencies(report)
    if len(original) < LEAST_RUNS or len(result) < LEAST_RUNS:
        return ""
    low, high = _latency_range(original + result)
    chart = pygal.XY(
        **_common(230),
        stroke=False,
        dots_size=5,
        xrange=(low, high),
        range=(0, 3),
        x_value_formatter=time_text,
        value_formatter=lambda _: "",
        show_y_guides=False,
    )
    chart.y_labels = [{"value": 2, "label": "original"}, {"value": 1, "label": "result"}]
    chart.x_labels = _ticks(low, high)
    chart.add("original", [(ms, 2 + _jitter(run)) for run, ms in enumerate(original)])
    chart.add("result", [(ms, 1 + _jitter(run)) for run, ms in enumerate(result)])
    return _svg(chart, "distribution")


def _ticks(low: float, high: float) -> list[float]:
    """A few values along an axis: pygal's own choice lets long labels overlap."""
    return [low + (high - low) * i / 4 for i in range(5)]


def _jitter(run: int) -> float:
    """Small steps up and down, so that equal latencies are seen as several dots."""
    return (0.0, 0.15, -0.15, 0.3, -0.3)[run % 5]


def run_chart(report: Report) -> str:
    """A line of dots each for original and result over the runs. "" where nothing was timed."""
    original, result = _latencies(report)
    if len(original) < LEAST_RUNS or len(result) < LEAST_RUNS:
        return ""
    low, high = _latency_range(original + result)
    chart = pygal.Line(
        **_common(230),
        range=(low, high),
        value_formatter=time_text,
        show_x_guides=False,
        dots_size=3.5,
        stroke_style={"width": 1.5},
    )
    chart.y_labels = _ticks(low, high)
    runs = max(len(original), len(result))
    step = math.ceil(runs / 10)
    chart.x_labels = [str(run + 1) if run % step == 0 else "" for run in range(runs)]
    chart.add("original", original)
    chart.add("result", result)
    return _svg(chart, "runs")


def _latencies(report: Report) -> tuple[list[float], list[float]]:
    timing = report.timing
    return (
        [ms for ms in timing.original_ms if _is_plottable(ms)],
        [ms for ms in timing.result_ms if _is_plottable(ms)],
    )


def _latency_range(latencies: Sequence[float]) -> tuple[float, float]:
    low, high = min(latencies), max(latencies)
    margin = (high - low) * 0.08 or max(high * 0.05, 1e-6)
    return max(0.0, low - margin), high + margin


def error_chart(report: Report) -> str:
    """Largest, 99% and mean error of each output that has an error. "" where all are equal."""
    outputs = [o for o in report.verification.outputs if _exponent(o.max_abs) > 0]
    outputs = sorted(outputs, key=lambda o: _exponent(o.max_abs))[-OUTPUTS_SHOWN:]
    if not outputs:
        return ""
    columns = (
        ("max", [o.max_abs for o in outputs]),
        ("99%", [o.p99 for o in outputs]),
        ("mean", [o.mean_abs for o in outputs]),
    )
    labels = [f"{o.name}  {error_text(o.max_abs)}" for o in outputs]
    chart = _horizontal_bars(labels, len(outputs) * 3)
    exponents = [_exponent(value) for _, values in columns for value in values]
    top = max(exponents)
    # Bars measure decades above the axis' start, as pygal's own logarithmic bars start at one.
    origin = math.floor(min(e for e in exponents if e > 0)) - 1
    chart.range = (0, math.ceil(top) - origin)
    decades = math.ceil(top) - origin
    chart.y_labels = [
        {"value": decade, "label": f"1e{decade + origin + round(math.log10(LEAST_ERROR))}"}
        for decade in range(0, decades + 1, math.ceil(decades / 8))
    ]
    for title, values in columns:
        chart.add(
            title,
            [
                {"value": max(_exponent(value) - origin, 0), "formatter": _constant(value)}
                for value in values
            ],
        )
    return _svg(chart, "errors")


def stage_chart(report: Report) -> str:
    """One horizontal bar a stage of `optimize`, in ms. "" if none took time."""
    stages = {
        name: 1000 * seconds if _is_plottable(1000 * seconds) else 0.0
        for name, seconds in asdict(report.seconds).items()
    }
    if not any(stages.values()):
        return ""
    return _time_bars("stages", stages)


def pass_chart(report: Report) -> str:
    """One horizontal bar a pass, the slowest ones. "" if none took time."""
    passes = {
        each.name: 1000 * each.seconds
        for each in sorted(report.passes, key=lambda each: -each.seconds)[:PASSES_SHOWN]
        if _is_plottable(1000 * each.seconds)
    }
    return _time_bars("passes", passes) if any(passes.values()) else ""


def _time_bars(name: str, times_ms: Mapping[str, float]) -> str:
    labels = [f"{label}  {time_text(ms)}" for label, ms in times_ms.items()]
    chart = _horizontal_bars(labels[::-1], len(labels), legend=False)
    chart.style = Style(**LOOK, colors=(AFTER_COLOUR,))
    chart.value_formatter = time_text
    chart.show_x_labels = False  # pygal turns the axes of this chart, but not these names
    chart.show_x_guides = False
    chart.add("time", [*times_ms.values()][::-1])
    return _svg(chart, name)


def _horizontal_bars(labels: Iterable[str], bars: int, legend: bool = True) -> Any:
    chart = pygal.HorizontalBar(
        **_common(AXES_HEIGHT_PX + bars * BAR_HEIGHT_PX),
        show_legend=legend,
        value_formatter=lambda value: f"{value:g}",
        show_y_guides=True,
        show_x_guides=False,
    )
    chart.x_labels = [_short(label) for label in labels]
    return chart


def _common(height_px: int) -> dict[str, Any]:
    return {
        "style": Style(**LOOK, colors=(BEFORE_COLOUR, AFTER_COLOUR, THIRD_COLOUR)),
        "width": CHART_WIDTH_PX,
        "height": height_px,
        "js": (),  # pygal's default is a script from the network
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "legend_box_size": 12,
        "margin": 8,
        "margin_bottom": 26,  # pygal leaves no room for its legend
        "margin_right": 26,  # nor for the second half of an axis's last number
        "truncate_label": -1,
        "spacing": 8,
        "truncate_legend": -1,
        "rounded_bars": 2,
    }


def _svg(chart: Any, name: str) -> str:
    """SVG text without XML declaration, comments and scripts, that scales to its container.

    `name` is unique in the page, and takes the place of pygal's random one.
    """
    chart.uuid = name
    text: str = chart.render(disable_xml_declaration=True, is_unicode=True)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def _short(label: str) -> str:
    text = printable(label)
    return text if len(text) <= LABEL_CHARACTERS else f"…{text[1 - LABEL_CHARACTERS :]}"


def _is_plottable(value: float) -> bool:
    """Within what an axis can be drawn for: no NaN, no infinity, nothing absurd."""
    return 0 <= value <= LARGEST_PLOTTED


def _exponent(value: float | None) -> float:
    """Decades of `value` above LEAST_ERROR, 0 for what no logarithm has."""
    if value is None or not LEAST_ERROR < value <= LARGEST_PLOTTED:
        return 0.0
    return math.log10(value / LEAST_ERROR)


def _constant(value: float | None) -> Any:
    text = error_text(value)
    return lambda _: text
