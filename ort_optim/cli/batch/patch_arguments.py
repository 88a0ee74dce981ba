"""`--option k=v`, `--file SRC:DST`, `--env K=V`: what the next start of a job uses."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from ort_optim.cli.batch.job_file import check_options
from ort_optim.cluster.keeping.status import Patch, PatchFile
from ort_optim.cluster.states import Record
from ort_optim.errors import InputError

LARGEST_FILE_BYTES = 256 << 20
"""It goes to the submitter in a row of the journal, which SQLite bounds at 1 GB."""


def add_patch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="K=V",
        help="an option of `optimize`; `K=` takes it away; may be given several times",
    )
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="SRC:DST",
        help="copy a file into the job's work folder; may be given several times",
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="K=V",
        help="an environment variable; `K=` takes it away; may be given several times",
    )
    parser.add_argument(
        "--model",
        default="",
        metavar="FILE",
        help="another model, such as a DST of --file",
    )


def patch_of(args: argparse.Namespace, record: Record) -> Patch:
    """The patch that the arguments ask for.

    Raises InputError: an option that `optimize` does not know, a file that can't be read or that
    would leave the work folder.
    """
    options = dict(_option(text) for text in args.option)
    if options and record.job.model is None:
        raise InputError(f"{record.id} runs a command: it has no options of `optimize`")
    given = {name: value for name, value in options.items() if value is not None}
    checked: dict[str, Any] = {**options, **check_options(given, Path.cwd())}
    return Patch(
        options=checked,
        env=dict(_variable(text) for text in args.env),
        model=args.model,
        files=tuple(_file(text) for text in args.file),
    )


def _option(text: str) -> tuple[str, Any]:
    name, value = _pair(text, "--option K=V")
    if not value:
        return name, None
    try:
        return name, json.loads(value)  # numbers, true and false, lists
    except ValueError:
        return name, value


def _variable(text: str) -> tuple[str, str | None]:
    name, value = _pair(text, "--env K=V")
    return name, value or None


def _pair(text: str, wanted: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"`{text}`: write {wanted}")
    return name, value


def _file(text: str) -> PatchFile:
    source, colon, destination = text.rpartition(":")
    if not colon or not source or not destination:
        raise InputError(f"`{text}`: write --file SRC:DST")
    inside = PurePosixPath(destination)
    if inside.is_absolute() or ".." in inside.parts:
        raise InputError(f"{destination}: leaves the work folder of the job: refused")
    try:
        size = Path(source).stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise InputError(
                f"{source}: {size >> 20} MiB, and a patch takes {LARGEST_FILE_BYTES >> 20}: use "
                f"`batch debug JOB -- sh -c 'cat > {destination}' < {source}`"
            )
        content = Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}") from None
    return PatchFile(destination, content, executable=os.access(source, os.X_OK))
