"""`batch restart JOB`: a held job starts again in its slot and folder, after its last step."""

from __future__ import annotations

import argparse

from ort_optim.cli.batch.asking import ask, owned
from ort_optim.cli.batch.patch_arguments import add_patch_arguments, patch_of
from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.errors import InputError

NAME = "restart"
HELP = "start a held job again where it is, patched or not; finished steps are not run again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB")
    add_patch_arguments(parser)
    parser.add_argument(
        "--continue",
        action="store_true",
        dest="thaw",
        help="let the processes of a frozen job go on, with their memory, instead",
    )
    add_state_argument(parser)


def run(args: argparse.Namespace) -> int:
    with open_journal(args) as journal:
        record = owned(journal, args.job)
        patch = patch_of(args, record)
    if not args.thaw:
        return ask(args, "restart", {"patch": patch.to_dict(), "start": record.starts})
    if patch:
        raise InputError("--continue goes on with what is in memory: it takes no patch")
    return ask(args, "continue")
