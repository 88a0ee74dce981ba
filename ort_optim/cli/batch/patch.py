"""`batch patch JOB`: change what the next start of a job uses."""

from __future__ import annotations

import argparse

from ort_optim.cli.batch.asking import ask, owned
from ort_optim.cli.batch.patch_arguments import add_patch_arguments, patch_of
from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.errors import InputError

NAME = "patch"
HELP = "change what the next start of a job uses: options, environment, files of its work folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    add_patch_arguments(parser)
    add_state_argument(parser)


def run(args: argparse.Namespace) -> int:
    with open_journal(args) as journal:
        patch = patch_of(args, owned(journal, args.job))
    if not patch:
        raise InputError("nothing to change: give --option, --file, --env or --model")
    return ask(args, "patch", {"patch": patch.to_dict()})
