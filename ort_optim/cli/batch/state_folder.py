"""Which batch a command means: `--state DIR`, or the one that was submitted last."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from ort_optim.cluster.jobs import JobFile
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.errors import InputError

SUFFIX = ".batch"


def add_state_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="folder of the journal and the jobs' folders; default: of the batch submitted last",
    )


def default_state(file: JobFile) -> Path:
    """In the folder that holds all outputs; beside the job file when nothing has an output."""
    outputs = [job.output.absolute().parent for job in file.jobs if job.output is not None]
    folder = Path(os.path.commonpath(outputs)) if outputs else file.path.absolute().parent
    return folder / f"{file.path.stem}{SUFFIX}"


def remember(state: Path) -> None:
    """Make it the one that commands mean when nothing is said."""
    note = _note()
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(state.absolute()), encoding="utf-8")


def open_journal(args: argparse.Namespace) -> Journal:
    """The journal a command means. Raises InputError: there is none, or a doubtful one."""
    if args.state is not None:
        return Journal.open(args.state)
    try:
        folder = Path(_note().read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            "nothing was submitted from here yet: say which batch with --state DIR"
        ) from None
    return Journal.open(folder)


def without_separator(words: Sequence[str]) -> list[str]:
    """What stands after `--`, however argparse left it."""
    return list(words[1:] if words[:1] == ["--"] else words)


def _note() -> Path:
    return platformdirs.user_state_path("ort_optim") / "last_batch"
