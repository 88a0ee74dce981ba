"""Which batch a command means: `--state DIR`, or the one that was submitted last."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import platformdirs

from ort_optim.cluster.jobs import JobFile
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.journal_file import FILE
from ort_optim.errors import InputError

SUFFIX = ".batch"


def add_state_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="folder of the journal and the jobs' folders; default: of the batch submitted last",
    )


def state_of(file: JobFile) -> Path:
    """Where the file was submitted before, also if its outputs have moved since.

    Else in the folder that holds all outputs; beside the job file when nothing has an output, or
    nothing but the root of the file system holds them all.
    """
    before = _read(_note_of(file))
    if before is not None and (before / FILE).exists():
        return before
    outputs = [job.output.absolute().parent for job in file.jobs if job.output is not None]
    folder = Path(os.path.commonpath(outputs)) if outputs else Path("/")
    if folder == folder.parent:
        folder = file.path.absolute().parent
    return folder / f"{file.path.stem}{SUFFIX}"


def remember(state: Path, file: JobFile | None) -> None:
    """Make it the batch that commands mean when nothing is said, and the one of this file."""
    for note in (_last(), *([_note_of(file)] if file is not None else [])):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(state.absolute()), encoding="utf-8")


def open_journal(args: argparse.Namespace) -> Journal:
    """The journal a command means. Raises InputError: there is none, or a doubtful one."""
    if args.state is not None:
        return Journal.open(args.state)
    folder = _read(_last())
    if folder is None:
        raise InputError("nothing was submitted from here yet: say which batch with --state DIR")
    return Journal.open(folder)


def _last() -> Path:
    return platformdirs.user_state_path("ort_optim") / "last_batch"


def _note_of(file: JobFile) -> Path:
    digest = hashlib.sha256(os.fsencode(file.path.absolute())).hexdigest()
    return platformdirs.user_state_path("ort_optim") / "batches" / digest


def _read(note: Path) -> Path | None:
    try:
        return Path(note.read_text(encoding="utf-8"))
    except OSError:
        return None
