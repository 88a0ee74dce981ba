"""External data, links, names, and what users wrote into the file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper, numpy_helper

from ort_optim.engine import Engine
from tests.passes.harness import model_of
from tests.pipeline.models import F, Optimize, Same, floats, loaded, passed, weighty
from tests.toolbox import assert_same_outputs, ops, save_with_data, snapshot


@pytest.mark.parametrize("size", [4, 600], ids=["small-tensors-too", "large-tensors"])
def test_external_data_in_place_and_elsewhere(
    tmp_path: Path, engine: Engine, optimize: Optimize, size: int
) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(weighty(size), tmp_path / "inline.onnx")
    save_with_data(weighty(size), path, location="weights.bin")
    feeds = {"x": floats(size)}
    other = tmp_path / "folder" / "out.onnx"
    other.parent.mkdir()
    for out in (tmp_path / "out.onnx", other, path):
        report = optimize(path, out)
        passed(report)
        assert report.decision.kept
        assert "Identity" not in ops(out)
        assert_same_outputs(engine, tmp_path / "inline.onnx", out, feeds)
    optimize(path, path)  # nothing is left to do, and nothing is spoilt
    assert_same_outputs(engine, tmp_path / "inline.onnx", path, feeds)


def test_data_of_a_renamed_result_survives_the_next_run(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    save_with_data(weighty(), tmp_path / "in.onnx", location="weights.bin")
    optimize(tmp_path / "in.onnx")
    (tmp_path / "out.onnx").rename(tmp_path / "renamed.onnx")
    report = optimize(tmp_path / "renamed.onnx")
    passed(report)
    for name in ("renamed.onnx", "out.onnx"):
        assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / name, {"x": floats(600)})


def test_links_of_a_model_hub_are_followed(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    save_with_data(weighty(), tmp_path / "in.onnx", location="weights.bin")
    repository = tmp_path / "models--some--net"
    revision, blobs = repository / "snapshots" / "abc", repository / "blobs"
    revision.mkdir(parents=True)
    blobs.mkdir()
    for name, blob in (("in.onnx", "0001"), ("weights.bin", "0002")):
        (blobs / blob).write_bytes((tmp_path / name).read_bytes())
        (revision / name).symlink_to(Path("..", "..", "blobs", blob))
    before = snapshot(repository)
    passed(optimize(revision / "in.onnx"))
    assert snapshot(repository) == before
    feeds = {"x": floats(600)}
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)


def test_a_link_as_out_is_replaced_and_what_it_leads_to_stays(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    save_with_data(weighty(), tmp_path / "in.onnx", location="weights.bin")
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.onnx"
    real.write_bytes(b"something else")
    (tmp_path / "out.onnx").symlink_to(real)
    passed(optimize(tmp_path / "in.onnx"))
    assert real.read_bytes() == b"something else"
    feeds = {"x": floats(600)}
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)


ODD_NAMES = ("input:0", "a/b c", "größe", "x\ty", "日本", "%s{}$'\"", "-")


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_odd_names(tmp_path: Path, optimize: Optimize, same: Same, odd: str) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Identity", [odd], [f"{odd}.i"], name=odd),
            helper.make_node("Add", [f"{odd}.i", f"{odd}.w"], [f"{odd}.y"], name=f"{odd}.add"),
        ],
        odd,
        [helper.make_tensor_value_info(odd, F, ["N", 4])],
        [helper.make_tensor_value_info(f"{odd}.y", F, ["N", 4])],
        [numpy_helper.from_array(floats(4), f"{odd}.w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    passed(optimize(model, shapes={odd: (2, 4)}))
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == [odd]
    assert [value.name for value in result.graph.output] == [f"{odd}.y"]
    same(**{odd: floats(2, 4)})


def test_file_names_with_spaces_and_other_alphabets(tmp_path: Path, optimize: Optimize) -> None:
    folder = tmp_path / "größe 日本"
    folder.mkdir()
    save_with_data(weighty(), folder / "ein gäbe.onnx", location="ge wichte.bin")
    passed(optimize(folder / "ein gäbe.onnx", folder / "aus %s.onnx"))
    assert "Identity" not in ops(folder / "aus %s.onnx")


def test_nodes_and_tensors_that_share_names_are_repaired(
    tmp_path: Path, optimize: Optimize, same: Same
) -> None:
    model = weighty()
    for node in model.graph.node:
        node.name = "same"
    model.graph.initializer.append(model.graph.initializer[0])
    model.graph.node.reverse()
    report = optimize(model)
    passed(report)
    assert len(report.repairs) >= 2
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_what_users_wrote_into_the_file_survives(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y) { i = Identity(x)\n a = Add(i, w)\n y = Relu(a) }",
        weights={"w": floats(4)},
    )
    model.producer_name, model.producer_version = "exporter", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "a model"
    helper.set_model_props(model, {"author": "somebody", "labels": "cat,dog"})
    model.graph.doc_string = "a graph"
    model.graph.metadata_props.add(key="g", value="1")
    model.graph.input[0].doc_string = "an input"
    model.graph.initializer[0].doc_string = "a weight"
    model.graph.node[2].doc_string = "a node"
    model.graph.node[2].metadata_props.add(key="k", value="v")
    model.graph.value_info.append(helper.make_tensor_value_info("a", F, [4]))
    passed(optimize(model))
    result = loaded(tmp_path / "out.onnx")
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(result, field) == getattr(model, field)
    assert {p.key: p.value for p in result.metadata_props} == {
        "author": "somebody",
        "labels": "cat,dog",
    }
    assert result.graph.name == "g"
    assert result.graph.doc_string == "a graph"
    assert result.graph.metadata_props == model.graph.metadata_props
    assert result.graph.input == model.graph.input
    assert result.graph.output == model.graph.output
    assert result.graph.initializer[0].doc_string == "a weight"
    assert result.graph.node[-1] == model.graph.node[-1]
    assert [value.name for value in result.graph.value_info] == ["a"]
