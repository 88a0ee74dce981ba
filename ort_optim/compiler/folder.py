"""A folder that only its owner can have written, for code that will be run."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

LOGGER = logging.getLogger("ort_optim")
MOST_LINKS = 40


def private_folder(folder: Path) -> Path:
    """`folder`, made where it is missing; a temporary one where others could write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = fault(folder)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is None:
        return folder
    LOGGER.warning("compiled code is not kept in %s: %s", folder, reason)
    return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    held = tempfile.TemporaryDirectory(prefix="ort_optim-code-", ignore_cleanup_errors=True)
    _HELD.append(held)
    return Path(held.name)


_HELD: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that go when the process ends."""


def fault(folder: Path) -> str | None:
    """Why somebody else could change what is read from this folder, or None.

    Every folder on the way to it, and on the way to what a link on that way leads to, belongs to
    this user or to root, and others can't put other things into it or in its place. On Windows the
    profile's own access list says so.
    """
    if not hasattr(os, "geteuid"):
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return "it can't be written to"
    return _fault(folder.absolute(), MOST_LINKS)


def _fault(path: Path, links: int) -> str | None:
    for each in (*reversed(path.parents), path):
        found = each.lstat()
        if found.st_uid not in (0, os.geteuid()):
            return f"{each} belongs to another user"
        if stat.S_ISLNK(found.st_mode):
            if not links:
                return f"{each} leads through too many links"
            target = each.parent / each.readlink()
            if (reason := _fault(target, links - 1)) is not None:
                return reason
        elif found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            return f"others may write to {each}"
    return None
