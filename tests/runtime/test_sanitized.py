"""The native library under AddressSanitizer and UndefinedBehaviorSanitizer.

Leaks are judged by whether the library's own frames are in their stacks, so that what Python, NumPy
and ONNX Runtime keep for themselves does not matter.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toolbox import ROOT, environment

NATIVE = ROOT / "ort_optim" / "runtime" / "native"
FLAGS = (
    *("-std=c11", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    *("-fno-omit-frame-pointer", "-DORT_OPTIM_POISON"),
)
OPTIONS = (
    "detect_leaks=1:exitcode=99:allocator_may_return_null=1:max_allocation_size_mb=2048:"
    "detect_stack_use_after_return=1"
)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("needs gcc on Linux")
    path = tmp_path_factory.mktemp("sanitized") / "ort_optim_sanitized.so"
    sources = sorted(NATIVE.glob("*.c"))
    subprocess.run(["gcc", *FLAGS, *sources, "-o", path], check=True)
    return path


def run_sanitized(library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # the C++ library too: ASan looks for its `throw` before ONNX Runtime would load it
    preloaded = " ".join(map(_path_of, ("libasan.so", "libstdc++.so.6")))
    return subprocess.run(
        [sys.executable, "-m", "tests.runtime.with_library", str(library), *arguments],
        cwd=ROOT,
        env=environment(LD_PRELOAD=preloaded, ASAN_OPTIONS=OPTIONS, PYTHONMALLOC="malloc"),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _path_of(library: str) -> str:
    command = ["gcc", f"-print-file-name={library}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def own_leaks(report: str) -> list[str]:
    """The leaks that the library's own functions allocated."""
    sources = "|".join(re.escape(path.name) for path in NATIVE.glob("*.c"))
    leaks = (part for part in re.split(r"\n\s*\n", report) if "leak of" in part)
    return [leak for leak in leaks if re.search(rf"/({sources}):\d", leak)]


@pytest.mark.slow
def test_the_native_tests_are_clean(sanitized: Path) -> None:
    ran = run_sanitized(
        sanitized, "pytest", "tests/runtime", "-p", "no:cacheprovider",
        "-k", "(test_native or test_lifetimes or test_code_files) and not test_a_missing_library",
    )  # fmt: skip
    summary = ran.stdout.strip().splitlines()[-1]
    assert " passed" in summary, ran.stdout + ran.stderr
    assert " failed" not in summary, ran.stdout
    assert "ERROR: AddressSanitizer" not in ran.stderr, ran.stderr
    assert "runtime error" not in ran.stderr, ran.stderr
    assert not own_leaks(ran.stderr)


@pytest.mark.slow
def test_damaged_plans_are_clean(sanitized: Path) -> None:
    ran = run_sanitized(sanitized, "tests.runtime.mutate", "7", "4000")
    assert "refused" in ran.stdout, ran.stdout + ran.stderr
    assert "ERROR: AddressSanitizer" not in ran.stderr, ran.stderr
    assert "runtime error" not in ran.stderr, ran.stderr
    assert not own_leaks(ran.stderr)


@pytest.mark.slow
def test_a_leak_of_the_library_would_be_seen(sanitized: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ort_optim_sanitized.so"
    text = (NATIVE / "creation.c").read_text()
    assert "    free(k->dims);\n" in text
    source = tmp_path / "creation.c"
    source.write_text(text.replace("    free(k->dims);\n", ""))
    others = [path for path in sorted(NATIVE.glob("*.c")) if path.name != source.name]
    subprocess.run(["gcc", *FLAGS, f"-I{NATIVE}", source, *others, "-o", broken], check=True)
    ran = run_sanitized(broken, "tests.runtime.mutate", "7", "20")
    assert own_leaks(ran.stderr), ran.stderr[-3000:]
