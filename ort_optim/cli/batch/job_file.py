"""Job files as `batch` reads them: the options of each model are put to `optimize`'s own parser.

So there is one truth about what `optimize` takes, and a slip of the pen in the last of a thousand
jobs is found before the first one is started.
"""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ort_optim.cli.shape_argument import parse_shapes
from ort_optim.cluster.jobs import JobFile, read_jobs
from ort_optim.cluster.keeping.spec import option_arguments
from ort_optim.errors import InputError

OURS = {
    "help": "it would only print",
    "quiet": "`batch` gives it itself",
    "work": "`batch` gives each job its own folder",
    "target": "write `target:` beside `model:`",
}
"""Options that a job file may not give, and why."""


def load_jobs(path: Path) -> JobFile:
    """`read_jobs`, with the options of models checked. Raises InputError as that does."""
    return read_jobs(path, check_options)


def check_options(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The options as they go to `optimize` in any folder: files are taken from `folder` on.

    Raises InputError, which names the option, unless `optimize` takes these options.
    """
    if not options:
        return {}
    parser, actions = _parser()
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name in OURS:
            raise InputError(f"option {name} can't be given here: {OURS[name]}")
        action = actions.get(f"--{name}")
        if action is None:
            close = difflib.get_close_matches(name, [each[2:] for each in actions], n=1)
            hint = f"did you mean {close[0]}?" if close else "see `optimize --help`"
            raise InputError(f"`optimize` has no option {name}; {hint}")
        checked[name] = _checked(name, value, action, folder)
    args = parser.parse_args(["model", "output", *option_arguments(checked)])
    parse_shapes(args.shape)
    return checked


def _checked(name: str, value: Any, action: argparse.Action, folder: Path) -> Any:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InputError(f"option {name}: takes true or false, not {value!r}")
        return value
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not isinstance(action, argparse._AppendAction):
        raise InputError(f"option {name}: takes one value, not a list")
    for each in values:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise InputError(f"option {name}: takes a text or a number, not {each!r}")
    if action.type is Path:
        values = [str((folder / str(each)).absolute()) for each in values]
    return values if isinstance(value, list) else values[0]


@functools.cache
def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.Action]]:
    """The parser of `optimize`, and its long options."""
    from ort_optim.cli import optimize  # half a second, which jobs without options need not wait

    parser = _Parser(add_help=False, allow_abbrev=False)
    optimize.add_arguments(parser)
    return parser, {
        option: action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)
