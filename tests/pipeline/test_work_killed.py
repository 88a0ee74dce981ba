"""Killed at any instant and started again: the right result, and no finished step done twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from tests.pipeline.models import weighty
from tests.test_killed import KILLED_AT_STEP
from tests.toolbox import environment, run_program

STEPS = ("inputs", "rewrite")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    onnx.save(weighty(), tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_bytes(b"before")
    work = ["--work", str(tmp_path / "work"), "--report", str(tmp_path / "report.json")]
    return ["optimize", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--no-timing", *work]


@pytest.fixture
def wanted(tmp_path: Path) -> bytes:
    """OUT of a run without a work folder."""
    onnx.save(weighty(), tmp_path / "other.onnx")
    out = tmp_path / "wanted.onnx"
    assert run_program("optimize", tmp_path / "other.onnx", out, "--no-timing").returncode == 0
    return out.read_bytes()


def kept(folder: Path) -> set[str]:
    """The steps whose records are in place: each is written last of all that it needs."""
    return {step for step in STEPS if (folder / "work" / f"{step}.json").is_file()}


def taken_over(folder: Path) -> set[str]:
    return set(json.loads((folder / "report.json").read_text())["taken_over"])


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "work").iterdir() if path.name.endswith(".tmp")]


def test_before_each_rename_and_removal(
    tmp_path: Path, arguments: list[str], wanted: bytes
) -> None:
    out = tmp_path / "out.onnx"
    for step in range(30):
        before = kept(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", KILLED_AT_STEP, str(step), *arguments, "--quiet"],
            env=environment(),
            check=False,
            timeout=60,
        )
        assert out.read_bytes() in (b"before", wanted)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        assert kept(tmp_path) >= before
    assert 3 < step < 29
    assert out.read_bytes() == wanted
    assert before <= taken_over(tmp_path)
    assert {"inputs", "rewrite"} <= before
    assert leftovers(tmp_path) == []


def test_at_random_instants(tmp_path: Path, arguments: list[str], wanted: bytes) -> None:
    out, rng = tmp_path / "out.onnx", random.Random(0)
    longest_s = 0.5
    for _ in range(12):
        before = kept(tmp_path)
        process = subprocess.Popen(
            [sys.executable, "-m", "ort_optim", *arguments, "--quiet"], env=environment()
        )
        try:
            process.wait(rng.uniform(0.1, longest_s))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        longest_s += 0.2
        assert out.read_bytes() in (b"before", wanted)
        assert kept(tmp_path) >= before
    before = kept(tmp_path)
    assert run_program(*arguments).returncode == 0
    assert out.read_bytes() == wanted
    assert before <= taken_over(tmp_path)
    assert leftovers(tmp_path) == []


def test_a_run_shows_that_it_goes_on(tmp_path: Path, arguments: list[str]) -> None:
    assert run_program(*arguments).returncode == 0
    sign = tmp_path / "work" / "progress"
    first = sign.stat().st_mtime_ns
    time.sleep(0.02)
    done = run_program(*arguments)
    assert "inputs, rewrite" in done.stdout
    assert sign.stat().st_mtime_ns > first
