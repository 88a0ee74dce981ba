"""The files of a work folder: written whole or not at all, read only if nobody tampered with them.

WorkFolder      the folder;  `write`, `read` by name;  `put`, `get` by content
DamagedError    what was read is not what was written
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ort_optim.errors import InputError
from ort_optim.graph.leftovers import remove_leftovers, temporary_beside

PROGRESS = "progress"

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f-]+\.tmp")
_NAMED = re.compile(
    r"progress|(?:inputs|rewrite|time|tile|steps|failures)\.json|smallest\.(?:onnx|txt|npz)"
)
_CONTENT = re.compile(r"([0-9a-f]{64})\.(?:onnx|npz)")


class DamagedError(Exception):
    """A file of the folder is not what was written there; the message says in what way."""


class WorkFolder:
    """The folder `--work` names; it is made where it is missing.

    All files are the owner's alone. Raises InputError, one line, where the folder can't be written
    to, and where somebody else could change what is read from it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(path)
            for each in list(path.iterdir()):
                if match := _TEMPORARY.fullmatch(each.name):
                    remove_leftovers(path / match[1])
            _open_new(path / PROGRESS, exclusive=False)
        except FileExistsError:
            raise InputError(f"--work {path} is not a folder: name another one") from None
        except OSError as error:
            raise self._unwritable(error) from None

    def refuse(self, *paths: Path) -> None:
        """Raise InputError if one of a run's models is a file that the run may remove here."""
        folder = self.path.resolve()
        for path in (each.resolve() for each in paths):
            own = _NAMED.fullmatch(path.name) or _CONTENT.fullmatch(path.name)
            if own and path.parent == folder:
                raise InputError(f"{path} is a file of --work {self.path}: name another folder")

    def touch(self) -> None:
        """Show that the run goes on."""
        with suppress(OSError):  # the sign is not worth failing for
            os.utime(self.path / PROGRESS)

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place. Raises InputError where that can't be done, on a full disk, say."""
        temporary = temporary_beside(self.path / name)
        try:
            try:
                with os.fdopen(_open_new(temporary), "wb") as file:
                    file.write(content)
                temporary.replace(self.path / name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unwritable(error) from None

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none.

        Raises DamagedError for a link, a file of another user's, or one that others can change.
        """
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(self.path / name, flags | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedError(f"{name} can't be read: {error.strerror}") from None
        try:
            if fault := _distrust(os.fstat(handle)):
                raise DamagedError(f"{name} {fault}")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read()
        except OSError as error:
            raise DamagedError(f"{name} can't be read: {error.strerror}") from None
        finally:
            os.close(handle)

    def put(self, content: bytes, suffix: str) -> str:
        """Keep `content` under a name that follows from it, and return the name."""
        name = f"{hashlib.sha256(content).hexdigest()}{suffix}"
        with suppress(DamagedError):
            if self.read(name) == content:
                return name
        self.write(name, content)
        return name

    def get(self, name: object) -> bytes:
        """What `put` kept. Raises DamagedError if it is missing or not what its name says."""
        match = _CONTENT.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise DamagedError("a file is named that can't be one of its own")
        content = self.read(match[0])
        if content is None:
            raise DamagedError(f"{match[0]} is missing")
        if hashlib.sha256(content).hexdigest() != match[1]:
            raise DamagedError(f"{match[0]} is not what was written there")
        return content

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        with suppress(OSError):
            (self.path / name).unlink()

    def forget_all_but(self, names: Collection[str]) -> None:
        """Remove what `put` kept, but for the files `names`."""
        with suppress(OSError):
            for each in list(self.path.iterdir()):
                if _CONTENT.fullmatch(each.name) and each.name not in names:
                    self.remove(each.name)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"--work {self.path} can't be written to: {error.strerror or error}")


def _check_owner(path: Path) -> None:
    """Raise InputError where another user can change what is in the folder."""
    found = path.stat()
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid():
        raise InputError(f"--work {path} belongs to another user: name a folder of your own")
    if found.st_mode & 0o022:
        raise InputError(f"others may write to --work {path}: `chmod go-w` it first")


def _distrust(found: os.stat_result) -> str | None:
    """Why a file may hold what this user did not write; None if it can't."""
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return "belongs to another user"
    if os.name == "posix" and found.st_mode & 0o022:
        return "can be changed by others"
    return None


def _open_new(path: Path, *, exclusive: bool = True) -> int:
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags | (os.O_EXCL if exclusive else 0), 0o600)
