"""`batch logs JOB`: what a job has printed."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from ort_optim.cli.argument_types import positive_int
from ort_optim.cli.batch.rank_argument import add_rank_argument, check_rank
from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.cluster.keeping.work_folder import open_plain
from ort_optim.cluster.ray.door import LOCAL
from ort_optim.cluster.states import OCCUPYING, OVER, Record
from ort_optim.cluster.submitting.gang import folder_of
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.errors import InputError

NAME = "logs"
HELP = "what a job has printed, in all its starts"

FOLLOW_EVERY_S = 0.2
LAST_BYTES = 64 << 20
"""The last lines are looked for in so much of the log."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("-f", "--follow", action="store_true", help="until the job is over")
    parser.add_argument("-n", "--lines", type=positive_int, metavar="N", help="the last lines only")
    add_rank_argument(parser, "0")
    add_state_argument(parser)


def run(args: argparse.Namespace) -> int:
    with open_journal(args) as journal:
        record = journal.record(args.job)
        rank = check_rank(record, args.rank or 0)
        path = folder_of(journal.folder, record.id, rank) / "log"
        if not path.is_file():
            return _from_elsewhere(journal, record, rank, args.lines or 1000)
        position = _print(path, 0) if args.lines is None else _print_last(path, args.lines)
        while args.follow:
            # Looked at first, so that what it printed last is printed.
            over = journal.record(args.job).state in OVER
            with contextlib.suppress(FileNotFoundError):  # released, and its log was large
                position = _print(path, position)
            if over:
                break
            time.sleep(FOLLOW_EVERY_S)
    return 0


def _print(path: Path, position: int) -> int:
    """Print the log from a position on, as it is; the position of its end."""
    with open_plain(path) as file:
        file.seek(position)
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return file.tell()


def _print_last(path: Path, lines: int) -> int:
    with open_plain(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LAST_BYTES))
        sys.stdout.buffer.writelines(collections.deque(file, maxlen=lines))
        sys.stdout.buffer.flush()
        return file.tell()


def _from_elsewhere(journal: Journal, record: Record, rank: int, lines: int) -> int:
    """The log of a job whose folder is on its server alone."""
    lease = journal.lease()
    if record.state not in OCCUPYING or lease is None or lease.address == LOCAL:
        raise InputError(f"{record.id} is {record.state}, and has no log here")
    from ort_optim.cluster.ray.ray_backend import RemoteJob

    remote = RemoteJob(lease.address, journal.folder, record.id, record.attempt, rank)
    try:
        print(remote.call("log", lines))
    finally:
        remote.close()
    return 0
