"""The report on a terminal, or as plain text where the output is piped.

print_report   the before/after table and the verdicts
print_explain  what every pass did and refused, node by node
"""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ort_optim.report.console import is_unicode, show
from ort_optim.report.model import Report
from ort_optim.report.summary import (
    Explanation,
    Mood,
    Row,
    Verdict,
    explanations,
    fact_rows,
    headline,
    op_rows,
    verdicts,
)
from ort_optim.report.units import printable

OPS_SHOWN = 12

STYLES: dict[Mood, str] = {"good": "green", "bad": "bold red", "warning": "yellow", "neutral": ""}
MARKS: dict[Mood, str] = {"good": "✓", "bad": "✗", "warning": "!", "neutral": "·"}
ASCII_MARKS: dict[Mood, str] = {"good": "+", "bad": "x", "warning": "!", "neutral": "-"}


def print_report(report: Report, console: Console | None = None, *, explain: bool = False) -> None:
    """Print the table and the verdicts, after them with `explain` what each pass did.

    On a terminal with colours and lines; elsewhere as plain aligned text.
    """
    console = console or Console(highlight=False)
    show(console, _overview(report, console.is_terminal, is_unicode(console)))
    if explain:
        print_explain(report, console)


def print_explain(report: Report, console: Console | None = None) -> None:
    """Print what every pass did and what it refused and why, node by node."""
    console = console or Console(highlight=False)
    for explanation in explanations(report):
        if explanation.rewrites or explanation.refusals:
            show(console, Group(Text(), _explained(explanation)))
    idle = [e.name for e in explanations(report) if not (e.rewrites or e.refusals)]
    if idle:
        show(console, Group(Text(), Text(f"nothing to do: {', '.join(idle)}", style="dim")))


def _overview(report: Report, on_terminal: bool, is_unicode: bool) -> RenderableType:
    arrow = "→" if on_terminal and is_unicode else "->"
    title = Text(headline(report, arrow), style="bold")
    paths = Text(
        f"{printable(report.input.path)} {arrow} {printable(report.output.path)}",
        style="dim",
        overflow="fold",
    )
    parts: list[RenderableType] = [title, paths, Text()]
    parts += [_table(report, on_terminal), Text()]
    marks = MARKS if on_terminal and is_unicode else ASCII_MARKS
    parts.append(_verdict_lines(verdicts(report), marks))
    return Group(*parts)


def _table(report: Report, on_terminal: bool) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD if on_terminal else None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_edge=False,
        header_style="dim",
    )
    table.add_column("", overflow="fold")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    facts, ops = fact_rows(report), op_rows(report)
    _add(table, facts[:1])
    _add(table, ops[:OPS_SHOWN], indent="  ", label_style="dim" if on_terminal else "")
    if len(ops) > OPS_SHOWN:
        table.add_row(Text(f"  and {len(ops) - OPS_SHOWN} more ops", style="dim"), "", "", "")
    _add(table, facts[1:])
    return table


def _add(table: Table, rows: Iterable[Row], indent: str = "", label_style: str = "") -> None:
    for row in rows:
        table.add_row(
            Text(indent + row.label, style=label_style),
            Text(row.before),
            Text(row.after),
            Text(row.change, style=STYLES[row.mood]),
        )


def _verdict_lines(found: Iterable[Verdict], marks: dict[Mood, str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for verdict in found:
        label = Text(f"{marks[verdict.mood]} {verdict.label}", style=STYLES[verdict.mood])
        grid.add_row(label, Text(verdict.text))
    return grid


def _explained(explanation: Explanation) -> RenderableType:
    parts: list[RenderableType] = [
        Text.assemble((explanation.name, "bold"), "  ", (explanation.totals, "dim"))
    ]
    if explanation.rewrites:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(justify="right", style="dim", no_wrap=True)
        for _ in range(3):
            grid.add_column(overflow="fold")
        for rewrite in explanation.rewrites:
            where = f"{printable(rewrite.graph)}: " if rewrite.graph else ""
            grid.add_row(
                str(rewrite.number),
                Text(where + printable(rewrite.node)),
                Text(printable(rewrite.op), style="cyan"),
                Text(printable(rewrite.detail)),
            )
        parts.append(Padding(grid, (0, 0, 0, 2)))
    for group in explanation.refusals:
        refused = Text(f"refused {group.count}: {group.reason}", style="yellow")
        parts.append(Padding(refused, (0, 0, 0, 2)))
        parts += [Padding(Text(node), (0, 0, 0, 4)) for node in group.nodes]
        if group.count > len(group.nodes):
            more = Text(f"and {group.count - len(group.nodes)} more", style="dim")
            parts.append(Padding(more, (0, 0, 0, 4)))
    return Group(*parts)
