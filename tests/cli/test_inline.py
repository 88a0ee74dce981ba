"""`inline`: the plain file again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim.cli import main
from ort_optim.engine import Engine
from tests.toolbox import assert_same_outputs, ops, save_with_data

F = TensorProto.FLOAT
SIZE = 600
FEEDS = {"x": np.linspace(-1, 1, SIZE, dtype=np.float32)}


def model(*domains: str) -> onnx.ModelProto:
    """One call of a function of each domain in a row, with a weight."""
    opsets = [helper.make_opsetid("", 17)]
    functions, nodes = [], []
    for i, domain in enumerate(domains):
        body = [
            helper.make_node("Mul", ["a", "b"], ["m"]),
            helper.make_node("Tanh", ["m"], ["r"]),
        ]
        functions.append(helper.make_function(domain, "R", ["a", "b"], ["r"], body, opsets))
        nodes.append(
            helper.make_node("R", [f"h{i}" if i else "x", "w"], [f"h{i + 1}"], domain=domain)
        )
    nodes.append(helper.make_node("Relu", [f"h{len(domains)}" if domains else "x"], ["y"]))
    weights = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F, [SIZE])],
        [helper.make_tensor_value_info("y", F, [SIZE])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(
        graph,
        functions=functions,
        opset_imports=[*opsets, *(helper.make_opsetid(domain, 1) for domain in domains)],
        ir_version=8,
    )
    made.producer_name = "tests"
    made.metadata_props.add(key="k", value="v")
    return made


@pytest.mark.parametrize("in_place", [False, True], ids=["elsewhere", "in-place"])
@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_own_functions_go_and_those_of_others_stay(
    tmp_path: Path,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
    external: bool,
    in_place: bool,
) -> None:
    source, reference = tmp_path / "in.onnx", tmp_path / "reference.onnx"
    out = source if in_place else tmp_path / "out.onnx"
    onnx.save(model("ort_optim", "local"), reference)
    if external:
        save_with_data(model("ort_optim", "local"), source, location="weights.bin")
    else:
        onnx.save(model("ort_optim", "local"), source)
    assert main(["inline", str(source), str(out)]) == 0
    assert capsys.readouterr().out == f"1 function inlined into {out}\n"
    result = onnx.load(out, load_external_data=False)
    assert [f.domain for f in result.functions] == ["local"]
    assert ops(out) == ["Mul", "Tanh", "R", "Relu"]
    assert (result.producer_name, result.metadata_props[0].key) == ("tests", "k")
    assert bool(result.graph.initializer[0].external_data) == external
    onnx.checker.check_model(str(out), full_check=True)
    assert_same_outputs(engine, reference, out, FEEDS)


def test_all_functions_go_if_asked(
    tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model("ort_optim", "local"), source)
    assert main(["inline", str(source), str(out), "--all"]) == 0
    assert capsys.readouterr().out == f"2 functions inlined into {out}\n"
    result = onnx.load(out)
    assert not result.functions
    assert {entry.domain for entry in result.opset_import} == {""}
    assert_same_outputs(engine, source, out, FEEDS)


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_a_model_without_functions_is_copied_byte_for_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model(), source)
    assert main(["inline", str(source), str(out), *options]) == 0
    assert "copied as it is" in capsys.readouterr().out
    assert out.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no such file"), (b"", "is empty"), (b"text", "text file")]
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, told: str
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    if content is not None:
        (tmp_path / "in.onnx").write_bytes(content)
    assert main(["inline", str(tmp_path / "in.onnx"), str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert out.read_bytes() == b"old"
