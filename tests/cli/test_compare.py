from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import ort_optim
from ort_optim.cli import main
from tests.pipeline.wrong_kernels import spoil_winograd
from tests.toolbox import ROOT
from tests.verify.models import chain, parse

ORIGINAL = ROOT / "models" / "digits_resnet.onnx"


def save(folder: Path, name: str, model: ModelProto) -> str:
    path = folder / name
    onnx.save(model, path)
    return str(path)


def test_equal_models_give_0_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = save(tmp_path, "a.onnx", chain()), save(tmp_path, "b.onnx", chain())
    assert main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert "ok (exact)" in out
    assert "the outputs agree on 3 input sets" in out
    assert "\x1b" not in out  # no terminal, no colours


def test_different_models_give_3_and_say_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = save(tmp_path, "a.onnx", chain("Relu")), save(tmp_path, "b.onnx", chain("Abs"))
    assert main(["compare", a, b, "--layers"]) == 3
    out = capsys.readouterr().out
    assert "DIFFERS (rtol/atol)" in out
    assert "first layer that differs: 'b'" in out
    assert "Relu" in out
    assert "Abs" in out


def test_json_holds_figures_and_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = save(tmp_path, "a.onnx", chain("Relu")), save(tmp_path, "b.onnx", chain("Abs"))
    assert main(["compare", a, b, "--layers", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False
    assert found["sets"] == 3
    (output,) = found["outputs"]
    assert output["name"] == "y"
    assert output["max_abs"] > 0
    assert found["layers"]["tensor"] == "b"


@pytest.fixture
def tiled(tmp_path: Path) -> str:
    path = tmp_path / "tiled.onnx"
    ort_optim.optimize(ORIGINAL, path, timing=False)
    return str(path)


def test_a_model_with_regions_is_compared_with_our_library_too(
    tiled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(ORIGINAL), tiled, "--sets", "1"]) == 0
    out = capsys.readouterr().out
    assert "the outputs agree on 1 input set\n" in out
    assert "the outputs agree on 1 input set (with ort_optim)\n" in out
    assert main(["compare", str(ORIGINAL), tiled, "--sets", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (plain,), (ours,) = found["outputs"], found["with_library"]["outputs"]
    assert plain["name"] == ours["name"]
    assert 0 < ours["max_abs"] != plain["max_abs"]


def test_wrong_kernels_of_ours_give_3(
    tiled: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_winograd(monkeypatch)
    assert main(["compare", str(ORIGINAL), tiled, "--sets", "1"]) == 3
    out = capsys.readouterr().out
    assert "the outputs agree on 1 input set\n" in out
    assert "the outputs differ on 1 input set (with ort_optim): 'logits': error" in out
    assert main(["compare", str(ORIGINAL), tiled, "--sets", "1", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["equal"], found["with_library"]["equal"]) == (False, False)
    assert all(output["passed"] for output in found["outputs"])


def test_without_our_library_a_model_with_regions_is_compared_as_it_is(
    tiled: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_OPTIM_DISABLE", "1")
    assert main(["compare", str(ORIGINAL), tiled, "--sets", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["with_library"] is None


def test_stated_tolerances_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = save(tmp_path, "a.onnx", chain()), save(tmp_path, "b.onnx", chain(scale=2.1))
    assert main(["compare", a, b]) == 3
    assert main(["compare", a, b, "--rtol", "0.2", "--atol", "0.5"]) == 0
    capsys.readouterr()


def test_the_users_samples_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = save(tmp_path, "a.onnx", chain("Relu")), save(tmp_path, "b.onnx", chain("Abs"))
    positive = tmp_path / "positive.npz"
    np.savez(positive, x=np.ones((4, 2, 3), np.float32))
    assert main(["compare", a, b, "--data", str(positive)]) == 0
    assert "4 input sets" in capsys.readouterr().out


def test_an_open_shape_follows_the_other_model_that_fixes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = "g (float[{0}] x) => (float[{0}] y) {{ y = Relu(x) }}"
    a = save(tmp_path, "a.onnx", parse(graph.format("N,C")))
    b = save(tmp_path, "b.onnx", parse(graph.format("5,7")))
    assert main(["compare", a, b]) == 0
    assert main(["compare", a, a, "--shape", "x:2x9"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("g (float[2, 3] z) => (float[2, 3] y) { y = Relu(z) }", "inputs differ"),
        ("g (double[2, 3] x) => (double[2, 3] y) { y = Relu(x) }", "is tensor(float) in"),
        ("g (float[2, 4] x) => (float[2, 4] y) { y = Relu(x) }", "is 2x3 in"),
        ("g (float[2, 3] x) => (float[2, 3] out) { out = Relu(x) }", "outputs differ"),
        ("g (float[2, 3] x) => (float[2, 3] y) { y = NoSuchOp(x) }", "can't load it"),
    ],
)
def test_models_that_cannot_be_compared_give_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str, message: str
) -> None:
    a, b = save(tmp_path, "a.onnx", chain()), save(tmp_path, "b.onnx", parse(other))
    assert main(["compare", a, b]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "z:1x2"], "no such input"),
        (["--shape", "x:1"], "1 dimensions given"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--rtol", "-1"], "rtol"),
        (["--atol", "abc"], "atol"),
        (["--sets", "0"], "at least 1"),
        (["--sets", "two"], "whole number"),
        (["--seed", "-1"], "--seed: -1: must be at least 0"),
    ],
)
def test_bad_arguments_give_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    a = save(tmp_path, "a.onnx", chain())
    assert main(["compare", a, a, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_the_encoding_of_stdout_lacks_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, options: list[str]
) -> None:
    model = chain()
    model.graph.node[-1].output[0] = model.graph.output[0].name = "日本"
    a = save(tmp_path, "a.onnx", model)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, write_through=True))
    assert main(["compare", a, a, *options]) == 0
    assert r"\u65e5\u672c" in written.getvalue().decode(encoding)


def test_nothing_is_said_to_agree_where_outputs_hold_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = "g (float[2] x) => (float[0] y) <int64[1] e = {0}> { y = Slice(x, e, e, e) }"
    a = save(tmp_path, "a.onnx", parse(graph))
    assert main(["compare", a, a]) == 0
    out = capsys.readouterr().out
    assert "nothing is proved" in out
    assert "agree" not in out


def test_inner_tensors_that_were_compared_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = """
        g (float[2, 9] x) => (int64[2] y) <float[1] s = {{{0}}}>
        {{ scores = Mul(x, s)  y = ArgMax<axis = 1, keepdims = 0>(scores) }}
    """
    a = save(tmp_path, "a.onnx", parse(graph.format(1.0)))
    b = save(tmp_path, "b.onnx", parse(graph.format(1.1)))
    assert main(["compare", a, a]) == 0
    assert "(inner) scores" in capsys.readouterr().out
    assert main(["compare", a, b]) == 3
    assert "inner tensor 'scores'" in capsys.readouterr().out


def test_files_that_are_no_models_give_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = save(tmp_path, "a.onnx", chain())
    (tmp_path / "text.onnx").write_text("hello\n")
    assert main(["compare", a, str(tmp_path / "text.onnx")]) == 2
    assert main(["compare", str(tmp_path / "absent.onnx"), a]) == 2
    assert capsys.readouterr().err.count("\n") == 2
