"""What all commands have in common: errors in one line, exit codes, help, quiet pipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from ort_optim import cli
from ort_optim.cli import main
from ort_optim.errors import BudgetError, InputError, VerificationError
from tests.passes.harness import model_of
from tests.toolbox import environment, run_program


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"\n    {name} " in told


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--debug" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ort_optim {cli.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("no\nsuch file"), 2, "ort_optim: no such file\n"),
        (VerificationError("they differ"), 3, "ort_optim: they differ\n"),
        (BudgetError("too long"), 4, "ort_optim: too long\n"),
        (
            KeyError("x"),
            1,
            "ort_optim: internal error: KeyError: 'x' (--debug shows the traceback)\n",
        ),
        (KeyboardInterrupt(), 130, "ort_optim: interrupted\n"),
        (MemoryError(), 2, "ort_optim: not enough memory\n"),
        (
            OSError(28, "No space left on device"),
            2,
            "ort_optim: [Errno 28] No space left on device\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    told: str,
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ort_optim.cli.optimize.optimize", failing)
    assert main(["optimize", "a", "b"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", told)
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            main(["optimize", "a", "b", "--debug"])


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    onnx.save(model_of("g (float[4] x) => (float[4] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    program = subprocess.Popen(
        [sys.executable, "-m", "ort_optim", "inspect", tmp_path / "m.onnx"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait(60) == 0


def test_a_terminal_that_knows_only_ascii_is_no_error(tmp_path: Path) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { i = Identity(x)\n y = Relu(i) }")
    model.graph.name = "größe"
    path = tmp_path / "grösse.onnx"
    onnx.save(model, path)
    done = subprocess.run(
        [sys.executable, "-m", "ort_optim", "optimize", path, path, "--no-timing", "--explain"],
        env=environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Nodes" in done.stdout


def test_the_program_is_a_module() -> None:
    done = run_program("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("ort_optim ")
