"""The report as Markdown, fit for the job summary of a CI run: GitHub's dialect, details folded."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from ort_optim.report.model import OutputResult, Report
from ort_optim.report.summary import (
    Explanation,
    Mood,
    Row,
    explanations,
    fact_rows,
    headline,
    op_rows,
    verdicts,
)
from ort_optim.report.units import error_text, plural, printable

MARKS: dict[Mood, str] = {"good": "✅", "bad": "❌", "warning": "⚠️", "neutral": "▫️"}

LINES_SHOWN = 200
"""Rewrites listed per pass; GitHub cuts a job summary at 1 MiB. JSON and HTML have them all."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""Emphasis, code, links, tables, maths, mentions and bare addresses, within a line."""

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def to_markdown(report: Report) -> str:
    """A headline, the before/after table, the verdicts, and details behind folds."""
    lines = [
        f"### ort_optim: {escape(headline(report, arrow='→'))}",
        "",
        f"{code(report.input.path)} → {code(report.output.path)}",
        "",
        *_table(("", "before", "after", "change"), map(_cells, fact_rows(report)), "---:"),
        "",
        *(f"- {MARKS[v.mood]} **{escape(v.label)}** {escape(v.text)}" for v in verdicts(report)),
        "",
    ]
    if ops := op_rows(report):
        rows = _table(("op", "before", "after", "change"), map(_cells, ops), "---:")
        lines += _details(f"Ops that changed ({len(ops)})", rows)
    if outputs := report.verification.outputs:
        lines += _details(f"Outputs ({len(outputs)})", _output_table(outputs))
    for explanation in explanations(report):
        if explanation.rewrites or explanation.refusals:
            title = f"{explanation.name}: {explanation.totals}"
            lines += _details(title, _explained(explanation))
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Text that Markdown, HTML and table syntax in it cannot change: `printable`, escaped."""
    return _SPECIAL.sub(r"\\\1", printable(text)).translate(_ENTITIES)


def code(text: str) -> str:
    """`text` in code type, whatever it holds.

    The HTML element, as a backtick span in a table is cut at a bar.
    """
    return f"<code>{escape(text)}</code>" if text else ""


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(escape(cell) for cell in (row.label, row.before, row.after, row.change))


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "---"
) -> list[str]:
    """A table whose cells are already escaped; all columns but the first have `alignment`."""
    rule = ["---", *[alignment] * (len(headings) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows)]


def _details(title: str, lines: Iterable[str]) -> list[str]:
    """A fold. The blank lines let Markdown inside the HTML element be read as Markdown."""
    summary = html.escape(printable(title), quote=False)
    return [f"<details><summary>{summary}</summary>", "", *lines, "", "</details>", ""]


def _output_table(outputs: Iterable[OutputResult]) -> list[str]:
    headings = ("output", "", "max abs", "max rel", "SNR dB", "cosine", "top-1", "decided by")
    return _table(
        headings,
        (
            (
                code(output.name),
                MARKS["good" if output.passed else "bad"],
                escape(error_text(output.max_abs)),
                escape(error_text(output.max_rel)),
                escape("-" if output.snr_db is None else f"{output.snr_db:.1f}"),
                escape("-" if output.cosine is None else f"{output.cosine:.6g}"),
                escape("-" if output.top1 is None else f"{output.top1:.1%}"),
                escape(output.reason or output.decided_by or "-"),
            )
            for output in outputs
        ),
    )


def _explained(explanation: Explanation) -> list[str]:
    lines = []
    if explanation.rewrites:
        lines += _table(
            ("#", "node", "op", "what"),
            (
                (
                    str(rewrite.number),
                    code(f"{rewrite.graph}: {rewrite.node}" if rewrite.graph else rewrite.node),
                    escape(rewrite.op),
                    escape(rewrite.detail),
                )
                for rewrite in explanation.rewrites[:LINES_SHOWN]
            ),
        )
        if len(explanation.rewrites) > LINES_SHOWN:
            hidden = len(explanation.rewrites) - LINES_SHOWN
            lines += ["", f"and {plural(hidden, 'more rewrite')}"]
        lines.append("")
    for group in explanation.refusals:
        named = ", ".join(code(node) for node in group.nodes[:LINES_SHOWN])
        hidden = group.count - min(len(group.nodes), LINES_SHOWN)
        more = f" and {hidden} more" if hidden > 0 else ""
        lines.append(f"- refused {group.count}: {escape(group.reason)}: {named}{more}")
    return lines
