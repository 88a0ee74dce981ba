"""Reports into files: the format follows from the suffix, and the file is whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ort_optim.errors import InputError
from ort_optim.report.html import check_extra, to_html
from ort_optim.report.markdown import to_markdown
from ort_optim.report.model import Report

WRITERS: Mapping[str, Callable[[Report], str]] = {
    ".json": Report.to_json,
    ".md": to_markdown,
    ".html": to_html,
}


def check_report_path(path: Path) -> None:
    """Raise InputError, in one line, if `write_report` could not write there.

    Called before the work starts, so that an hour of optimizing does not end in a typing error.
    """
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"report '{path}': the name must end in {', '.join(WRITERS)}")
    if path.is_dir():
        raise InputError(f"report '{path}' is a folder: give a file name")
    if not path.parent.is_dir():
        raise InputError(f"report '{path}': folder '{path.parent}' does not exist: create it")
    if path.suffix.lower() == ".html":
        check_extra()


def write_report(report: Report, path: Path) -> None:
    """Write the report in the format of the suffix: .json, .md or .html.

    The file is replaced at once or stays as it was. Raises InputError, in one line, for another
    suffix, where the folder cannot be written to, or where the extra `report` is not installed.
    """
    check_report_path(path)
    text = WRITERS[path.suffix.lower()](report)
    # A lone surrogate becomes \\udcXX: in JSON the escape of that very character.
    _replace(path, text.encode("utf-8", "backslashreplace"))


def _replace(path: Path, content: bytes) -> None:
    target = path.resolve()
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(target))
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write report '{path}': {error.strerror or error}") from None


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those a new file would get."""
    with contextlib.suppress(OSError):
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
