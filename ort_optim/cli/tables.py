"""Tables for commands: with lines and colours on a terminal, plain aligned text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ort_optim.report.units import printable


def make_console() -> Console:
    """A console on stdout, to be printed to by `report.console.show`."""
    return Console(highlight=False)


def make_table(console: Console, headings: Sequence[str], *, left: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `left` are flush left and may wrap."""
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_edge=False,
        header_style="dim",
    )
    for heading in headings:
        if heading in left:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def cell(text: str, style: str = "") -> Text:
    """A cell that shows `text` as it is, whatever markup or control characters it holds."""
    return Text(printable(text), style=style)


def figure(value: float | None, pattern: str = ".3g") -> str:
    """A number for a table; an empty cell for None."""
    return "" if value is None else format(value, pattern)
