"""`batch cancel JOB`: end a job, whatever it is doing."""

from __future__ import annotations

import argparse

from ort_optim.cli.batch.asking import ask
from ort_optim.cli.batch.state_folder import add_state_argument

NAME = "cancel"
HELP = "end a job, whatever it is doing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    add_state_argument(parser)


def run(args: argparse.Namespace) -> int:
    return ask(args, "cancel")
