from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import ort_optim
from ort_optim.cli import main
from tests.toolbox import ROOT
from tests.verify.models import chain, parse


def save(folder: Path, name: str, model: ModelProto) -> str:
    path = folder / name
    onnx.save(model, path)
    return str(path)


FEW = ["--runs", "5", "--seconds", "5", "--threads", "1"]


def test_one_model_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", save(tmp_path, "a.onnx", chain()), *FEW]) == 0
    out = capsys.readouterr().out
    assert "median ms" in out
    assert "5 interleaved rounds after a warm-up, 1 thread" in out
    assert "95% interval" not in out
    assert "\x1b" not in out


def test_models_are_timed_in_the_same_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = save(tmp_path, "a.onnx", chain()), save(tmp_path, "b.onnx", chain())
    assert main(["bench", a, b, *FEW, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == 1
    first, second = found["models"]
    assert len(first["times_ms"]) == len(second["times_ms"]) == found["rounds"] == 5
    assert first["against_first"] is None
    against = second["against_first"]
    assert against["low"] <= against["ratio"] <= against["high"]
    assert against["verdict"] in ("faster", "same", "slower")
    assert second["outputs_agree"] is True


def test_models_whose_outputs_differ_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = save(tmp_path, "a.onnx", chain("Relu")), save(tmp_path, "b.onnx", chain("Neg"))
    assert main(["bench", a, b, *FEW]) == 0
    out = capsys.readouterr().out
    assert "DIFFER" in out
    assert "agree" not in out


def test_the_users_first_sample_is_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.ones((2, 2, 3), np.float32))
    a = save(tmp_path, "a.onnx", chain())
    assert main(["bench", a, *FEW, "--data", str(samples)]) == 0
    capsys.readouterr()


def test_outputs_that_hold_nothing_are_not_said_to_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = save(tmp_path, "a.onnx", parse("g (float[2] x) => (float[2] y) { z = Neg(x) y = Log(z) }"))
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.ones((1, 2), np.float32))
    assert main(["bench", a, a, *FEW, "--data", str(samples)]) == 0
    out = capsys.readouterr().out
    assert "not compared" in out
    assert "agree" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx"], "no such file"),
        (["--runs", "0"], "at least 1"),
        (["--seconds", "nan"], "must be a number"),
        (["--seconds", "0"], "must be above 0"),
        (["--seed", "-1"], "must be at least 0"),
        (["--shape", "x"], "write NAME"),
    ],
)
def test_bad_arguments_give_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["bench", save(tmp_path, "a.onnx", chain()), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_model_with_regions_is_timed_with_our_library_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiled = tmp_path / "tiled.onnx"
    ort_optim.optimize(ROOT / "models" / "digits_resnet.onnx", tiled, timing=False)
    assert main(["bench", str(tiled), "--runs", "2", "--threads", "1", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [each["path"] for each in models] == [str(tiled), f"{tiled} (with ort_optim)"]
    assert models[1]["outputs_agree"] is True
