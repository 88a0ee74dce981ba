from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ort_optim.errors import InputError
from ort_optim.hardware import Cache, Target, load_target, measure, with_cached_figures
from ort_optim.hardware import benchmark as benchmark_program
from ort_optim.hardware.measurement import array_bytes

TARGET = Target("native", "x86_64", "x86_64-unknown-linux-gnu", model="CPU", cores=2)
PRINTED = {
    "peak_gflops": 100.0,
    "core_bandwidth_gbs": 20.0,
    "memory_bandwidth_gbs": 30.0,
    "cpu_share": 1.0,
}


@pytest.fixture
def benchmark_runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The real benchmark replaced by PRINTED; gives the command lines it was started with."""
    return fake_benchmark(monkeypatch, lambda: json.dumps(PRINTED))


def fake_benchmark(
    monkeypatch: pytest.MonkeyPatch, output: Callable[[], str], returncode: int = 0
) -> list[list[str]]:
    runs: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert options["env"]["OPENBLAS_NUM_THREADS"] == "1"
        runs.append(command)
        return subprocess.CompletedProcess(command, returncode, output().encode(), b"it broke\n")

    monkeypatch.setattr(subprocess, "run", run)
    return runs


def test_first_measure_measures_and_later_ones_read_the_cache(
    tmp_path: Path, benchmark_runs: list[list[str]]
) -> None:
    cache = tmp_path / "deep" / "cache"
    assert with_cached_figures(TARGET, cache_dir=cache) == TARGET
    first = measure(TARGET, cache_dir=cache)
    assert (first.peak_gflops, first.core_bandwidth_gbs, first.memory_bandwidth_gbs) == (
        100,
        20,
        30,
    )
    assert first.measured_at is not None
    assert first.warnings == ()
    assert measure(TARGET, cache_dir=cache) == first
    assert with_cached_figures(TARGET, cache_dir=cache) == first
    assert len(benchmark_runs) == 1
    measure(TARGET, refresh=True, cache_dir=cache)
    assert len(benchmark_runs) == 2
    assert [f.suffix for f in cache.iterdir()] == [".json"]


@pytest.mark.parametrize("change", [{"model": "Other"}, {"cores": 1}, {"vector_bits": 512}])
def test_another_machine_does_not_get_these_figures(
    tmp_path: Path, benchmark_runs: list[list[str]], change: dict[str, Any]
) -> None:
    measure(TARGET, cache_dir=tmp_path)
    other = replace(TARGET, **change)
    assert with_cached_figures(other, cache_dir=tmp_path) == other


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 60_000,
        lambda text: "\0\xff",
        lambda text: text.replace("100.0", "-100.0"),
        lambda text: text.replace("100.0", "NaN"),
        lambda text: text.replace("100.0", "null"),
        lambda text: text.replace("100.0", "true"),
        lambda text: text.replace("100.0", "9e99"),
        lambda text: text.replace("measured_at", "at"),
        lambda text: text.replace("CPU", "GPU"),
    ],
)
def test_damaged_cache_is_measured_again(
    tmp_path: Path, benchmark_runs: list[list[str]], damage: Callable[[str], str]
) -> None:
    measure(TARGET, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    good = file.read_text()
    assert damage(good) != good
    file.write_text(damage(good))
    assert with_cached_figures(TARGET, cache_dir=tmp_path) == TARGET
    assert measure(TARGET, cache_dir=tmp_path).peak_gflops == 100
    assert len(benchmark_runs) == 2
    assert measure(TARGET, cache_dir=tmp_path).peak_gflops == 100
    assert len(benchmark_runs) == 2


def test_leftovers_of_killed_writers_are_cleared(
    tmp_path: Path, benchmark_runs: list[list[str]]
) -> None:
    old, fresh = tmp_path / "hardware-a.tmp", tmp_path / "hardware-b.tmp"
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - 10_000,) * 2)
    measure(TARGET, cache_dir=tmp_path)
    assert not old.exists()
    assert fresh.exists()  # of a writer that may be at work


def test_unwritable_cache_is_a_warning(tmp_path: Path, benchmark_runs: list[list[str]]) -> None:
    (tmp_path / "file").touch()
    target = measure(TARGET, cache_dir=tmp_path / "file" / "cache")
    assert target.peak_gflops == 100
    assert len(target.warnings) == 1
    assert "cached" in target.warnings[0]


def test_failed_replacement_leaves_no_temporary_file(
    tmp_path: Path, benchmark_runs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    target = measure(TARGET, cache_dir=tmp_path)
    assert "No space left on device" in target.warnings[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "returncode"),
    [
        ("", 0),
        ("[]", 0),
        ("{}", 0),
        ("noise", 0),
        (json.dumps(PRINTED), 1),
        (json.dumps(PRINTED), -9),
        (json.dumps(PRINTED | {"peak_gflops": 0}), 0),
        (json.dumps(PRINTED | {"peak_gflops": 1e12}), 0),
    ],
)
def test_failed_measurement_is_a_warning_and_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, returncode: int
) -> None:
    fake_benchmark(monkeypatch, lambda: output, returncode)
    target = measure(TARGET, cache_dir=tmp_path)
    assert target.peak_gflops is None
    assert target.measured_at is None
    assert len(target.warnings) == 1
    assert "could not be measured" in target.warnings[0]
    assert list(tmp_path.iterdir()) == []


def test_hanging_benchmark_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    assert "timed out" in measure(TARGET, cache_dir=tmp_path).warnings[0]


def test_figures_of_a_busy_machine_are_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_benchmark(monkeypatch, lambda: json.dumps(PRINTED | {"cpu_share": 0.5}))
    target = measure(TARGET, cache_dir=tmp_path)
    assert target.peak_gflops == 100
    assert "busy" in target.warnings[0]
    assert list(tmp_path.iterdir()) == []
    # Half a CPU is all that this quota grants, so nobody else took the other half.
    assert measure(replace(TARGET, cpu_quota=0.5), cache_dir=tmp_path).warnings == ()


def test_played_machine_is_not_measured(tmp_path: Path) -> None:
    target = load_target("cortex-a53")
    with pytest.raises(InputError, match="cortex-a53"):
        measure(target, cache_dir=tmp_path)
    assert with_cached_figures(target, cache_dir=tmp_path) == target


@pytest.mark.parametrize(
    ("llc_bytes", "shared_by", "cores", "memory_bytes", "expected"),
    [
        (32 << 20, 2, 2, 16 << 30, 128 << 20),
        (32 << 20, 2, 4, 16 << 30, 256 << 20),  # two instances
        (1 << 20, 1, 1, None, 64 << 20),
        (512 << 20, 8, 8, None, 1 << 30),
        (32 << 20, 2, 2, 256 << 20, 32 << 20),  # an eighth of the memory
    ],
)
def test_copied_arrays_exceed_the_caches_but_not_the_memory(
    llc_bytes: int, shared_by: int, cores: int, memory_bytes: int | None, expected: int
) -> None:
    target = replace(
        TARGET,
        cores=cores,
        caches=(Cache(3, llc_bytes, shared_by=shared_by),),
        memory_limit_bytes=memory_bytes,
    )
    assert array_bytes(target) == expected


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("x86-64-v4", None, "SkylakeX"),
        ("x86-64-v4", "Haswell", "SkylakeX"),
        ("x86-64-v3", "Haswell", "Haswell"),
        ("x86-64-v3", None, None),
        ("apple-m1", None, None),
    ],
)
def test_matrix_products_use_the_vectors_there_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    own: str | None,
    expected: str | None,
) -> None:
    kernels: list[str | None] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        kernels.append(options["env"].get("OPENBLAS_CORETYPE"))
        return subprocess.CompletedProcess(command, 0, json.dumps(PRINTED).encode(), b"")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if own is not None:
        monkeypatch.setenv("OPENBLAS_CORETYPE", own)
    measure(replace(load_target(name), name="native"), cache_dir=tmp_path)
    assert kernels == [expected]


def test_the_benchmark_itself_prints_figures() -> None:
    program = str(Path(benchmark_program.__file__))
    result = subprocess.run(
        [sys.executable, "-P", program, "2", str(1 << 20)], capture_output=True, check=True
    )
    figures = json.loads(result.stdout)
    assert set(figures) == set(PRINTED)
    assert all(value > 0 for value in figures.values())
    assert figures["memory_bandwidth_gbs"] >= figures["core_bandwidth_gbs"]
