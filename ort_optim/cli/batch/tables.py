"""Tables of jobs, as `status` and the end of `submit` print them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ort_optim.cli.batch.progress import STYLES, place
from ort_optim.cli.tables import cell, make_console, make_table
from ort_optim.cluster.states import OVER, Record
from ort_optim.cluster.submitting.summary import HEADINGS, Row, headline, seconds_text
from ort_optim.report.console import show

LEFT = ("job", "state", "server", "place", "note", "step")
COLUMNS = ("job", "state", "place", "attempt", "start", "waited", "for", "step", "note")


def print_summary(rows: Sequence[Row]) -> None:
    """A row per job with its gain, and a line with the counts."""
    console = make_console()
    table = make_table(console, HEADINGS, left=LEFT)
    for row in rows:
        name, state, *others = row.cells()
        table.add_row(cell(name), cell(state, STYLES.get(row.record.state, "")), *map(cell, others))
    show(console, table)
    show(console, Text(headline(rows)))


def status_table(records: Sequence[Record]) -> Table:
    """A row per job: where it is, since when, why."""
    now_s = time.time()
    table = make_table(make_console(), COLUMNS, left=LEFT)
    for record in records:
        table.add_row(
            cell(record.id),
            cell(str(record.state), STYLES.get(record.state, "")),
            cell(place(record)),
            cell(str(record.attempt or "")),
            cell(str(record.starts or "")),
            cell(seconds_text(record.waited_s(now_s))),
            cell("" if record.state in OVER else seconds_text(max(0.0, now_s - record.since_s))),
            cell(record.last_step),
            cell(record.cause or record.note),
        )
    return table


def as_dict(record: Record) -> dict[str, Any]:
    """A job as `status --json` tells it."""
    return {
        "job": record.id,
        "owner": record.owner,
        "state": record.state,
        "cause": record.cause,
        "note": record.note,
        "attempt": record.attempt,
        "start": record.starts,
        "placements": [
            {
                "server": placement.server,
                "milli_cpus": placement.milli_cpus,
                "memory": placement.memory,
                "devices": [list(device) for device in placement.devices],
            }
            for placement in record.placements
        ],
        "since_s": record.since_s,
        "wait_s": record.wait_s,
        "started_s": record.started_s,
        "ended_s": record.ended_s,
        "last_step": record.last_step,
        "container": record.container,
    }
