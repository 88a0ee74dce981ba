"""The code cache: what is kept, what is not trusted, and what goes."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ort_optim.compiler import folder as folders
from ort_optim.compiler.build import BuildError, compile_all
from ort_optim.compiler.cache import SUFFIX, CodeCache, key
from ort_optim.compiler.cache_files import SPARED_SECONDS
from ort_optim.compiler.code import CodeFile
from tests.compiler.kernels import Broken, Deadly, Scale
from tests.kernels.harness import AVX2, AVX512
from tests.toolbox import environment


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "code"


def built(cache: CodeCache, factor: float = 2.0) -> CodeFile:
    kernel = Scale(factor)
    found = compile_all([kernel], AVX2, cache)[kernel]
    assert isinstance(found, CodeFile)
    return found


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_was_compiled_is_found_and_not_compiled_again(folder: Path) -> None:
    file = built(CodeCache(folder))
    written = file.path.stat().st_ino
    assert CodeCache(folder).find(Scale(2.0), AVX2) == file
    assert built(CodeCache(folder)) == file
    assert file.path.stat().st_ino == written


def test_function_begins_at_a_multiple_of_64_and_the_folder_is_private(folder: Path) -> None:
    file = built(CodeCache(folder))
    assert file.entry % 64 == 0
    assert 64 < file.entry < file.path.stat().st_size
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_key_depends_on_kernel_and_vector_unit() -> None:
    keys = {key(Scale(f), isa) for f in (1.0, 2.0) for isa in (AVX2, AVX512)}
    assert len(keys) == 4
    assert key(Scale(1.0), AVX2) in keys


@pytest.mark.parametrize("where", ["magic", "table", "code", "end"])
def test_damaged_file_is_compiled_again(folder: Path, where: str) -> None:
    cache = CodeCache(folder)
    file = built(cache)
    sound = file.path.read_bytes()
    place = {"magic": 0, "table": 66, "code": file.entry + 3, "end": len(sound) - 1}[where]
    damaged = bytearray(sound)
    damaged[place] ^= 0x10
    file.path.write_bytes(damaged)
    assert cache.find(Scale(2.0), AVX2) is None
    assert built(cache) == file
    assert file.path.read_bytes() == sound


@pytest.mark.parametrize("kept", [0, 10, 64, 100, -1])
def test_truncated_file_is_compiled_again(folder: Path, kept: int) -> None:
    cache = CodeCache(folder)
    file = built(cache)
    sound = file.path.read_bytes()
    file.path.write_bytes(sound[:kept])
    assert cache.find(Scale(2.0), AVX2) is None
    assert built(cache) == file
    assert file.path.read_bytes() == sound


def test_code_of_another_kernel_under_this_name_is_not_taken(folder: Path) -> None:
    cache = CodeCache(folder)
    other = Scale(2.0, name="other")
    compile_all([other], AVX2, cache)
    names = [key(kernel, AVX2) + SUFFIX for kernel in (other, Scale(2.0))]
    (folder / names[0]).rename(folder / names[1])
    assert cache.find(Scale(2.0), AVX2) is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_file_that_others_could_write_is_not_taken(folder: Path) -> None:
    cache = CodeCache(folder)
    file = built(cache)
    file.path.chmod(0o666)
    assert cache.find(Scale(2.0), AVX2) is None
    target = folder / "elsewhere"
    file.path.chmod(0o600)
    file.path.rename(target)
    file.path.symlink_to(target)
    assert cache.find(Scale(2.0), AVX2) is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_folder_that_others_could_change_is_not_used(folder: Path) -> None:
    open_to_all = folder.parent / "shared"
    open_to_all.mkdir()
    inside = open_to_all / "code"
    assert CodeCache(inside).folder == inside
    open_to_all.chmod(0o777)
    elsewhere = CodeCache(inside).folder
    assert elsewhere != inside
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    through_link = folder.parent / "link"
    through_link.symlink_to(inside)
    assert "others may write" in (folders.fault(through_link) or "")
    open_to_all.chmod(0o1777)  # sticky, as /tmp is: others can't replace what is ours
    assert CodeCache(inside).folder == inside
    assert folders.fault(through_link) is None


def test_folder_that_can_not_be_made_is_replaced(folder: Path) -> None:
    folder.write_text("a file is here")
    assert built(CodeCache(folder)).path.exists()


def test_least_recently_used_go_when_the_limit_is_passed(folder: Path) -> None:
    cache = CodeCache(folder)
    files = [built(cache, factor) for factor in (1.0, 2.0, 3.0, 4.0)]
    for file, hours in zip(files, (5, 9, 7, 0), strict=True):
        age(file.path, hours * SPARED_SECONDS)
    stale = folder / "left.tmp"
    stale.touch()
    age(stale, 2 * SPARED_SECONDS)
    assert cache.find(Scale(1.0), AVX2) is not None  # used again
    total = sum(file.path.stat().st_size for file in files)
    CodeCache(folder, limit_bytes=total - 1).trim()
    assert [file.path.exists() for file in files] == [True, False, True, True]
    assert not stale.exists()
    CodeCache(folder, limit_bytes=0).trim()
    assert [file.path.exists() for file in files] == [True, False, False, True]


def test_errors_are_values_and_the_others_are_built(folder: Path) -> None:
    cache = CodeCache(folder)
    found = compile_all([Broken(), Scale(1.0)], AVX2, cache)
    assert found[Broken()] == BuildError("broken", "RuntimeError: no such instruction")
    assert isinstance(found[Scale(1.0)], CodeFile)
    assert isinstance(compile_all([Broken()], AVX2, cache)[Broken()], BuildError)


def test_many_kernels_are_built_in_processes_that_may_die(folder: Path) -> None:
    cache = CodeCache(folder)
    kernels = [Scale(1.0), Deadly(0), Scale(2.0), Broken(), Scale(3.0), Deadly(1), Scale(1.0)]
    seen: list[tuple[int, int]] = []
    found = compile_all(kernels, AVX2, cache, progress=lambda *now: seen.append(now), workers=1)
    assert seen == [(i, 6) for i in range(7)]
    assert isinstance(found[Broken()], BuildError)
    for kernel in kernels:
        result = found[kernel]
        if isinstance(kernel, Scale):
            assert isinstance(result, CodeFile)
            assert cache.find(kernel, AVX2) == result
        elif isinstance(kernel, Deadly):
            assert isinstance(result, BuildError)
            assert "7" in result.reason


def test_without_a_compiler_what_is_cached_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CodeCache(folder)
    built(cache, 1.0)
    monkeypatch.setattr("ort_optim.compiler.build.has_compiler", lambda: False)
    found = compile_all([Scale(1.0), Scale(2.0)], AVX2, cache)
    assert isinstance(found[Scale(1.0)], CodeFile)
    assert found[Scale(2.0)] == BuildError("scale", "llvmlite is not installed")


def _build_some(name: str, start: int) -> int:
    cache = CodeCache(Path(name), limit_bytes=1)
    kernels = [Scale(float((start + i) % 4)) for i in range(4)]
    found = compile_all(kernels, AVX2, cache, workers=0)
    return sum(cache.find(k, AVX2) is not None and isinstance(found[k], CodeFile) for k in kernels)


def test_processes_that_fill_one_folder_at_once_all_succeed(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        counts = pool.starmap(_build_some, [(str(folder), i) for i in range(6)])
    assert counts == [4] * 6
    assert not list(folder.glob("*.tmp"))


def test_cached_code_is_found_without_importing_llvmlite(folder: Path) -> None:
    compile_all([Scale(1.0)], AVX2, CodeCache(folder))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ort_optim.compiler.build import compile_all\n"
        "from ort_optim.compiler.cache import CodeCache\n"
        "from ort_optim.hardware import load_target\n"
        "from ort_optim.kernels.isa import Isa\n"
        "from tests.compiler.kernels import Scale\n"
        "isa = Isa.of(load_target('x86-64-v3'))\n"
        f"found = compile_all([Scale(1.0)], isa, CodeCache(Path({str(folder)!r})))\n"
        "assert 'CodeFile' in repr(found), found\n"
        "assert not [name for name in sys.modules if name.startswith('llvmlite')]\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=60)
