"""The files of a cache: only this user can have written them, whole or not at all.

The least recently used go when there are too many.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path

import platformdirs

from ort_optim.compiler.folder import private_folder

LIMIT_BYTES = 512 << 20
SPARED_SECONDS = 3600.0
"""What was used so recently is not removed: a session that is being made may be about to map it."""

_TEMPORARY = ".tmp"


class CacheFiles:
    """A folder of files. Any number of threads and processes may use one folder at once.

    Args:
        folder: Where; by default the user's folder for such things. Another one is taken where
            others could write to it, or nobody can.
        limit_bytes: Of all files together, after `trim`.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = private_folder(_default_folder() if folder is None else folder)
        self.limit_bytes = limit_bytes

    def read(self, name: str) -> bytes | None:
        """The contents, or None where there is no such file that nobody else can have written."""
        path = self.folder / name
        contents = _read(path)
        if contents is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return contents

    def write(self, name: str, contents: bytes) -> Path:
        """Keep a file. Raises OSError where the folder can't be written to."""
        path = self.folder / name
        handle, temporary_name = tempfile.mkstemp(suffix=_TEMPORARY, dir=self.folder)  # mode 0600
        temporary = Path(temporary_name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(contents)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path

    def trim(self) -> None:
        """Remove what was not used for longest until the rest is within the limit."""
        now, total = time.time(), 0
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                found = path.lstat()
                if path.suffix != _TEMPORARY:
                    files.append((found.st_mtime, found.st_size, path))
                    total += found.st_size
                elif now - found.st_mtime > SPARED_SECONDS:
                    path.unlink()  # of a writer that was killed
        for used, size, path in sorted(files):
            if total <= self.limit_bytes or now - used < SPARED_SECONDS:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _default_folder() -> Path:
    return Path(platformdirs.user_cache_dir("ort_optim", appauthor=False)) / "code"


def _read(path: Path) -> bytes | None:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            return None
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
            return None
        try:
            return file.read()
        except OSError:
            return None
