"""`inspect` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim.cli import main

F = TensorProto.FLOAT


def make_model(**changes: Any) -> onnx.ModelProto:
    """Two matrix products, N symbolic; metadata on the model and on a node."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="small"),
        helper.make_node("MatMul", ["a", "v"], ["b"], name="large"),
        helper.make_node("Relu", ["b"], ["y"], name="relu"),
    ]
    nodes[0].metadata_props.add(key="tile", value="8x8")
    weights = [
        numpy_helper.from_array(np.ones((4, 8), np.float32), "w"),
        numpy_helper.from_array(np.ones((8, 64), np.float32), "v"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F, ["N", 4])],
        [helper.make_tensor_value_info("y", F, ["N", 64])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    model.producer_name = "tests"
    helper.set_model_props(model, {"author": "nobody"})
    for name, value in changes.items():
        setattr(model, name, value)
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(make_model(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def inspected(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["inspect", str(path), *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def plain(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inspected(path, capsys, "--json", *options))
    return found


def refused(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["inspect", str(path), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_text_names_inputs_layers_weights_and_annotations(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = inspected(path, capsys)
    assert "  MACs        544 x N\n" in text
    assert "  FLOPs       1.09 k x N\n" in text
    assert "  parameters  544\n" in text
    assert "  x  float  [N, 4]\n" in text
    assert "  (model)         author = nobody\n" in text
    assert "  small (MatMul)  tile = 8x8\n" in text


def test_layers_are_sorted_by_macs_and_with_all_in_the_order_of_the_file(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def names(*options: str) -> list[str]:
        lines = inspected(path, capsys, *options).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("layers"))
        return [line.split()[-1] for line in lines[start + 2 : start + 5]]

    assert names() == ["large", "small", "relu"]
    assert names("--all") == ["small", "large", "relu"]


def test_piped_text_is_ascii_without_trailing_space(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = inspected(path, capsys)
    assert text.isascii()
    assert all(line == line.rstrip() for line in text.splitlines())


def test_json_has_the_facts(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plain(path, capsys)
    assert found["schema_version"] == 1
    assert found["node_count"] == 3
    assert found["op_histogram"] == {"MatMul": 2, "Relu": 1}
    assert found["weights_bytes"] == 4 * 544
    assert found["macs"] == [{"count": 544, "symbols": ["N"]}]
    assert found["inputs"] == [{"name": "x", "type": "float", "shape": ["N", 4]}]
    assert [layer["macs"] for layer in found["layers"]] == [
        [{"count": 32, "symbols": ["N"]}],
        [{"count": 512, "symbols": ["N"]}],
        None,
    ]
    assert found["annotations"][0] == {"node": "", "entries": {"author": "nobody"}}
    assert found["repairs"] == []


def test_pinned_shapes_make_counts_numbers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plain(path, capsys, "--shape", "x:2x4")["macs"] == [{"count": 1088, "symbols": []}]


def test_every_field_of_the_json_is_documented(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "report-schema.md").read_text()
    section = page.partition("# The JSON of `inspect`")[2]
    found = plain(path, capsys)
    names = {*found, *found["layers"][0], *found["inputs"][0], *found["annotations"][0]}
    assert [name for name in sorted(names) if f"`{name}`" not in section] == []


def test_what_would_be_repaired_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsorted = make_model()
    nodes = list(unsorted.graph.node)[::-1]
    del unsorted.graph.node[:]
    unsorted.graph.node.extend(nodes)
    onnx.save(unsorted, tmp_path / "m.onnx")
    found = plain(tmp_path / "m.onnx", capsys)
    assert found["repairs"] == ["nodes were not in topological order"]
    assert found["macs"] == [{"count": 544, "symbols": ["N"]}]


def test_calls_of_own_functions_show_their_attributes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ort_optim", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("ort_optim", "R_1", ["a"], ["b"], body, opsets, ["tile"])
    call = helper.make_node("R_1", ["x"], ["y"], domain="ort_optim", tile=[8, 16])
    values = [helper.make_tensor_value_info(name, F, [2]) for name in "xy"]
    graph = helper.make_graph([call], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[function])
    onnx.save(model, tmp_path / "m.onnx")
    found = plain(tmp_path / "m.onnx", capsys)
    assert found["functions"] == {"ort_optim.R_1": 1}
    assert found["annotations"] == [{"node": "y (ort_optim.R_1)", "entries": {"tile": "[8, 16]"}}]


def test_sequences_and_optionals_have_a_type_and_no_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    element = helper.make_tensor_type_proto(TensorProto.INT64, None)
    sequence = helper.make_sequence_type_proto(element)
    inputs = [
        helper.make_value_info("s", sequence),
        helper.make_value_info("o", helper.make_optional_type_proto(sequence)),
    ]
    node = helper.make_node("SequenceLength", ["s"], ["n"])
    output = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    graph = helper.make_graph([node], "g", inputs, [output])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    types = [value["type"] for value in plain(tmp_path / "m.onnx", capsys)["inputs"]]
    assert types == ["sequence(int64)", "optional(sequence(int64))"]


def test_external_data_is_listed_and_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(
        make_model(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    found = plain(tmp_path / "m.onnx", capsys)
    assert [Path(each).name for each in found["external_data"]] == ["w.bin"]
    assert found["weights_bytes"] == 4 * 544


def test_names_with_escape_sequences_are_shown_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    model.graph.node[0].name = "\x1b[2J[red]\n"
    onnx.save(model, tmp_path / "m.onnx")
    text = inspected(tmp_path / "m.onnx", capsys)
    assert "\\x1b[2J[red]\\n" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"hello world, this is text\n", "text file"), (b"\x08\xff\xff", "")],
)
def test_what_is_no_model_is_one_line_and_exit_code_2(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert message in refused(tmp_path / "m.onnx", capsys)


def test_missing_file_and_bad_shapes_are_one_line(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such file" in refused(path.with_name("no.onnx"), capsys)
    assert "no input 'z'" in refused(path, capsys, "--shape", "z:1")
    assert "rank" in refused(path, capsys, "--shape", "x:1")


@pytest.mark.parametrize("name", [b"small", b"Relu", b"tile", b"8x8", b"nobody", b"tests"])
def test_text_that_is_not_utf8_is_one_line(
    name: bytes, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(path.read_bytes().replace(name, b"\xff" * len(name)))
    assert "not UTF-8" in refused(path, capsys)


def test_unknown_element_type_of_a_weight_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    model.graph.initializer[0].data_type = 66
    onnx.save(model, tmp_path / "m.onnx")
    assert "element type unknown to onnx: 66" in refused(tmp_path / "m.onnx", capsys)


def test_large_graph_lists_the_top_layers_and_says_how_to_see_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 5000
    nodes = [helper.make_node("Relu", [f"x{i}"], [f"x{i + 1}"]) for i in range(count)]
    values = [helper.make_tensor_value_info(f"x{i}", F, [2, 3]) for i in (0, count)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    text = inspected(tmp_path / "m.onnx", capsys)
    assert "layers (5000), the 20 first; --all lists every one" in text
    assert len(text.splitlines()) < 60
    assert len(inspected(tmp_path / "m.onnx", capsys, "--all").splitlines()) > count


def test_every_shared_model_is_shown_or_refused_in_one_line(
    shared_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(shared_models.rglob("*.onnx")):
        code = main(["inspect", str(path)])
        captured = capsys.readouterr()
        assert (code, captured.err.count("\n")) in ((0, 0), (2, 1)), captured.err
