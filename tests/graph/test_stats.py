"""Counts of nodes, weights and layers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim.graph import load_model
from ort_optim.graph.macs import Macs
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.graph.stats import (
    Layer,
    WeightStats,
    count_ops,
    layers,
    weight_stats,
)

F = TensorProto.FLOAT


def tensor(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def value(name: str, shape: Sequence[int | str | None] | None = (1,), kind: int = F) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[Any],
    outputs: list[Any],
    initializers: Sequence[TensorProto] = (),
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def conv_model(shape: Sequence[int | str | None] = (1, 3, 8, 8)) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    weights = [tensor("w", 8, 3, 3, 3), tensor("b", 8)]
    return model(nodes, [value("x", shape)], [value("y", None)], weights)


def if_model() -> onnx.ModelProto:
    """If whose branches multiply by a weight of the outer graph, and by one of their own."""
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"], name="outer")],
        "then",
        [],
        [value("t", None)],
    )
    other = helper.make_graph(
        [
            helper.make_node("Constant", [], ["v"], value=tensor("v", 4, 4)),
            helper.make_node("MatMul", ["x", "v"], ["e"], name="own"),
        ],
        "else",
        [],
        [value("e", None)],
    )
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other)
    inputs = [value("c", (), TensorProto.BOOL), value("x", ("N", 4))]
    return model([node], inputs, [value("y", None)], [tensor("w", 4, 4)])


def function_model(calls: int = 2) -> onnx.ModelProto:
    """Calls of outer, which calls inner twice: 4 nodes a call."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = helper.make_function(
        "own", "inner", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets
    )
    nodes = [
        helper.make_node("inner", ["a"], ["t"], domain="own"),
        helper.make_node("inner", ["t"], ["u"], domain="own"),
        helper.make_node("Constant", [], ["k"], value=tensor("k", 4, 4)),
        helper.make_node("MatMul", ["u", "k"], ["v"]),
        helper.make_node("Neg", ["v"], ["b"]),
    ]
    outer = helper.make_function("own", "outer", ["a"], ["b"], nodes, opsets)
    names = [f"x{i}" for i in range(calls + 1)]
    chain = [
        helper.make_node("outer", [names[i]], [names[i + 1]], domain="own") for i in range(calls)
    ]
    return model(chain, [value("x0", (2, 4))], [value(names[-1], None)], functions=[inner, outer])


def by_name(found: list[Layer]) -> dict[str, Layer]:
    return {layer.name: layer for layer in found}


def test_constants_are_not_counted_and_subgraphs_are() -> None:
    assert count_ops(if_model()) == {"If": 1, "MatMul": 2}


def test_function_calls_count_as_the_nodes_of_their_bodies() -> None:
    assert count_ops(function_model(calls=3)) == {"Relu": 6, "MatMul": 3, "Neg": 3}


def test_function_that_calls_itself_ends() -> None:
    endless = function_model()
    endless.functions[0].node[0].op_type = "outer"
    endless.functions[0].node[0].domain = "own"
    assert sum(count_ops(endless).values()) > 0


def test_ops_outside_the_standard_domain_carry_it() -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["a"], domain="com.microsoft"),
        helper.make_node("Relu", ["a"], ["y"], domain="ai.onnx"),
    ]
    assert count_ops(model(nodes, [value("x")], [value("y")])) == {
        "com.microsoft.Gelu": 1,
        "Relu": 1,
    }


def test_weights_are_counted_wherever_they_are_stored() -> None:
    assert weight_stats(if_model()) == WeightStats(32, 128)
    assert weight_stats(function_model()) == WeightStats(16, 64)


def test_four_bit_weights_take_half_a_byte_and_strings_none() -> None:
    packed = helper.make_tensor("p", TensorProto.INT4, [5], [1, 2, 3, 4, 5])
    text = helper.make_tensor("s", TensorProto.STRING, [2], [b"ab", b"c"])
    found = weight_stats(model([], [], [], [packed, text]))
    assert found == WeightStats(7, 3)


def test_layers_have_shapes_macs_and_parameters() -> None:
    conv, relu = layers(conv_model())
    assert conv.inputs == ((1, 3, 8, 8), (8, 3, 3, 3), (8,))
    assert conv.outputs == ((1, 8, 6, 6),)
    assert conv.macs == Macs.product(8, 6, 6, 27)
    assert conv.parameter_count == 8 * 27 + 8
    assert (relu.name, relu.op, relu.graph) == ("relu", "Relu", "")
    assert relu.macs is None
    assert relu.parameter_count == 0


def test_symbolic_dimensions_reach_the_counts() -> None:
    conv, _ = layers(conv_model(("N", 3, 8, 8)))
    assert conv.macs == Macs.product("N", 8, 6, 6, 27)


def test_weights_of_ir_3_that_are_no_inputs_are_seen_by_inference() -> None:
    old = conv_model()
    old.ir_version = 3
    assert layers(old)[0].outputs == ((1, 8, 6, 6),)


def test_layers_of_subgraphs_see_outer_values() -> None:
    found = by_name(layers(if_model()))
    assert found["outer"].graph == "if.then_branch"
    assert found["outer"].macs == Macs.product("N", 4, 4)
    assert found["own"].parameter_count == 16


def test_bodies_of_loops_count_times_iterations() -> None:
    nodes = [
        helper.make_node("MatMul", ["s", "w"], ["o"], name="step"),
        helper.make_node("Identity", ["c"], ["d"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [value("i", (), TensorProto.INT64), value("c", (), TensorProto.BOOL), value("s", (2, 4))],
        [value("d", (), TensorProto.BOOL), value("o", (2, 4))],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)
    inputs = [value("n", (), TensorProto.INT64), value("x", (2, 4))]
    found = by_name(layers(model([loop], inputs, [value("y", None)], [tensor("w", 4, 4)])))
    assert found["step"].macs == Macs.product("iterations", 2, 4, 4)


def test_functions_are_listed_as_their_nodes() -> None:
    found = layers(function_model(calls=2))
    assert [layer.op for layer in found] == 2 * ["Relu", "Relu", "MatMul", "Neg"]
    assert [layer.macs for layer in found if layer.macs] == 2 * [Macs.product(2, 4, 4)]


def test_nodes_without_a_name_are_called_by_their_output() -> None:
    unnamed = conv_model()
    unnamed.graph.node[0].name = ""
    assert layers(unnamed)[0].name == "c"


def test_shared_weights_count_once_per_reader() -> None:
    nodes = [helper.make_node("MatMul", ["w", "w"], ["y"])]
    (layer,) = layers(model(nodes, [], [value("y", None)], [tensor("w", 4, 4)]))
    assert layer.parameter_count == 16


def test_skeleton_has_no_large_data_but_every_name_and_shape() -> None:
    full = conv_model()
    full.graph.initializer.append(tensor("big", 100, 100))
    bare = skeleton_model(full)
    assert bare.ByteSize() < 3000
    assert [t.name for t in bare.graph.initializer] == ["w", "b", "big"]
    assert [*bare.graph.initializer[2].dims] == [100, 100]
    assert bare.graph.initializer[0].raw_data == full.graph.initializer[0].raw_data
    assert bare.graph.node == full.graph.node


def test_skeleton_of_a_model_without_large_data_is_the_model() -> None:
    for each in (if_model(), function_model()):
        assert skeleton_model(each).graph == each.graph
        assert skeleton_model(each).functions == each.functions


def test_conv_macs_of_real_models_are_those_of_their_index(shared_models: Path) -> None:
    with (shared_models / "INDEX.csv").open(newline="") as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["conv_mmacs"] and not row["dynamic_dims"] and row["category"] == "detection"
        ]
    compared = 0
    for row in rows:
        found = layers(load_model(shared_models / row["file"]).model)
        convs = [layer for layer in found if layer.op == "Conv"]
        if all(layer.macs for layer in convs):
            total = Macs.total(layer.macs for layer in convs if layer.macs)
            assert total.at_one / 1e6 == pytest.approx(float(row["conv_mmacs"]), abs=0.051)
            compared += 1
    assert compared >= 10
