from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ort_optim.engine import Engine
from ort_optim.errors import InputError
from ort_optim.graph.repair import pin_shapes, repair
from tests.passes.harness import model_of

TWO_NODES = "g (float[2] x) => (float[2] y) { a = Neg(x)\n y = Relu(a) }"


def valid(model: ModelProto) -> bool:
    onnx.checker.check_model(model, full_check=True)
    return True


def test_a_sound_model_is_left_alone() -> None:
    model = model_of(TWO_NODES)
    before = model.SerializeToString()
    assert repair(model) == []
    assert model.SerializeToString() == before


def test_nodes_out_of_order_are_sorted_also_behind_a_capture() -> None:
    model = model_of(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) { p = Abs(a) },
                else_branch = e () => (float[2] q) { q = Relu(x) }
            >
            a = Neg(x)
        }"""
    )
    assert repair(model) == ["nodes were not in topological order"]
    assert [node.op_type for node in model.graph.node] == ["Neg", "If"]
    assert valid(model)


def test_weights_among_the_inputs_are_frozen_and_the_ir_version_raised() -> None:
    model = model_of("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    model.ir_version = 3
    model.opset_import[0].version = 8
    kept = ModelProto()
    kept.CopyFrom(model)
    assert len(repair(model)) == 2
    assert [value.name for value in model.graph.input] == ["x"]
    assert model.ir_version == 4
    assert repair(kept, keep_initializer_inputs=True) == []
    assert [value.name for value in kept.graph.input] == ["x", "w"]
    assert kept.ir_version == 3


def test_missing_name_imports_and_ir_version_are_filled_in() -> None:
    model = model_of(TWO_NODES)
    model.graph.name = ""
    del model.opset_import[:]
    done = repair(model)
    assert len(done) == 2
    assert model.opset_import[0].version == helper.VERSION_TABLE[-1][2] or valid(model)
    assert valid(model)


def test_outputs_without_shape_are_inferred() -> None:
    model = model_of(TWO_NODES)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert repair(model) == ["1 graph outputs had no shape: inferred"]
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_duplicate_names_are_dropped_or_renamed() -> None:
    model = model_of(TWO_NODES)
    for node in model.graph.node:
        node.name = "n"
    for _ in range(2):
        model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2]))
    assert len(repair(model)) == 2
    assert [node.name for node in model.graph.node] == ["n", "n_1"]
    assert len(model.graph.value_info) == 1


def dynamic() -> ModelProto:
    model = model_of('g (float["N", 3, "H"] x) => (float["N", 3, "H"] y) { y = Relu(x) }')
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"]))
    return model


def test_pinned_shapes_reach_inputs_and_outputs() -> None:
    model = dynamic()
    assert pin_shapes(model, {"x": (2, 3, 8)}) == ["input 'x' pinned to 2x3x8"]
    for value in (model.graph.input[0], model.graph.output[0]):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [2, 3, 8]
    assert not model.graph.value_info


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1,)}, "no input 'z'; the inputs are x"),
        ({"x": (1, 3)}, "has rank 3"),
        ({"x": (1, 4, 8)}, "fixed dimension 3"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pin_shapes(dynamic(), shapes)


def test_of_constants_with_one_name_the_last_counts(engine: Engine) -> None:
    model = model_of(
        "g (float[1] x) => (float[1] y) { k = Constant<value_floats = [1.0]>()\n y = Add(x, k)\n"
        " k = Constant<value_floats = [2.0]>() }"
    )
    x = {"x": np.zeros(1, np.float32)}
    before = engine.run(engine.open(model), x)["y"]
    assert len(repair(model)) == 2
    assert [node.op_type for node in model.graph.node] == ["Constant", "Add"]
    np.testing.assert_array_equal(engine.run(engine.open(model), x)["y"], before)
