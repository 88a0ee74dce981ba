"""`batch summary`: what the batch has gained."""

from __future__ import annotations

import argparse
from pathlib import Path

from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.cli.batch.tables import print_summary
from ort_optim.cluster.submitting.summary import rows_of, write_summary
from ort_optim.errors import InputError
from ort_optim.report.write import check_report_path

NAME = "summary"
HELP = "what the batch has gained: a row per model, as a table, Markdown or HTML"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_state_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        type=Path,
        metavar="PATH.md|.html",
        help="write it to a file; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    for path in args.output:
        check_summary_path(path)
    with open_journal(args) as journal:
        rows = rows_of(journal)
    for path in args.output:
        write_summary(rows, path)
    if not args.output:
        print_summary(rows)
    return 0


def check_summary_path(path: Path) -> None:
    """Raise InputError if no summary can be written there."""
    check_report_path(path)
    if path.suffix.lower() == ".json":
        raise InputError(f"summary '{path}': the name must end in .md or .html")
