"""`batch release JOB`: give up a held job, whose folder becomes an archive."""

from __future__ import annotations

import argparse

from ort_optim.cli.batch.asking import ask
from ort_optim.cli.batch.state_folder import add_state_argument

NAME = "release"
HELP = "give up a held job: its slot is free again, an archive of its folder is kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    add_state_argument(parser)


def run(args: argparse.Namespace) -> int:
    return ask(args, "release")
