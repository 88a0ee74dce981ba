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


OPEN = """g (float[N, 3, 8, 8] x) => (float y)
    <float[4] scales = {1, 1, 2, 3}, int64[8] pads = {0, 0, 1, 0, 0, 0, 0, 2}> {
    a = Resize(x, , scales)
    b = Relu(a)
    c = Resize(b, , scales)
    d = Pad(c, pads)
    y = Relu(d)
}"""


def test_the_size_of_a_batch_that_stays_open_hides_no_other() -> None:
    found = types(infer(parsed(OPEN)))
    assert found["a"] == (FLOAT, [None, 3, 16, 24])
    assert found["b"] == (FLOAT, [None, 3, 16, 24])
    assert found["c"] == (FLOAT, [None, 3, 32, 72])
    assert found["d"] == (FLOAT, [None, 3, 33, 74])


BEHIND = """g (float[N, 3, H, W] x) => (float y) <float[4, 3, 5, 3] w, float[4, 2, 1, 1] v> {
    a = ImageScaler<scale = 1.0>(x)
    b = Relu(a)
    c = Conv(b, w)
    d = Crop(c)
    e = Tanh(d)
    f = ConvTranspose<group = 2>(e, v)
    y = Relu(f)
}"""


def parsed(text: str, opset: int = 17) -> onnx.ModelProto:
    graph = onnx.parser.parse_graph(text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def types(made: onnx.ModelProto) -> dict[str, tuple[int, list[Dim]]]:
    found = {}
    for info in made.graph.value_info:
        known = dims_of(info.type)
        named = [dim if isinstance(dim, int) else None for dim in known or ()]
        found[info.name] = info.type.tensor_type.elem_type, named
    return found


def test_weights_tell_what_a_convolution_behind_an_unknown_operator_reads() -> None:
    model = parsed(BEHIND)
    before = model.SerializeToString()
    found = types(infer(model))
    assert model.SerializeToString() == before
    assert found["b"] == (FLOAT, [None, 3, None, None])
    assert found["c"] == (FLOAT, [None, 4, None, None])  # inference goes on from there
    assert found["e"] == (FLOAT, [None, 4, None, None])
    assert found["f"] == (FLOAT, [None, 4, None, None])
    assert "a" not in found


def test_weights_of_groups_and_of_other_types_tell_their_channels_and_their_type() -> None:
    model = parsed(
        """g (float[N, 3] x) => (float y) <float16[6, 2, 3] w> {
            b = Custom(x)
            y = Conv<group = 3>(b, w)
        }"""
    )
    assert types(infer(model))["b"] == (TensorProto.FLOAT16, [None, 6, None])


def test_weights_tell_nothing_of_a_graph_input_or_of_what_is_known() -> None:
    model = parsed("g (float x) => (float y) <float[4, 3, 5, 3] w> { y = Conv(x, w) }")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    found = infer(model)
    assert dims_of(found.graph.input[0].type) is None
    known = parsed(
        """g (float[1, 3, 8, 8] x) => (float y) <float[4, 3, 5, 3] w> {
            b = Relu(x)
            y = Conv(b, w)
        }"""
    )
    assert types(infer(known))["b"] == (FLOAT, [1, 3, 8, 8])


def test_a_convolution_in_a_branch_tells_nothing_of_the_tensors_around_it() -> None:
    model = parsed(
        """g (float[N, 3, H, W] x, bool taken) => (float y) <float[3, 3, 1, 1] w> {
            b = Custom(x)
            y = If (taken) <
                then_branch = t () => (float t0) { t1 = Custom(b)  t0 = Conv(t1, w) },
                else_branch = e () => (float e0) { e0 = Conv(b, w) }
            >
        }"""
    )
    inferred = infer(model)
    assert "b" not in types(inferred)
    then = next(a.g for a in inferred.graph.node[1].attribute if a.name == "then_branch")
    assert [(info.name, dims_of(info.type)) for info in then.value_info if info.name == "t1"]


def test_weights_that_contradict_each_other_do_no_harm() -> None:
    model = parsed(
        """g (float[2, 3] x) => (float y, float z) <float[4, 3, 1, 1] w, float[4, 3, 1] v> {
            a = Relu(x)
            b = Custom(x)
            y = Conv(b, w)
            z = Conv(b, v)
        }"""
    )
    assert types(infer(model))["a"] == (FLOAT, [2, 3])
    short = parsed("g (float[2, 3] x) => (float y) { b = Custom(x)  y = Conv(b) }")
    assert "b" not in types(infer(short))
