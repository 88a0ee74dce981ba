"""Measured figures of this machine: taken once, kept in the user's cache folder.

measure               -> the target with its figures, from the cache or measured now
with_cached_figures   -> the target with its figures if the cache has them; never measures
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from .._version import __version__
from ..errors import InputError
from .serialization import MAX_BANDWIDTH_GBS, MAX_GFLOPS, MIN_FIGURE
from .target import NATIVE, Target

_TIMEOUT_SECONDS = 60
_QUIET_CPU_SHARE = 0.8  # of what the quota grants; less means that others took the CPU
_STALE_SECONDS = 3600
_MAX_CACHE_FILE_BYTES = 1 << 16

# STREAM's rule: arrays of at least four times the last-level caches.
_ARRAY_TO_CACHE = 4
_MIN_ARRAY_BYTES = 64 << 20
_MAX_ARRAY_BYTES = 1 << 30
_MEMORY_SHARE = 8  # an array takes at most this part of the usable memory, there are two

_ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "MKL", "OMP", "BLIS", "GOTO")
} | {"VECLIB_MAXIMUM_THREADS": "1"}

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_OPENBLAS_AVX512 = {"OPENBLAS_CORETYPE": "SkylakeX"}
"""OpenBLAS takes its kernels by the CPU's family, and those for AVX2 where it does not know that:
111 GFLOP/s on Zen 5, 207 with these, which run wherever there is AVX-512 as of 2017."""


@dataclass(frozen=True)
class Figures:
    """What is measured; the fields are those of `Target`."""

    peak_gflops: float
    core_bandwidth_gbs: float
    memory_bandwidth_gbs: float
    measured_at: str

    @staticmethod
    def parse(content: object) -> Figures:
        """Figures from parsed JSON. ValueError if one is missing or no machine could reach it."""
        if not isinstance(content, dict):
            raise ValueError("no object with figures")

        def figure(name: str, largest: float) -> float:
            value = content.get(name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"{name} is no number")
            if not MIN_FIGURE <= value <= largest:
                raise ValueError(f"{name} is no sensible figure")
            return float(value)

        return Figures(
            figure("peak_gflops", MAX_GFLOPS),
            figure("core_bandwidth_gbs", MAX_BANDWIDTH_GBS),
            figure("memory_bandwidth_gbs", MAX_BANDWIDTH_GBS),
            datetime.fromisoformat(str(content.get("measured_at"))).isoformat(timespec="seconds"),
        )

    def put_into(self, target: Target) -> Target:
        """`target` with these figures."""
        return replace(
            target,
            peak_gflops=self.peak_gflops,
            core_bandwidth_gbs=self.core_bandwidth_gbs,
            memory_bandwidth_gbs=self.memory_bandwidth_gbs,
            measured_at=self.measured_at,
        )


def measure(target: Target, *, refresh: bool = False, cache_dir: Path | None = None) -> Target:
    """`target` with measured peak GFLOP/s and bandwidth; about a second if not in the cache.

    Args:
        target: As `detect()` gives it.
        refresh: Measure even if the cache has the figures.
        cache_dir: Folder of the cache; the user's cache folder by default.

    A measurement that fails leaves the figures None; one on a busy machine, or with a cache that
    can't be written, is not cached. Each adds a warning.

    Raises:
        InputError: `target` is not this machine.
    """
    if target.name != NATIVE:
        raise InputError(
            f"target {target.name!r} is not this machine, so it can't be measured here"
        )
    if not refresh:
        cached = with_cached_figures(target, cache_dir=cache_dir)
        if cached.measured_at is not None:
            return cached
    try:
        figures, cpu_share = _run_benchmark(target)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())[:200]
        return _warned(target, f"peak and bandwidth could not be measured: {reason}")
    measured = figures.put_into(target)
    if cpu_share < _QUIET_CPU_SHARE * min(1.0, target.cpu_quota or 1.0):
        return _warned(
            measured, "other programs kept the CPU busy while measuring: low figures, not cached"
        )
    try:
        content = {"key": _key(target)} | asdict(figures)
        _write(_cache_file(target, cache_dir), json.dumps(content, indent=2))
    except OSError as error:
        return _warned(measured, f"the measured figures could not be cached: {error.strerror}")
    return measured


def with_cached_figures(target: Target, *, cache_dir: Path | None = None) -> Target:
    """`target` with the figures of an earlier `measure` on this machine; unchanged if the cache
    has none or is damaged, or if `target` is not this machine."""
    if target.name != NATIVE:
        return target
    try:
        with _cache_file(target, cache_dir).open("rb") as file:
            content = json.loads(file.read(_MAX_CACHE_FILE_BYTES))
        if not isinstance(content, dict) or content.get("key") != _key(target):
            return target
        return Figures.parse(content).put_into(target)
    except (OSError, ValueError, RecursionError):
        return target


def _run_benchmark(target: Target) -> tuple[Figures, float]:
    """The figures, and the share of a core the benchmark got, measured in a child process."""
    program = Path(__file__).with_name("benchmark.py")
    result = subprocess.run(
        [sys.executable, "-P", str(program), str(target.cores), str(array_bytes(target))],
        env=os.environ | _blas_kernels(target) | _ONE_THREAD,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode != 0:
        last = result.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"exit status {result.returncode}: {last[0]}")
    content = json.loads(result.stdout)
    if not isinstance(content, dict) or not isinstance(content.get("cpu_share"), float):
        raise ValueError("the benchmark printed no figures")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Figures.parse(content | {"measured_at": now}), content["cpu_share"]


def _blas_kernels(target: Target) -> dict[str, str]:
    """Variables of the environment that name the kernels for the target's vectors."""
    return _OPENBLAS_AVX512 if target.features >= _AVX512 else {}


def array_bytes(target: Target) -> int:
    """Size of each of the two arrays that are copied to measure the memory's bandwidth."""
    cache = target.last_level_cache
    in_caches = cache.size_bytes * -(-target.cores // cache.shared_by) if cache else 0
    wanted = min(max(_ARRAY_TO_CACHE * in_caches, _MIN_ARRAY_BYTES), _MAX_ARRAY_BYTES)
    memory = target.usable_memory_bytes
    return min(wanted, memory // _MEMORY_SHARE) if memory else wanted


def _key(target: Target) -> str:
    """What the figures depend on, readable in the cache file."""
    unit = f"{target.vector_bits} bit"
    kernels = _blas_kernels(target).values()
    parts = (target.model, target.arch, unit, f"{target.cores} cores", *kernels, __version__)
    return "; ".join(parts)


def _cache_file(target: Target, cache_dir: Path | None) -> Path:
    if cache_dir is None:
        import platformdirs

        cache_dir = Path(platformdirs.user_cache_dir("ort_optim", appauthor=False))
    digest = hashlib.sha256(_key(target).encode()).hexdigest()[:16]
    return cache_dir / f"hardware-{digest}.json"


def _write(path: Path, text: str) -> None:
    """Write `path` whole or not at all, and clear away what killed writers left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("hardware-*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
    handle, name = tempfile.mkstemp(prefix="hardware-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _warned(target: Target, message: str) -> Target:
    return replace(target, warnings=(*target.warnings, message))
