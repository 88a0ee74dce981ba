"""Compiled kernels on disk, so that a second start of the same model compiles nothing.

A file's name is the digest of all that its code follows from: the kernel, the vector unit, the
versions of the compiler, and the source of the generator itself. Files are written whole or not at
all, checked whenever they are read, and the least recently used go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import stat
import tempfile
import time
from functools import cache
from pathlib import Path

from ort_optim.compiler.code import FORMAT, CodeFile, entry_of, pack
from ort_optim.compiler.folder import private_folder
from ort_optim.compiler.image import Image
from ort_optim.kernels.base import Kernel
from ort_optim.kernels.isa import Isa

LIMIT_BYTES = 512 << 20
SPARED_SECONDS = 3600.0
"""What was used so recently is not removed: a session that is being made may be about to map it."""

SUFFIX = ".code"
_TEMPORARY = ".tmp"
_PACKAGE = Path(__file__).resolve().parents[1]


class CodeCache:
    """A folder of code files. Any number of threads and processes may use one folder at once."""

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = private_folder(_default_folder() if folder is None else folder)
        self.limit_bytes = limit_bytes

    def path(self, kernel: Kernel, isa: Isa) -> Path:
        """Where its code is, if it is there."""
        return self.folder / (key(kernel, isa) + SUFFIX)

    def find(self, kernel: Kernel, isa: Isa) -> CodeFile | None:
        """The kernel's code, or None where there is none or the file is damaged."""
        path = self.path(kernel, isa)
        contents = _read(path)
        entry = None if contents is None else entry_of(contents, kernel.name)
        if entry is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return CodeFile(path, entry)

    def store(self, kernel: Kernel, isa: Isa, image: Image) -> CodeFile:
        """Keep the kernel's code. Raises OSError where the folder can't be written to."""
        path, contents = self.path(kernel, isa), pack(image)
        entry = entry_of(contents, kernel.name)
        if entry is None:
            raise ValueError(f"the code has no function {kernel.name}")
        handle, name = tempfile.mkstemp(suffix=_TEMPORARY, dir=self.folder)  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(contents)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return CodeFile(path, entry)

    def trim(self) -> None:
        """Remove what was not used for longest until the rest is within the limit."""
        now, total = time.time(), 0
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                found = path.lstat()
                if path.suffix == SUFFIX:
                    files.append((found.st_mtime, found.st_size, path))
                    total += found.st_size
                elif path.suffix == _TEMPORARY and now - found.st_mtime > SPARED_SECONDS:
                    path.unlink()  # of a writer that was killed
        for used, size, path in sorted(files):
            if total <= self.limit_bytes or now - used < SPARED_SECONDS:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size


def _default_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("ort_optim", appauthor=False)) / "code"


def key(kernel: Kernel, isa: Isa) -> str:
    """The digest of all that the kernel's code follows from."""
    parts = (repr(kernel), repr(isa), _compiler(), _generator())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def has_compiler() -> bool:
    """Whether llvmlite is installed; it is not imported."""
    return importlib.util.find_spec("llvmlite") is not None


@cache
def _compiler() -> str:
    """The version of llvmlite, and its library's size, which differs with the LLVM built into it:
    the library would have to be loaded to tell its version."""
    spec = importlib.util.find_spec("llvmlite")
    if spec is None or spec.origin is None:
        return "none"
    libraries = sorted((Path(spec.origin).parent / "binding").glob("*llvmlite.*"))
    sizes = ",".join(f"{each.name}:{each.stat().st_size}" for each in libraries)
    return f"{importlib.metadata.version('llvmlite')} {sizes}"


@cache
def _generator() -> str:
    """The digest of the source that writes and compiles kernels."""
    files = sorted((_PACKAGE / "kernels").rglob("*.py"))
    files += [_PACKAGE / "compiler" / f"{name}.py" for name in ("llvm", "image", "code")]
    digest = hashlib.sha256(str(FORMAT).encode())
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    """The contents of a regular file that nobody else can have written, or None."""
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
