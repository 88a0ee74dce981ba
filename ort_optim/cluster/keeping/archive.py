"""What stays of a released job: an archive of bounded size, and a folder without its bulk."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ort_optim.cluster.keeping.work_folder import WorkFolder, open_plain

FILE = "archive.tar.gz"
HEAD_BYTES = 1 << 20
TAIL_BYTES = 7 << 20
STEPS = ("steps.json", "failures.json", "smallest.onnx", "smallest.npz", "smallest.txt")
LARGEST_BYTES = 64 << 20
"""Of all members together; what does not fit is named in the archive's LEFT-OUT."""


def make_room(folder: WorkFolder) -> None:
    """Remove all from the work folder that no archive keeps: it may be what fills the disk."""
    for place, kept in ((folder.work, (folder.steps.name,)), (folder.steps, STEPS)):
        if _are_folders(folder.work, place):
            others = [word for name in kept for word in ("!", "-name", name)]
            depth = ["-mindepth", "1", "-maxdepth", "1"]
            _run("find", str(place), *depth, *others, "-exec", "rm", "-rf", "{}", "+")


def write_archive(folder: WorkFolder, path: Path) -> None:
    """Write log, state, spec, report, patches and the smallest failing model to a .tar.gz.

    It is written whole or not at all. Of a large log the first MiB and the last 7 MiB are kept.
    Links are not followed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    left_out: list[str] = []
    total = 0
    try:
        with (
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw,
            tarfile.open(fileobj=raw, mode="w:gz") as archive,
        ):
            for member in _members(folder):
                name = str(member.relative_to(folder.path))
                cut = member in (folder.log, folder.keeper_log)
                try:
                    content, modified_s = _content(member, LARGEST_BYTES - total, cut=cut)
                except (FileNotFoundError, NotADirectoryError):  # there is nothing of that name
                    continue
                except OSError:
                    left_out.append(name)
                    continue
                total += len(content)
                _add(archive, name, content, modified_s)
            if left_out:
                _add(archive, "LEFT-OUT", "\n".join(left_out).encode() + b"\n", 0)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_bulk(folder: WorkFolder) -> None:
    """Remove the work folder and the patches, and the log where it is large. Links stay unread."""
    for place in (folder.work, folder.patches):
        _remove(place)
    with contextlib.suppress(OSError):
        if folder.log.lstat().st_size > HEAD_BYTES + TAIL_BYTES:
            folder.log.unlink()


def _remove(place: Path) -> None:
    """Remove a folder or a link, however deep it is and whatever permissions the job took away.

    `shutil.rmtree` is at its end some hundred folders deep.
    """
    remove = ("rm", "-rf", str(place))
    shut = ("-type", "d", "!", "-perm", "-700")
    unlock = ("find", str(place), *shut, "-exec", "chmod", "u+rwx", "{}", ";")
    for command in (remove, unlock, remove):
        if os.path.lexists(place):
            _run(*command)


def _run(*command: str) -> None:
    """Run a program of the system that does what it can."""
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _members(folder: WorkFolder) -> Iterator[Path]:
    """What is kept, where it is there."""
    yield from (folder.job, folder.state, folder.log, folder.keeper_log, folder.report)
    if _are_folders(folder.patches):
        yield from sorted(folder.patches.glob("*.json"))
    if _are_folders(folder.work, folder.steps):
        yield from (folder.steps / name for name in STEPS)


def _are_folders(*places: Path) -> bool:
    """Whether they are there, are no links, and can be reached."""
    try:
        return all(stat.S_ISDIR(place.lstat().st_mode) for place in places)
    except OSError:
        return False


def _content(path: Path, limit_bytes: int, *, cut: bool) -> tuple[bytes, float]:
    """A plain file, or its two ends if it may be cut, and when it was changed, in seconds.

    Raises OSError: it is absent, no plain file, too large, or can't be read.
    """
    with open_plain(path) as file:
        facts = os.fstat(file.fileno())
        skipped = facts.st_size - HEAD_BYTES - TAIL_BYTES if cut else 0
        if facts.st_size - max(0, skipped) > limit_bytes:
            raise OSError("too large")
        if skipped <= 0:
            return file.read(), facts.st_mtime
        head = file.read(HEAD_BYTES)
        file.seek(skipped, os.SEEK_CUR)
        middle = f"\n... {skipped} bytes left out ...\n".encode()
        return head + middle + file.read(TAIL_BYTES), facts.st_mtime


def _add(archive: tarfile.TarFile, name: str, content: bytes, modified_s: float) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mtime = int(modified_s)
    member.mode = 0o600
    archive.addfile(member, io.BytesIO(content))
