"""The folder of one job: what is in it, and how it is read and written without being led astray.

    job.json      what was asked for (spec.py)
    state.json    how it stands (state_file.py)
    log           output and errors of the child, one line in front of each start
    keeper.log    errors of the keeper itself; empty when all is well
    keeper.lock   locked for as long as the keeper lives
    progress      touched by a child that has no other sign of life
    report.json   of `optimize`
    patches/      what was changed before which start
    work/         where the child runs; `optimize` keeps its steps in work/steps

The job can write all of it, so no name in it is followed when it turns out to be a link.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ort_optim.errors import InputError

TAIL_BYTES = 64 << 10
LONGEST_DESTINATION = 1024
LARGEST_STEPS_BYTES = 1 << 20
STEPS_LOG = "steps.json"
"""In the folder that `optimize --work` got: the steps it has finished."""


class WorkFolder:
    """Names and safe access to the folder of a job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job = path / "job.json"
        self.state = path / "state.json"
        self.log = path / "log"
        self.keeper_log = path / "keeper.log"
        self.lock = path / "keeper.lock"
        self.progress = path / "progress"
        self.report = path / "report.json"
        self.patches = path / "patches"
        self.work = path / "work"
        self.steps = self.work / "steps"

    def make(self) -> None:
        """Make the folder, or check one that is there.

        Raises InputError: it is a link, somebody else's, or others can write it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.work, self.patches):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            check_ours(folder, folder.lstat(), stat.S_ISDIR)

    def is_gone(self) -> bool:
        """Whether the folder was removed; one that can't be reached now may come back."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def copy_in(self, destination: str, content: bytes, *, executable: bool = False) -> None:
        """Write a file into the work folder, whole or not at all.

        Raises InputError: the destination leaves the folder, goes through a link, or is a folder.
        """
        parts = self.check_destination(destination)
        with self._open_parent(destination, parts, make=True) as parent:
            mode = self._mode_of(destination, parts[-1], parent)
            if mode is None:
                mode = 0o755 if executable else 0o644
            temporary = f".{secrets.token_hex(8)}.patch"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            try:
                with os.fdopen(os.open(temporary, flags, mode, dir_fd=parent), "wb") as file:
                    file.write(content)
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
                # A rename replaces the name: what a hard link shares with the outside stays.
                os.rename(temporary, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise

    def check_destination(self, destination: str) -> tuple[str, ...]:
        """The parts of a path that stays in the work folder.

        Raises InputError: it leaves the folder, goes through a link, or is a folder.
        """
        parts = PurePosixPath(destination).parts
        if (
            not parts
            or destination.startswith("/")
            or ".." in parts
            or destination.endswith(("/", "/."))
            or not destination.isprintable()
            or "\\" in destination
            or len(os.fsencode(destination)) > LONGEST_DESTINATION
        ):
            raise InputError(
                f"{destination!r}: name a file inside the work folder, such as scripts/fix.py"
            )
        with (
            contextlib.suppress(FileNotFoundError),  # what is absent will be made, and is no link
            self._open_parent(destination, parts, make=False) as parent,
        ):
            self._mode_of(destination, parts[-1], parent)
        return parts

    def tail(self, lines: int) -> str:
        """The last lines of the log, at most 64 KiB of it."""
        try:
            with open_plain(self.log) as file:
                start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
                file.seek(start)
                text = file.read(TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""
        rows = text.splitlines()
        if start and len(rows) > 1:
            rows = rows[1:]  # most likely cut
        return "\n".join(rows[-lines:] if lines > 0 else [])

    def last_step(self) -> str:
        """The last step that `optimize --work` has finished; empty where none is known."""
        try:
            log = json.loads(read_ours(self.steps / STEPS_LOG, LARGEST_STEPS_BYTES))
            step = log["last_finished_step"]
        except (InputError, ValueError, LookupError, TypeError, RecursionError):
            return ""
        return step if isinstance(step, str) and step.isprintable() and len(step) < 100 else ""

    def signs_of_life(self) -> tuple[tuple[str, int, int], ...]:
        """(name, size, time in ns) of the files that change while the job gets on."""
        signs = []
        steps = (self.steps / STEPS_LOG, self.steps / "progress")
        for path in (self.log, self.progress, self.report, *steps):
            with contextlib.suppress(OSError):
                facts = path.lstat()
                signs.append((str(path), facts.st_size, facts.st_mtime_ns))
        return tuple(signs)

    @contextlib.contextmanager
    def _open_parent(
        self, destination: str, parts: tuple[str, ...], *, make: bool
    ) -> Iterator[int]:
        """A descriptor of the folder that holds the last part; no link is followed on the way."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            current = os.open(self.work, flags)
        except OSError as error:
            raise InputError(f"{self.work}: {error.strerror}: the job has no work folder") from None
        try:
            for part in parts[:-1]:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=current)
                try:
                    inner = os.open(part, flags, dir_fd=current)
                except FileNotFoundError:
                    raise
                except OSError:
                    raise InputError(
                        f"{destination!r}: {part!r} is a link or no folder: "
                        "name a file inside the work folder"
                    ) from None
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    @staticmethod
    def _mode_of(destination: str, name: str, parent: int) -> int | None:
        """Permissions of the file that is there already."""
        try:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{destination!r}: is there and no plain file: remove it first")
        return stat.S_IMODE(facts.st_mode) & 0o777


def check_ours(path: Path, facts: os.stat_result, kind: object) -> None:
    """Raise InputError unless it is of that kind, belongs to this user, and others can't write it.

    Args:
        facts: From lstat or fstat of `path`.
        kind: stat.S_ISDIR or stat.S_ISREG.
    """
    if not callable(kind) or not kind(facts.st_mode):
        raise InputError(f"{path}: not what was made there: refused")
    if facts.st_uid != os.geteuid():
        raise InputError(f"{path}: belongs to another user (uid {facts.st_uid}): refused")
    if facts.st_mode & 0o022:
        raise InputError(
            f"{path}: others can write it (mode {facts.st_mode & 0o777:o}): "
            f"check it, then `chmod go-w {path}`"
        )


def read_ours(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a plain file of this user that is no link.

    Raises InputError: it is absent, too large, or not to be trusted.
    """
    try:
        file = open_plain(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}: no job to be found there") from None
    with file:
        facts = os.fstat(file.fileno())
        check_ours(path, facts, stat.S_ISREG)
        if facts.st_size > limit_bytes:
            raise InputError(f"{path}: {facts.st_size} bytes, not what was written there: refused")
        return file.read(limit_bytes + 1)


def open_plain(path: Path) -> BinaryIO:
    """A plain file, to be read. Raises OSError: it is absent, a link, something else, or shut."""
    # Not to wait for a writer, where the job has put a pipe in its place.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def open_to_append(path: Path) -> BinaryIO:
    """A plain file of this user alone (mode 0600), written at its end. Raises OSError."""
    # Not to wait for a reader, where the job has put a pipe in its place.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file of this user alone (mode 0600), whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
