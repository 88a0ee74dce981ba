"""Small slices of the long checks: the ONNX backend suite, and damaged inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_script(script: Path, *arguments: str | Path) -> str:
    """The script's output; fails the test with it unless the exit code is 0."""
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_slice_of_the_onnx_suite_computes_the_same(scripts: Path, tmp_path: Path) -> None:
    out = run_script(scripts / "onnx_suite.py", "run", tmp_path, "--slice", "0/80")
    assert "same after optimize" in out


def test_damaged_files_end_in_one_line_or_a_good_model(scripts: Path, own_models: Path) -> None:
    out = run_script(scripts / "fuzz_inputs.py", own_models, "--count", "9")
    assert "9 mutants" in out
