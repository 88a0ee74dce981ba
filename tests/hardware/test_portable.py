"""macOS and Windows, played: the system's name and its calls are replaced."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from ort_optim.hardware import Cache, detect, portable
from ort_optim.hardware.files import Tree

M1 = {
    "hw.perflevel0.physicalcpu": 4,
    "hw.physicalcpu": 8,
    "hw.logicalcpu": 8,
    "hw.cachelinesize": 128,
    "hw.l1dcachesize": 65536,
    "hw.l2cachesize": 4194304,
    "hw.perflevel0.l1dcachesize": 131072,
    "hw.perflevel0.l2cachesize": 12582912,
    "hw.perflevel0.cpusperl2": 4,
    "machdep.cpu.brand_string": "Apple M1",
}
INTEL_MAC = {
    "hw.physicalcpu": 4,
    "hw.logicalcpu": 8,
    "hw.cachelinesize": 64,
    "hw.l1dcachesize": 32768,
    "hw.l2cachesize": 262144,
    "hw.l3cachesize": 8388608,
    "machdep.cpu.brand_string": "Intel(R) Core(TM) i7",
}
M1_CACHES = (Cache(1, 131072, 128), Cache(2, 12582912, 128, None, 4))


def play(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_apple_caches_are_those_of_the_performance_cores(tmp_path: Path) -> None:
    assert portable.darwin_caches(Tree(tmp_path), M1.get) == M1_CACHES


def test_intel_mac_caches(tmp_path: Path) -> None:
    assert portable.darwin_caches(Tree(tmp_path), INTEL_MAC.get) == (
        Cache(1, 32768),
        Cache(2, 262144),
        Cache(3, 8388608, shared_by=4),
    )


def test_silent_sysctl_is_a_warning(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert portable.darwin_caches(tree, lambda name: None) == ()
    assert "cache sizes" in tree.warnings[0]


def test_apple_silicon_counts_as_an_m1(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, "Darwin", "arm64")
    monkeypatch.setattr(portable, "sysctl", M1.get)
    monkeypatch.setattr(portable, "cpu_counts", lambda tree: (8, 8))
    target = detect()
    assert (target.arch, target.triple) == ("aarch64", "arm64-apple-macosx")
    assert (target.llvm_cpu, target.model) == ("apple-m1", "Apple M1")
    assert {"dotprod", "fullfp16"} <= target.features
    assert (target.cores, target.physical_cores) == (4, 8)
    assert target.caches == M1_CACHES


def test_windows_takes_what_psutil_and_numpy_know(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, "Windows", "AMD64")
    native = detect()
    assert (native.arch, native.triple) == ("x86_64", "x86_64-pc-windows-msvc")
    assert native.cores >= 1
    assert native.memory_bytes is not None
    assert native.caches == ()
    assert native.gpus == ()
    assert any("cache sizes are not read on Windows" in w for w in native.warnings)


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64",
    reason="compares NumPy's detection with Linux's",
)
def test_numpy_and_linux_agree_on_the_vector_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = detect()
    play(monkeypatch, "Windows", "AMD64")
    other = detect()
    assert (other.vector_bits, other.vector_registers, other.fma) == (
        linux.vector_bits,
        linux.vector_registers,
        linux.fma,
    )
    assert other.llvm_cpu == linux.llvm_cpu
    assert other.features <= linux.features


def test_unknown_numpy_leaves_the_baseline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "numpy._core._multiarray_umath", None)
    monkeypatch.setitem(sys.modules, "numpy.core._multiarray_umath", None)
    tree = Tree(tmp_path)
    assert portable.numpy_features(tree, "x86_64") == {"sse", "sse2"}
    assert len(tree.warnings) == 1


def test_a_system_psutil_can_not_read_is_one_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import psutil

    def fail(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "cpu_count", fail)
    monkeypatch.setattr(psutil, "virtual_memory", fail)
    tree = Tree(tmp_path)
    assert portable.cpu_counts(tree) == (1, 1)
    assert portable.memory_bytes(tree) is None
    assert len(tree.warnings) == 2
