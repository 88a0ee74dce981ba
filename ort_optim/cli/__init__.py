"""The command line: one file per command, one line per command in `COMMANDS`.

A command module has NAME, HELP, add_arguments(parser) and run(args) -> exit code. NAME and HELP
stand in `COMMANDS` too, so that nothing need be imported to list them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ort_optim._version import __version__
from ort_optim.errors import InputError, OrtOptimError

COMMANDS = {
    "optimize": "optimize a model, verify that its outputs agree, and report what was done",
    "inspect": "print what is in a model: inputs, layers, shapes, multiply-accumulates, weights",
    "compare": "compare the outputs of two models; exit code 3 when they differ",
    "bench": "time models side by side, as ONNX Runtime runs them with and without our library",
    "probe": "print the hardware facts",
    "inline": (
        "write the plain model: calls of ort_optim's functions become the nodes they stand for"
    ),
    "batch": "convert many models on a cluster; hold, debug and restart what fails",
}

FAULT_OF_OURS = 1


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of this program are."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; errors become one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OrtOptimError as error:
        if "--debug" in arguments:
            raise
        print(f"ort_optim: {_one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ort_optim: interrupted", file=sys.stderr)
        return 130
    except (MemoryError, OSError) as error:  # what the machine lacks, not what we did wrong
        if "--debug" in arguments:
            raise
        reason = str(error) if isinstance(error, OSError) else "not enough memory"
        print(f"ort_optim: {_one_line(reason)}", file=sys.stderr)
        return InputError.exit_code
    except Exception as error:
        if "--debug" in arguments:
            raise
        print(
            f"ort_optim: internal error: {type(error).__name__}: {_one_line(str(error))} "
            "(--debug shows the traceback)",
            file=sys.stderr,
        )
        return FAULT_OF_OURS


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m ort_optim",
        description="Optimize ONNX models for ONNX Runtime, and prove that the outputs agree.",
    )
    parser.add_argument("--version", action="version", version=f"ort_optim {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, told in COMMANDS.items():
        sub = commands.add_parser(name, help=told, description=told)
        if name not in arguments:
            continue
        # Only the command that is called is imported: each brings libraries that take time to load.
        command = importlib.import_module(f"ort_optim.cli.{name}")
        command.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show a traceback on errors")
        sub.set_defaults(run=command.run)
    return parser.parse_args(arguments)


def _one_line(text: str) -> str:
    return " ".join(text.split())
