from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ort_optim.graph.shapes import Dim, dims_of, infer
from tests.conftest import ROOT

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: Sequence[NodeProto],
    *inputs: onnx.ValueInfoProto,
    **sizes: int | list[int],
) -> onnx.ModelProto:
    """`nodes` from inputs and x, one float, to y; `sizes` are its initializers."""
    x = helper.make_tensor_value_info("x", FLOAT, [1])
    y = helper.make_tensor_value_info("y", FLOAT, None)
    weights = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in sizes.items()]
    graph = helper.make_graph(list(nodes), "g", [*inputs, x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def dims(made: onnx.ModelProto) -> dict[str, tuple[Dim, ...] | None]:
    graph = made.graph
    return {info.name: dims_of(info.type) for info in (*graph.value_info, *graph.output)}


ADD = helper.make_node("Add", ["a", "x"], ["y"])
FILL = helper.make_node("ConstantOfShape", ["t"], ["a"])
SQUARE = helper.make_node("Mul", ["s", "s"], ["t"])
SPREAD = [SQUARE, helper.make_node("Expand", ["x", "t"], ["b"])]
FLAT = helper.make_node("Squeeze", ["b"], ["a"])
LONG = helper.make_tensor_value_info("i", FLOAT, [1 << 20])

HUGE = {
    "stated": model([FILL, ADD], t=[1 << 40]),
    "computed": model([SQUARE, FILL, ADD], s=[1 << 20]),
    "flattened": model([*SPREAD, FLAT, ADD], s=[1, 1 << 20]),
    "of a shape": model([helper.make_node("Shape", ["i"], ["s"]), *SPREAD, FLAT, ADD], LONG),
    "doubled": model(
        [
            *(helper.make_node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(40)),
            helper.make_node("Cast", ["d40"], ["y"], to=FLOAT),
        ],
        d0=[1],
    ),
    "in a branch": model(
        [
            FILL,
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
            helper.make_node(
                "If",
                ["c"],
                ["y"],
                **{
                    f"{name}_branch": helper.make_graph(
                        [helper.make_node("Add", ["a", "x"], [name])],
                        name,
                        [],
                        [helper.make_tensor_value_info(name, FLOAT, None)],
                    )
                    for name in ("then", "else")
                },
            ),
        ],
        t=[1 << 40],
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory can't be limited")
@pytest.mark.parametrize("name", HUGE)
def test_a_tensor_of_a_trillion_elements_takes_no_memory(name: str) -> None:
    program = (
        "import resource, sys, onnx; from ort_optim.graph.shapes import infer; "
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); "
        "sys.stdout.buffer.write("
        "infer(onnx.load_from_string(sys.stdin.buffer.read())).SerializeToString())"
    )
    raw = HUGE[name].SerializeToString()
    found = subprocess.run(
        [sys.executable, "-c", program], input=raw, capture_output=True, check=True, cwd=ROOT
    ).stdout
    inferred = onnx.load_from_string(found)
    nodes = HUGE[name].graph.node
    assert [node.op_type for node in inferred.graph.node] == [node.op_type for node in nodes]
    assert inferred.graph.input == HUGE[name].graph.input
    assert dims(inferred)["y"] == (1 << 40,)


def test_long_vectors_keep_their_shapes() -> None:
    made = model([helper.make_node("Mul", ["i", "i"], ["a"]), ADD], LONG)
    assert dims(infer(made)) == {"a": (1 << 20,), "y": (1 << 20,)}
    assert made.graph.input[0] == LONG


def test_sizes_computed_from_constants_are_followed_step_by_step() -> None:
    again = [
        helper.make_node("Shape", ["a"], ["n"]),
        helper.make_node("Mul", ["n", "s"], ["m"]),
        helper.make_node("Expand", ["x", "m"], ["y"]),
    ]
    assert dims(infer(model([SQUARE, FILL, *again], s=[8])))["y"] == (512,)
    assert dims(infer(model([*SPREAD, FLAT, ADD], s=[1, 8])))["y"] == (64,)


def test_sizes_that_depend_on_open_inputs_are_followed() -> None:
    open_input = helper.make_tensor_value_info("i", FLOAT, ["N", 4])
    nodes = [
        helper.make_node("Shape", ["i"], ["t"]),
        helper.make_node("Expand", ["x", "t"], ["a"]),
        ADD,
    ]
    assert dims(infer(model(nodes, open_input)))["y"] == ("N", 4)
