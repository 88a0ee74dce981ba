"""What stays of a released job: an archive of bounded size, and a folder without its bulk."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ort_optim.cluster.keeping.work_folder import WorkFolder

FILE = "archive.tar.gz"
HEAD_BYTES = 1 << 20
TAIL_BYTES = 7 << 20
STEPS = ("steps.json", "failures.json", "smallest.onnx", "smallest.npz", "smallest.txt")
LARGEST_BYTES = 64 << 20
"""Of all members together; what does not fit is named in the archive's LEFT-OUT."""


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
                content = _content(member, cut=member in (folder.log, folder.keeper_log))
                if content is None or total + len(content) > LARGEST_BYTES:
                    left_out.append(name)
                    continue
                total += len(content)
                _add(archive, name, content, member.lstat().st_mtime)
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
        if place.is_symlink():
            place.unlink()
        else:
            shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):
        if folder.log.lstat().st_size > HEAD_BYTES + TAIL_BYTES:
            folder.log.unlink()


def _members(folder: WorkFolder) -> Iterator[Path]:
    for path in (folder.job, folder.state, folder.log, folder.keeper_log, folder.report):
        if path.exists():
            yield path
    yield from sorted(folder.patches.glob("*.json"))
    if not folder.steps.is_symlink() and not folder.work.is_symlink():
        yield from (path for name in STEPS if (path := folder.steps / name).exists())


def _content(path: Path, *, cut: bool) -> bytes | None:
    """Of a plain file all, or its two ends if it may be cut; None for others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        if facts.st_size <= HEAD_BYTES + TAIL_BYTES:
            return file.read(HEAD_BYTES + TAIL_BYTES)
        if not cut:
            return file.read() if facts.st_size <= LARGEST_BYTES else None
        head = file.read(HEAD_BYTES)
        file.seek(facts.st_size - TAIL_BYTES)
        skipped = facts.st_size - HEAD_BYTES - TAIL_BYTES
        return head + f"\n... {skipped} bytes left out ...\n".encode() + file.read(TAIL_BYTES)


def _add(archive: tarfile.TarFile, name: str, content: bytes, modified_s: float) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mtime = int(modified_s)
    member.mode = 0o600
    archive.addfile(member, io.BytesIO(content))
