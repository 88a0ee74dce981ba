"""`batch logs JOB`: what a job has printed."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ort_optim.cli.argument_types import positive_int
from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.cluster.ray.door import LOCAL
from ort_optim.cluster.states import OCCUPYING, OVER, Record
from ort_optim.cluster.submitting.gang import folder_of
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.errors import InputError

NAME = "logs"
HELP = "what a job has printed, in all its starts"

FOLLOW_EVERY_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("-f", "--follow", action="store_true", help="until the job is over")
    parser.add_argument("-n", "--lines", type=positive_int, metavar="N", help="the last lines only")
    add_state_argument(parser)


def run(args: argparse.Namespace) -> int:
    with open_journal(args) as journal:
        record = journal.record(args.job)
        path = folder_of(journal.folder, record.id, 0) / "log"
        if not path.is_file():
            return _from_elsewhere(journal, record, args.lines or 1000)
        position = _print_file(path, args.lines)
        while args.follow:
            # Looked at first, so that what it printed last is printed.
            over = journal.record(args.job).state in OVER
            position = _print_rest(path, position)
            if over:
                break
            time.sleep(FOLLOW_EVERY_S)
    return 0


def _print_file(path: Path, lines: int | None) -> int:
    content = path.read_bytes()
    shown = content if lines is None else b"".join(content.splitlines(keepends=True)[-lines:])
    _write(shown)
    return len(content)


def _print_rest(path: Path, position: int) -> int:
    with path.open("rb") as file:
        file.seek(position)
        content = file.read()
    _write(content)
    return position + len(content)


def _write(content: bytes) -> None:
    sys.stdout.write(content.decode(errors="replace"))
    sys.stdout.flush()


def _from_elsewhere(journal: Journal, record: Record, lines: int) -> int:
    """The log of a job whose folder is on its server alone."""
    lease = journal.lease()
    if record.state not in OCCUPYING or lease is None or lease.address == LOCAL:
        raise InputError(f"{record.id} is {record.state}, and has no log here")
    from ort_optim.cluster.ray.ray_backend import RemoteJob

    remote = RemoteJob(lease.address, journal.folder, record.id, record.attempt)
    try:
        print(remote.call("log", lines))
    finally:
        remote.close()
    return 0
