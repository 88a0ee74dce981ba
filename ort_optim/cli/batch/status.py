"""`batch status`: how the jobs stand."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter

from rich.console import Group
from rich.live import Live
from rich.text import Text

from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.cli.batch.tables import as_dict, status_table
from ort_optim.cli.tables import make_console
from ort_optim.cluster.states import OVER, State
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.report.console import show
from ort_optim.report.units import plural

NAME = "status"
HELP = "how the jobs stand: state, place, attempts, waiting time, last finished step, cause"

WATCH_EVERY_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_state_argument(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="until all jobs are over")
    how.add_argument("--json", action="store_true", help="print JSON, not a table")


def run(args: argparse.Namespace) -> int:
    with open_journal(args) as journal:
        if args.json:
            print(json.dumps(_as_json(journal), indent=1))
        elif args.watch:
            _watch(journal)
        else:
            show(make_console(), _shown(journal))
    return 0


def _as_json(journal: Journal) -> dict[str, object]:
    lease = journal.lease()
    return {
        "state": str(journal.folder.absolute()),
        "submitter": None if lease is None else {"pid": lease.pid, "host": lease.host},
        "jobs": [as_dict(record) for record in journal.records()],
    }


def _watch(journal: Journal) -> None:
    console = make_console()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while any(record.state not in OVER for record in journal.records()):
            if console.is_terminal:
                live.update(_shown(journal), refresh=True)
            time.sleep(WATCH_EVERY_S)
    show(console, _shown(journal))


def _shown(journal: Journal) -> Group:
    records = journal.records()
    counts = Counter(record.state for record in records)
    lease = journal.lease()
    told = ", ".join(f"{counts[state]} {state.lower()}" for state in State if counts[state])
    run_by = f"run by process {lease.pid} on {lease.host}" if lease else "no submitter runs"
    line = Text(f"{plural(len(records), 'job')}: {told or 'none yet'}; {run_by}; {journal.folder}")
    return Group(status_table(records), line)
