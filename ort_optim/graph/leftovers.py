"""Names for what is being written, chosen so that the next run knows what a killed one left.

temporary_beside     a name for a file that will take the place of another
scratch_folder       a folder for files that live no longer than a run
remove_leftovers     removes what killed runs left beside a file; what is still being written

A name holds the process and the place where that number means something, for folders are shared
by containers and machines whose processes can't be seen. What they left is a leftover after a day.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

_OWNER = r"(?P<pid>\d+)-(?:(?P<place>[0-9a-f]{12})-)?"
_SCRATCH_PREFIX = "ort_optim-"
_CLOCK_SLACK_S = 2.0  # boot time, from which start times are reckoned, is known to the second
_FOREIGN_LIFETIME_S = 86400.0

_numbers = itertools.count()


@cache
def _place() -> str:
    """Names the machine and, on Linux, the namespace in which process numbers are counted."""
    namespace = ""
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:12]


def temporary_beside(path: Path) -> Path:
    """A new hidden name in the same folder, hence on the same file system."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_place()}-{next(_numbers)}.tmp")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone after the block, and those of killed runs with it."""
    root = Path(tempfile.gettempdir())
    for path in root.glob(f"{_SCRATCH_PREFIX}*"):
        match = re.match(_SCRATCH_PREFIX + _OWNER, path.name)
        if match and _is_abandoned(path, match):
            shutil.rmtree(path, ignore_errors=True)
    prefix = f"{_SCRATCH_PREFIX}{os.getpid()}-{_place()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


def remove_leftovers(path: Path) -> list[Path]:
    """Remove the temporary files for `path` and its data; those that are still being written."""
    pattern = rf"\.{re.escape(path.name)}(?:\.data)?\.{_OWNER}\d+\.tmp"
    living = []
    for each in path.parent.iterdir():
        match = re.fullmatch(pattern, each.name)
        if match and not _is_abandoned(each, match):
            living.append(each)
        elif match:
            with suppress(PermissionError):  # Windows: something still has it open
                each.unlink(missing_ok=True)
    return living


def _is_abandoned(path: Path, owner: re.Match[str]) -> bool:
    """Whether the process is gone, or is another one that got its number after `path` was made."""
    with suppress(FileNotFoundError, psutil.AccessDenied):
        changed = path.stat().st_mtime
        if owner["place"] not in (None, _place()):
            return changed < time.time() - _FOREIGN_LIFETIME_S
        try:
            started = psutil.Process(int(owner["pid"])).create_time()
        except psutil.NoSuchProcess:
            return True
        return changed < started - _CLOCK_SLACK_S
    return False
