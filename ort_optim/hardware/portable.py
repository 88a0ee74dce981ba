"""macOS and Windows: what psutil, sysctl and NumPy's CPU detection tell."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from . import isa
from .files import Tree
from .target import Cache

Sysctl = Callable[[str], int | str | None]


def cpu_counts(tree: Tree) -> tuple[int, int]:
    """(usable logical CPUs, physical cores behind them), both at least 1."""
    import psutil

    try:
        total = psutil.cpu_count() or 1
        physical = psutil.cpu_count(logical=False) or total
        process = psutil.Process()
        logical = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else total
    except (OSError, RuntimeError, psutil.Error) as error:
        tree.warn(f"the CPUs can't be read ({error}), counted as one core")
        return 1, 1
    # With an affinity mask of single threads every CPU may be a core of its own; as many cores as
    # a mask of whole cores would hold is the smaller answer.
    threads_per_core = max(1, total // physical)
    return max(1, logical), max(1, min(physical, -(-logical // threads_per_core)))


def memory_bytes(tree: Tree) -> int | None:
    """Memory of the machine, or None, with a warning."""
    import psutil

    try:
        return int(psutil.virtual_memory().total)
    except (OSError, RuntimeError, psutil.Error) as error:
        tree.warn(f"the memory can't be read ({error}), counted as unknown")
        return None


def numpy_features(tree: Tree, arch: str) -> frozenset[str]:
    """ISA features by CPUID, as NumPy finds them when it picks its own kernels."""
    for package in ("numpy._core", "numpy.core"):  # NumPy 2, NumPy 1
        try:
            module = importlib.import_module(f"{package}._multiarray_umath")
            return isa.features_from_numpy(arch, module.__cpu_features__)
        except (ImportError, AttributeError):
            continue
    tree.warn("ISA features can't be read, only those every such CPU has are counted")
    return isa.baseline_features(arch)


def sysctl(name: str) -> int | str | None:
    """A macOS system value, or None if there is none of that name."""
    import ctypes

    call = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    size = ctypes.c_size_t(256)
    buffer = ctypes.create_string_buffer(256)
    if call is None or call(name.encode(), buffer, ctypes.byref(size), None, 0) != 0:
        return None
    raw = buffer.raw[: size.value]
    if len(raw) in (4, 8) and not name.endswith("_string"):
        return int.from_bytes(raw, "little", signed=True)
    return raw.rstrip(b"\0").decode("utf-8", errors="replace")


def darwin_caches(tree: Tree, read: Sysctl) -> tuple[Cache, ...]:
    """Data caches of the fastest kind of core: perflevel0 on Apple silicon, the only kind on
    Intel."""

    def number(*names: str) -> int:
        values = (read(name) for name in names)
        return next((v for v in values if isinstance(v, int) and v > 0), 0)

    line_bytes = number("hw.cachelinesize") or 64
    cores = number("hw.perflevel0.physicalcpu", "hw.physicalcpu") or 1
    threads_per_core = max(1, number("hw.logicalcpu") // (number("hw.physicalcpu") or 1))
    levels = (
        (1, number("hw.perflevel0.l1dcachesize", "hw.l1dcachesize"), 1),
        (
            2,
            number("hw.perflevel0.l2cachesize", "hw.l2cachesize"),
            max(1, number("hw.perflevel0.cpusperl2") // threads_per_core),
        ),
        (3, number("hw.l3cachesize"), cores),
    )
    caches = tuple(Cache(n, size, line_bytes, None, shared) for n, size, shared in levels if size)
    if not caches:
        tree.warn("cache sizes can't be read, counted as unknown")
    return caches


def darwin_performance_cores(read: Sysctl) -> int | None:
    """Cores of the fastest kind, or None on machines of one kind."""
    count = read("hw.perflevel0.physicalcpu")
    return count if isinstance(count, int) and count > 0 else None
