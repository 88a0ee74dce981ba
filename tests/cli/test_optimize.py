"""`optimize` from the command line."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ort_optim import pipeline
from ort_optim.cli import main
from tests.passes.harness import model_of
from tests.toolbox import LastingEngine, environment, ops

TEXT = """g (float[N,4] "input:0") => (float[N,4] y)
{ i = Identity("input:0")\n a = Add(i, w)\n y = Relu(a) }""".replace('"input:0"', "x")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = model_of(TEXT, weights={"w": np.ones(4, np.float32)})
    model.graph.input[0].name = model.graph.node[0].input[0] = "input:0"
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


@pytest.fixture
def call(
    tmp_path: Path,
    source: Path,
    lasting_engine: LastingEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of `optimize in.onnx out.onnx --no-timing ...`."""

    def run(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)
        arguments = ["optimize", str(source), str(tmp_path / "out.onnx"), "--no-timing", *options]
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


Call = Callable[..., tuple[int, str, str]]


def test_the_table_tells_what_was_done(tmp_path: Path, call: Call) -> None:
    code, out, err = call()
    assert (code, err) == (0, "")
    assert "verified" in out
    assert "Nodes" in out
    assert "\x1b" not in out
    assert ops(tmp_path / "out.onnx") == ["Add", "Relu"]


def test_quiet_prints_nothing(call: Call) -> None:
    assert call("--quiet") == (0, "", "")


def test_explain_names_nodes(call: Call) -> None:
    _, out, _ = call("--explain")
    assert "identity" in out
    assert "it copies its input" in out


def test_reports_hold_what_was_asked_for(tmp_path: Path, call: Call) -> None:
    code, _, _ = call(
        *("--shape", "input:0:2x4", "--disable", "dead-code", "--rtol", "0.01", "--atol", "0.5"),
        *("--report", str(tmp_path / "r.json"), "--report", str(tmp_path / "r.md")),
    )
    assert code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["options"]["shapes"] == {"input:0": [2, 4]}
    assert report["options"]["disable"] == ["dead-code"]
    assert report["options"]["rtol"] == 0.01
    assert report["verification"]["shapes"][0] == {"input:0": [2, 4]}
    assert "| Nodes" in (tmp_path / "r.md").read_text()


def test_an_unverifiable_model(tmp_path: Path, source: Path, call: Call) -> None:
    model = onnx.load(source)
    model.graph.node[2].domain = "org.example"
    model.opset_import.add(domain="org.example", version=1)
    onnx.save(model, source)
    code, out, err = call()
    assert (code, err) == (0, "")
    assert "copied" in out
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()
    code, out, err = call("--unverified")
    assert (code, err) == (0, "")
    assert "without verification" in out
    (tmp_path / "out.onnx").unlink()
    code, out, err = call("--require-verify")
    assert code == 3
    assert out == ""
    assert err.count("\n") == 1
    assert "org.example" in err
    assert not (tmp_path / "out.onnx").exists()


def on_a_terminal(arguments: list[str]) -> tuple[int, str]:
    """Exit code and all output of a program whose stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm-256color", COLUMNS="100"),
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    return program.wait(60), seen.decode()


def test_a_progress_bar_is_drawn_on_a_terminal_only(tmp_path: Path, source: Path) -> None:
    command = [sys.executable, "-m", "ort_optim", "optimize", str(source), str(tmp_path / "o.onnx")]
    code, seen = on_a_terminal(command)
    assert code == 0
    assert "load" in seen
    assert "\x1b[?25l" in seen  # the cursor is hidden while the bar moves,
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # and shown again
    assert seen.index("Nodes") > seen.rindex("\x1b[?25h")
    code, seen = on_a_terminal([*command, "--quiet"])
    assert (code, seen) == (0, "")


def test_a_second_run_in_a_work_folder_says_what_it_took_over(tmp_path: Path, call: Call) -> None:
    work = str(tmp_path / "work")
    assert "taken over" not in call("--work", work)[1]
    out = (tmp_path / "out.onnx").read_bytes()
    code, told, err = call("--work", work, "--shape", "input:0:2x4")
    assert (code, err) == (0, "")
    assert "taken over" not in told
    assert call("--work", work, "--shape", "input:0:2x4")[1].count("inputs, rewrite") == 1
    call("--work", work)
    assert (tmp_path / "out.onnx").read_bytes() == out


def test_a_work_folder_that_can_not_be_is_one_line_and_out_stays(
    tmp_path: Path, source: Path, call: Call
) -> None:
    (tmp_path / "out.onnx").write_bytes(b"before")
    code, out, err = call("--work", str(source))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--work" in err
    assert (tmp_path / "out.onnx").read_bytes() == b"before"
