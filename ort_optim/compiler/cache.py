"""Compiled kernels and finished plans on disk: a second start of the same model compiles nothing.

CodeCache  the machine code of kernels
PlanCache  the plans of regions whose kernels are there

A file's name is the digest of all that its contents follow from: the kernel, the vector unit, the
versions of the compiler, and the source of the generator itself; for a plan the region, what is
known of its inputs, the machine, and the source of all that makes plans. Files are checked whenever
they are read; what is damaged is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ort_optim.compiler import plan_file
from ort_optim.compiler.cache_files import LIMIT_BYTES, CacheFiles
from ort_optim.compiler.code import FORMAT, CodeFile, digest_of, entry_of, pack
from ort_optim.compiler.image import Image
from ort_optim.compiler.plan import RegionPlan
from ort_optim.kernels.base import Kernel
from ort_optim.kernels.isa import Isa

SUFFIX = ".code"
PLAN_SUFFIX = ".plan"
_PACKAGE = Path(__file__).resolve().parents[1]


class CodeCache:
    """A folder of code files; see `CacheFiles` for its arguments."""

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.files = CacheFiles(folder, limit_bytes)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.files.folder

    def find(self, kernel: Kernel, isa: Isa) -> CodeFile | None:
        """The kernel's code, or None where there is none or the file is damaged."""
        name = key(kernel, isa) + SUFFIX
        contents = self.files.read(name)
        entry = None if contents is None else entry_of(contents, kernel.name)
        return None if entry is None else CodeFile(self.folder / name, entry)

    def store(self, kernel: Kernel, isa: Isa, image: Image) -> CodeFile:
        """Keep the kernel's code. Raises OSError where the folder can't be written to."""
        contents = pack(image)
        entry = entry_of(contents, kernel.name)
        if entry is None:
            raise ValueError(f"the code has no function {kernel.name}")
        return CodeFile(self.files.write(key(kernel, isa) + SUFFIX, contents), entry)

    def trim(self) -> None:
        """See `CacheFiles.trim`."""
        self.files.trim()


class PlanCache:
    """The plans of regions, beside the code that they name.

    Args:
        code: The cache of that code.
        machine: All facts of it that plans depend on, as text.
    """

    def __init__(self, code: CodeCache, machine: str) -> None:
        self._files = code.files
        self._machine = machine
        self._digest_of: dict[str, str | None] = {}  # regions share code

    def find(self, region: str) -> RegionPlan | None:
        """The plan of a region, if it and its code are there and sound.

        `region` is all that the plan follows from, besides the machine.
        """
        contents = self._files.read(self._name(region))
        found = None if contents is None else plan_file.unpack(contents, self._files.folder)
        if found is None:
            return None
        plan, digests = found
        return plan if self._digests(plan) == digests else None

    def store(self, region: str, plan: RegionPlan) -> None:
        """Keep the plan, where that is possible."""
        self._digest_of.clear()  # some of it may have been compiled since
        digests = self._digests(plan)
        if digests is not None:
            with contextlib.suppress(OSError):
                self._files.write(self._name(region), plan_file.pack(plan, digests))

    def _name(self, region: str) -> str:
        parts = (region, self._machine, _compiler(), _planner())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest() + PLAN_SUFFIX

    def _digests(self, plan: RegionPlan) -> list[str] | None:
        """Of each image of the plan; None where one is missing or damaged."""
        digests = []
        for path in plan.images:
            if self._digest_of.get(path.name) is None:
                contents = self._files.read(path.name)
                self._digest_of[path.name] = None if contents is None else digest_of(contents)
            digest = self._digest_of[path.name]
            if digest is None:
                return None
            digests.append(digest)
        return digests


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
    return f"{FORMAT} {_digest(files)}"


@cache
def _planner() -> str:
    """The digest of the source that makes plans, beside that of the code in them."""
    files = sorted((_PACKAGE / "compiler").rglob("*.py"))
    files += sorted((_PACKAGE / "graph" / "regions").rglob("*.py"))
    return f"{_generator()} {_digest([*files, _PACKAGE / 'runtime' / 'prepare.py'])}"


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
