"""The README's commands and Python blocks are run as they stand, on one of the own models."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    stripped = [line.partition("#")[0].strip() for line in lines]
    return [line for line in stripped if line.startswith("python -m ort_optim")]


BATCH = [command for command in commands() if " batch " in command]
OTHERS = [command for command in commands() if " batch " not in command]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "models" / "shapes_mobilenet.onnx", folder / "in.onnx")
    shutil.copy(folder / "in.onnx", folder / "out.onnx")
    with np.load(ROOT / "models" / "shapes_mobilenet.eval.npz") as samples:
        np.savez(folder / "samples.npz", **{name: samples[name][:4] for name in samples})
    return folder


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", OTHERS)
def test_every_command_runs(command: str, place: Path) -> None:
    assert run(shlex.split(command)[1:], place).strip()


def test_the_batch_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    shutil.copytree(ROOT / "models", tmp_path / "models")
    text = next(block for block in blocks("yaml") if block.startswith("# jobs.yaml"))
    (tmp_path / "jobs.yaml").write_text(text)
    printed = [run(shlex.split(command)[1:], tmp_path) for command in BATCH]
    assert "3 done" in printed[1]
    assert "loops" in printed[2]
    assert (tmp_path / "converted" / "unet.onnx").is_file()
    assert "mobilenet" in (tmp_path / "gains.md").read_text()


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_runs(code: str, place: Path) -> None:
    assert run(["-c", code], place).strip()


def test_the_first_command_prints_the_table_shown(tmp_path: Path) -> None:
    shown = blocks("text")[0].splitlines()
    first = next(line for line in README.splitlines() if "pip install -e . &&" in line)
    arguments = shlex.split(first.partition("&& python ")[2])
    printed = run([*arguments[:-1], str(tmp_path / arguments[-1])], ROOT).splitlines()
    counts = [line.split()[:3] for line in shown if line.startswith("  ")]
    assert counts
    for row in counts:
        assert row in [line.split()[:3] for line in printed]


def test_the_passes_listed_are_those_that_run() -> None:
    from ort_optim.passes import PASSES

    listed = re.findall(r"^\| `([a-z-]+)` \|", README, re.MULTILINE)
    assert listed == [each.name for each in PASSES]
