"""`batch`: many jobs placed on a cluster; one file per sub-command, one line each in `COMMANDS`.

A sub-command module has NAME, HELP, add_arguments(parser) and run(args) -> exit code, as the
commands of `ort_optim.cli` have; with TAKES_WORDS, `args.words` is what stands behind `--`. Ray and
PyYAML are imported by the sub-commands that need them.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

from ort_optim.errors import InputError

NAME = "batch"
HELP = "convert many models on a cluster; hold, debug and restart what fails"

COMMANDS = {
    "plan": "place the jobs of a file on the servers of another, without running anything",
    "submit": "run the jobs of a file on Ray: on this machine, or on a cluster; goes on where it "
    "stopped",
    "status": "how the jobs stand: state, place, attempts, waiting time, last finished step, cause",
    "logs": "what a job has printed, in all its starts",
    "summary": "what the batch has gained: a row per model, as a table, Markdown or HTML",
    "debug": "a shell, or one command, in the folder, environment and container of a job",
    "patch": "change what the next start of a job uses: options, environment, files of its work "
    "folder",
    "restart": "start a held job again where it is, patched or not; finished steps are not run "
    "again",
    "release": "give up a held job: its slot is free again, an archive of its folder is kept",
    "cancel": "end a job, whatever it is doing",
}


class LazyParser(argparse.ArgumentParser):
    """The parser of one sub-command, whose module is imported when it is the one called."""

    command: str | None = None
    takes_words = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.command is not None:
            module: Any = importlib.import_module(f"{__name__}.{self.command}")
            self.command = None
            module.add_arguments(self)
            self.add_argument("--debug", action="store_true", help="show a traceback on errors")
            self.set_defaults(batch_run=module.run)
            self.takes_words = getattr(module, "TAKES_WORDS", False)
        words: list[str] = []
        if self.takes_words and args is not None and "--" in args:
            cut = list(args).index("--")
            args, words = args[:cut], list(args[cut + 1 :])
        found, unknown = super().parse_known_args(args, namespace)
        if self.takes_words:
            found.words = words
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=LazyParser)
    for name, told in COMMANDS.items():
        commands.add_parser(name, help=told, description=told).command = name


def run(args: argparse.Namespace) -> int:
    code: int = args.batch_run(args)
    return code
