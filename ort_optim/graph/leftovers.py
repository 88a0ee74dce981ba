"""Names for what is being written, chosen so that the next run knows what a killed one left.

temporary_beside     a name for a file that will take the place of another
scratch_folder       a folder for files that live no longer than a run
remove_leftovers     what killed runs left beside a file
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_SUFFIX = r"\.(?P<pid>\d+)-\d+\.tmp"  # process, and a number within it
_SCRATCH_PREFIX = "ort_optim-"
_CLOCK_SLACK_S = 2.0  # boot time, from which start times are reckoned, is known to the second

_numbers = itertools.count()


def temporary_beside(path: Path) -> Path:
    """A new hidden name in the same folder, hence on the same file system."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.tmp")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone after the block, and those of killed runs with it."""
    root = Path(tempfile.gettempdir())
    for path in root.glob(f"{_SCRATCH_PREFIX}*"):
        match = re.match(rf"{_SCRATCH_PREFIX}(?P<pid>\d+)-", path.name)
        if match and _is_abandoned(path, int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)
    prefix = f"{_SCRATCH_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files for `path`, and for its data, that no process is writing."""
    name = re.escape(path.name)
    for each in path.parent.iterdir():
        match = re.fullmatch(rf"\.{name}(?:\.data)?{_SUFFIX}", each.name)
        if match and _is_abandoned(each, int(match["pid"])):
            each.unlink(missing_ok=True)


def _is_abandoned(path: Path, pid: int) -> bool:
    """Whether the process is gone, or is another one that got its number after `path` was made."""
    with suppress(FileNotFoundError, psutil.AccessDenied):
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return True
        return path.stat().st_mtime < started - _CLOCK_SLACK_S
    return False
