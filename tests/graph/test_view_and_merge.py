from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ort_optim.graph import load_model
from ort_optim.graph.annotation import annotate
from ort_optim.graph.importing import view
from ort_optim.graph.merge import is_changed, merge
from ort_optim.graph.view import Constant, Graph
from tests.conftest import SHARED_MODELS
from tests.passes.harness import model_of

OWN = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
SHARED = sorted(SHARED_MODELS.rglob("*.onnx")) if SHARED_MODELS.is_dir() else []


def wheel_models() -> list[Path]:
    """The small models inside the onnx wheel: one for nearly every operator and type."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    return sorted(folder.rglob("*.onnx"))


def parsed(path: Path) -> onnx.ModelProto | None:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception:
        return None
    return model


@pytest.mark.parametrize("path", [*OWN, *SHARED], ids=lambda path: path.name)
def test_view_and_merge_give_every_model_back(path: Path) -> None:
    model = parsed(path)
    if model is None:
        assert path.parent.name == "malformed"
        return
    root = view(model, path.parent)
    assert not is_changed(root)
    assert merge(root).SerializeToString() == model.SerializeToString()


def test_view_and_merge_give_the_models_of_the_onnx_wheel_back() -> None:
    count = 0
    for path in wheel_models():
        model = parsed(path)
        if model is None:
            continue
        assert merge(view(model, path.parent)).SerializeToString() == model.SerializeToString()
        count += 1
    assert count > 50


def rich_model() -> onnx.ModelProto:
    """Everything that onnx-graphsurgeon has no field for, in one model."""
    model = model_of(
        """g (float[2] x, bool c) => (float[2] y) {
            a = Neg(x)
            b = Identity(a)
            d = Mul(b, w)
            y = If(c) <
                then_branch = t () => (float[2] p) { p = Abs(d) },
                else_branch = e () => (float[2] q) { q = Relu(a) }
            >
        }""",
        weights={"w": np.ones(2, np.float32), "unused": np.zeros(3, np.float32)},
    )
    model.doc_string, model.domain, model.model_version = "doc", "org.example", 7
    model.metadata_props.add(key="author", value="nobody")
    model.graph.doc_string = "graph doc"
    model.graph.metadata_props.add(key="k", value="v")
    model.graph.node[2].doc_string = "node doc"
    model.graph.node[2].metadata_props.add(key="origin", value="layer 3")
    model.graph.value_info.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, [2]))
    model.graph.value_info[-1].doc_string = "value doc"
    model.graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [2]))
    note = model.graph.quantization_annotation.add(tensor_name="d")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    odd = model.graph.node[0].attribute
    odd.append(AttributeProto(name="empty", type=AttributeProto.INTS))
    odd.append(AttributeProto(name="bytes", type=AttributeProto.STRING, s=b"\xff\xfe"))
    odd.append(AttributeProto(name="type", type=AttributeProto.TYPE_PROTO))
    odd[-1].tp.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    return model


def test_a_touched_graph_keeps_what_graphsurgeon_has_no_field_for() -> None:
    model = rich_model()
    root = view(model, Path())
    identity = root.nodes[1]
    root.bypass(identity, identity.inputs[0])
    root.settle()
    merged = merge(root)
    mul = merged.graph.node[1]
    assert (mul.op_type, list(mul.input)) == ("Mul", ["a", "w"])
    assert mul.doc_string == "node doc"
    assert mul.metadata_props[0].value == "layer 3"
    assert merged.graph.node[0] == model.graph.node[0]
    assert [info.name for info in merged.graph.value_info] == ["d"]
    assert merged.graph.value_info[0].doc_string == "value doc"
    assert merged.graph.quantization_annotation == model.graph.quantization_annotation
    for name in ("doc_string", "domain", "model_version", "metadata_props"):
        assert getattr(merged, name) == getattr(model, name)
    assert merged.graph.metadata_props == model.graph.metadata_props
    assert [tensor.name for tensor in merged.graph.initializer] == ["w", "unused"]


def test_a_replacement_inherits_name_and_metadata() -> None:
    root = view(rich_model(), Path())
    mul = root.nodes[2]
    root.replace(mul, "Div", mul.inputs)
    root.settle()
    made = merge(root).graph.node[2]
    assert (made.op_type, made.doc_string) == ("Div", "node doc")
    assert made.metadata_props[0].value == "layer 3"


def test_a_bypassed_graph_output_keeps_its_name() -> None:
    root = view(model_of("g (float[2] x) => (float[2] y) { a = Neg(x)\n y = Identity(a) }"), Path())
    assert root.can_bypass(root.nodes[1], root.nodes[1].inputs[0]) is None
    root.bypass(root.nodes[1], root.nodes[1].inputs[0])
    root.settle()
    (node,) = merge(root).graph.node
    assert (node.op_type, list(node.output)) == ("Neg", ["y"])


def test_an_output_straight_from_an_input_is_not_bypassed() -> None:
    root = view(model_of("g (float[2] x) => (float[2] y) { y = Identity(x) }"), Path())
    assert "input" in (root.can_bypass(root.nodes[0], root.nodes[0].inputs[0]) or "")


def test_an_output_fed_by_a_constant_becomes_an_initializer() -> None:
    model = model_of(
        "g () => (float[2] y) { y = Identity(w) }", weights={"w": np.array([1, 2], np.float32)}
    )
    root = view(model, Path())
    assert root.can_bypass(root.nodes[0], root.nodes[0].inputs[0]) is None
    root.bypass(root.nodes[0], root.nodes[0].inputs[0])
    root.settle()
    merged = merge(root)
    assert not merged.graph.node
    values = {t.name: numpy_helper.to_array(t).tolist() for t in merged.graph.initializer}
    assert values["y"] == [1, 2]
    onnx.checker.check_model(merged)


def test_weights_that_are_inputs_too_are_not_constants() -> None:
    model = model_of("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    root = view(model, Path())
    assert not isinstance(root.nodes[0].inputs[1], Constant)
    root.replace(root.nodes[0], "Sub", root.nodes[0].inputs)
    root.settle()
    merged = merge(root)
    assert [tensor.name for tensor in merged.graph.initializer] == ["w"]
    assert [value.name for value in merged.graph.input] == ["x", "w"]


def test_sparse_initializers_come_back_and_read_dense() -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [2], [3.0, 4.0])
    indices = helper.make_tensor("s_indices", TensorProto.INT64, [2], [1, 3])
    model = model_of("g (float[4] x) => (float[4] y) { y = Add(x, s) }")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    root = view(model, Path())
    assert root.constants["s"].values.tolist() == [0, 3, 0, 4]
    root.replace(root.nodes[0], "Sub", root.nodes[0].inputs)
    root.settle()
    assert merge(root).graph.sparse_initializer == model.graph.sparse_initializer


def test_values_of_every_element_type_survive_a_rename() -> None:
    for data_type in (
        TensorProto.BFLOAT16,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.INT4,
        TensorProto.STRING,
        TensorProto.COMPLEX64,
    ):
        values: list[object] = [b"a", b"b"] if data_type == TensorProto.STRING else [1, 2]
        tensor = helper.make_tensor("t", data_type, [2], values)
        model = model_of("g () => (float[2] y) { y = Identity(t) }")
        model.graph.initializer.append(tensor)
        root = view(model, Path())
        renamed = root.constants["t"].renamed("u")
        root.constants["u"] = renamed
        back = merge(root).graph.initializer[1]
        assert back.data_type == data_type
        np.testing.assert_array_equal(numpy_helper.to_array(back), numpy_helper.to_array(tensor))


def test_fresh_names_are_new_in_all_graphs() -> None:
    root = view(rich_model(), Path())
    assert root.fresh_name("p") == "p_1"
    assert root.fresh_name("p") == "p_2"
    assert root.fresh_name("new") == "new"


def test_walk_visits_subgraphs() -> None:
    root = view(rich_model(), Path())
    assert [graph.name for graph in root.walk()] == ["g", "t", "e"]
    assert all(isinstance(graph, Graph) for graph in root.walk())


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, ort_optim; "
        "print([m for m in ('onnx', 'onnxruntime', 'numpy', 'onnx_graphsurgeon') "
        "if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_loaded_model_knows_its_folder(own_models: Path) -> None:
    path = sorted(own_models.glob("*.onnx"))[0]
    loaded = load_model(path)
    assert loaded.folder == own_models
    assert loaded.size_bytes == path.stat().st_size


def test_a_slice_at_opset_10_does_not_keep_the_symbol_of_what_it_slices() -> None:
    model = model_of(
        "g (float[N,3,H,4] x) => (float[A,B,C,D] y)"
        "{ s = Slice(x, one, big, two, one)\n y = Relu(s) }",
        opset=10,
        weights={"one": np.array([1]), "big": np.array([2**63 - 1]), "two": np.array([2])},
    )
    root = view(model, Path())
    annotate(root)
    for node in root.nodes:
        N, C, H, W = node.outputs[0].shape
        assert (C, W) == (3, 4)
        assert N not in ("H", 3, 4)
        assert H != "H"


def test_nodes_that_inherit_one_name_are_told_apart() -> None:
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].name = "n"
    root = view(model, Path())
    old = root.nodes[0]
    (x,), (y,) = list(old.inputs), list(old.outputs)
    root.remove(old)
    middle = root.variable("middle")
    first = root.make("Neg", [x], [middle], like=old)
    root.insert([first, root.make("Abs", [middle], [y], like=old)], at=old)
    root.settle()
    assert [node.name for node in merge(root).graph.node] == ["n", "n_1"]
