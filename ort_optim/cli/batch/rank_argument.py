"""Which process of a job on several servers a command means: `--rank N`."""

from __future__ import annotations

import argparse

from ort_optim.cluster.states import Record
from ort_optim.cluster.submitting.gang import members_of
from ort_optim.errors import InputError


def add_rank_argument(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--rank",
        type=int,
        metavar="N",
        help=f"which process of a job on several servers, from 0; default: {default}",
    )


def processes_of(record: Record) -> int:
    """How many processes a job has, on as many servers; one where it has no slot yet."""
    return max(1, len(members_of(record.job, record.placements)))


def check_rank(record: Record, rank: int) -> int:
    """The rank. Raises InputError: the job has no such process."""
    count = processes_of(record)
    if not 0 <= rank < count:
        has = "one process, of rank 0" if count == 1 else f"processes of ranks 0 to {count - 1}"
        raise InputError(f"{record.id} has no process of rank {rank}: it has {has}")
    return rank
