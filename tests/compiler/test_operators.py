"""Operators: shapes are ONNX's, and what there is no code for is refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ort_optim.compiler.layers import Convolution, LayerGraph
from ort_optim.compiler.parse import eligibility
from ort_optim.compiler.program import evaluate
from tests.compiler.regions import Array, Net, layers_of, run_ort


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


X = (2, 6, 9, 11)

Case = tuple[str, int, list[np.ndarray | None], dict[str, object]]
"""Operator, operator set, constant inputs, attributes."""

GOOD: dict[str, Case] = {
    "conv": ("Conv", 18, [np.ones((4, 6, 3, 3), np.float32)], {}),
    "conv group": (
        "Conv",
        18,
        [np.ones((4, 3, 3, 2), np.float32), floats(1, 2, 3, 4)],
        {"group": 2, "pads": [1, 0, 2, 3], "strides": [2, 3], "dilations": [2, 1]},
    ),
    "conv same upper": (
        "Conv",
        18,
        [np.ones((4, 6, 3, 3), np.float32)],
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "conv same lower": (
        "Conv",
        18,
        [np.ones((4, 6, 2, 4), np.float32)],
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
    ),
    "conv valid": ("Conv", 18, [np.ones((4, 6, 3, 3), np.float32)], {"auto_pad": "VALID"}),
    "transposed": (
        "ConvTranspose",
        18,
        [np.ones((6, 2, 3, 3), np.float32)],
        {"group": 2, "strides": [2, 2], "output_padding": [1, 0], "pads": [1, 1, 0, 2]},
    ),
    "max pool": (
        "MaxPool",
        18,
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "max pool ceil": (
        "MaxPool",
        18,
        [],
        {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1},
    ),
    "max pool dilated": ("MaxPool", 18, [], {"kernel_shape": [3, 3], "dilations": [2, 2]}),
    "average pool": (
        "AveragePool",
        18,
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "count_include_pad": 1, "pads": [1, 0, 1, 0]},
    ),
    "global": ("GlobalAveragePool", 18, [], {}),
    "mean": ("ReduceMean", 18, [ints(2, 3)], {}),
    "mean 13": ("ReduceMean", 13, [], {"axes": [-1, -2]}),
    "batch normalization": (
        "BatchNormalization",
        18,
        [floats(*numbers) for numbers in (range(6), range(6), range(-3, 3), range(1, 7))],
        {"epsilon": 0.5},
    ),
    "clip": ("Clip", 18, [np.float32(0).reshape(()), np.float32(6).reshape(())], {}),
    "clip 6": ("Clip", 6, [], {"min": -1.0}),
    "prelu": ("PRelu", 18, [np.ones((6, 1, 1), np.float32)], {}),
    "prelu one": ("PRelu", 18, [floats(0.2)], {}),
    "add number": ("Add", 18, [floats(0.2)], {}),
    "mul channels": ("Mul", 18, [np.ones((1, 6, 1, 1), np.float32)], {}),
    "hard sigmoid": ("HardSigmoid", 18, [], {}),
    "slice 9": ("Slice", 9, [], {"axes": [1], "starts": [-4], "ends": [5]}),
    "slice": ("Slice", 18, [ints(1), ints(100), ints(1)], {}),
    "resize scales": ("Resize", 18, [None, floats(1, 1, 2, 1.5)], {}),
    "resize sizes": (
        "Resize",
        18,
        [None, None, ints(2, 6, 4, 30)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "resize 10": ("Resize", 10, [floats(1, 1, 2, 2)], {"mode": "linear"}),
    "upsample 7": ("Upsample", 7, [], {"scales": [1.0, 1.0, 2.0, 3.0]}),
    "upsample 9": ("Upsample", 9, [floats(1, 1, 2, 2)], {}),
    "pad": ("Pad", 18, [ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}),
    "pad axes": ("Pad", 18, [ints(1, 2, 3, 4), np.float32(3).reshape(()), ints(2, -1)], {}),
    "gather": ("Gather", 18, [ints(5, 0, 3, -1, 3, 2, 1)], {"axis": 1}),
    "gather many": ("Gather", 13, [np.arange(40)[::-1] % 6], {"axis": -3}),
    "pad channels": ("Pad", 18, [ints(0, 0, 0, 0, 0, 5, 0, 0)], {}),
    "pad channels and rows": ("Pad", 18, [ints(0, 0, 1, 2, 0, 14, 0, 1)], {}),
    "pad channels 10": ("Pad", 10, [], {"pads": [0, 0, 0, 0, 0, 3, 0, 0]}),
    "pad 10": ("Pad", 10, [], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "edge"}),
}


def one_node(
    op: str,
    opset: int,
    constants: list[np.ndarray | None],
    attributes: dict[str, object],
    pinned: bool,
) -> ModelProto:
    net = Net(opset=opset)
    x = net.input(*(X if pinned else (None, X[1], None, None)))
    inputs = [x, *("" if each is None else net.constant(each) for each in constants)]
    return net.model(net.add(op, *inputs, **attributes))


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "dynamic"])
@pytest.mark.parametrize("case", GOOD)
def test_shapes_are_those_of_onnx_runtime(case: str, pinned: bool) -> None:
    if not pinned and ("same" in case or case == "resize sizes"):
        pytest.skip("depends on the size")
    model = one_node(*GOOD[case], pinned)
    graph = layers_of(model)
    assert isinstance(graph, LayerGraph), graph
    x: Array = np.ones(X, np.float32)
    (expected,) = run_ort(model, x)
    dims = [X] + [tuple(t.dims) for t in model.graph.initializer]
    values = evaluate(graph.sizes.rows, lambda i, axis: dims[i][axis], 1)
    shape = graph.shapes[graph.outputs[0]]
    found = (values[shape.N.index], shape.C, values[shape.H.index], values[shape.W.index])
    assert found == expected.shape
    for a, b in graph.guards:
        assert values[a.index] == values[b.index]


def test_pads_of_same_padding_are_resolved() -> None:
    model = one_node(*GOOD["conv same lower"], pinned=True)
    graph = layers_of(model)
    assert isinstance(graph, LayerGraph)
    op = graph.layers[0].op
    assert isinstance(op, Convolution)
    assert op.spec.pads == (1, 1, 0, 1)
    assert (op.spec.N, op.spec.H, op.spec.W) == (2, 9, 11)


BAD: dict[str, Case] = {
    "auto_pad": (
        "Conv",
        18,
        [np.ones((4, 6, 3, 3), np.float32)],
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "weights for 5": ("Conv", 18, [np.ones((4, 5, 3, 3), np.float32)], {}),
    "kernel_shape": ("Conv", 18, [np.ones((4, 6, 3, 3), np.float32)], {"kernel_shape": [1, 1]}),
    "2 groups": ("Conv", 18, [np.ones((5, 3, 3, 3), np.float32)], {"group": 2}),
    "bias": ("Conv", 18, [np.ones((4, 6, 3, 3), np.float32), floats(1, 2)], {}),
    "pads": ("Conv", 18, [np.ones((4, 6, 3, 3), np.float32)], {"pads": [-1, 0, 0, 0]}),
    "rank 3": ("Conv", 18, [np.ones((4, 6, 3), np.float32)], {}),
    "output_shape": (
        "ConvTranspose",
        18,
        [np.ones((6, 4, 3, 3), np.float32)],
        {"output_shape": [9, 9]},
    ),
    "as large as the kernel": ("MaxPool", 18, [], {"kernel_shape": [2, 2], "pads": [2, 2, 2, 2]}),
    "more than one output": ("MaxPool", 18, [], {"kernel_shape": [2, 2], "outputs": 2}),
    "a size that is not known": (
        "MaxPool",
        18,
        [],
        {"kernel_shape": [1, 1], "strides": [2, 2], "ceil_mode": 1},
    ),
    "axes": ("ReduceMean", 13, [], {"axes": [1, 2]}),
    "not one number per channel": ("Mul", 18, [np.ones((1, 1, 9, 11), np.float32)], {}),
    "axis": ("Concat", 18, [], {"axis": 2}),
    "axis 3": ("Slice", 18, [ints(1), ints(5), ints(3)], {}),
    "step": ("Slice", 18, [ints(1), ints(5), ints(1), ints(2)], {}),
    "tf_crop_and_resize": (
        "Resize",
        18,
        [None, floats(1, 1, 2, 2)],
        {"coordinate_transformation_mode": "tf_crop_and_resize"},
    ),
    "cubic": ("Resize", 18, [None, floats(1, 1, 2, 2)], {"mode": "cubic"}),
    "indices of shape": ("Gather", 18, [np.array(1)], {"axis": 1}),
    "not the channels": ("Gather", 18, [ints(1)], {}),
    "outside of 6 channels": ("Gather", 18, [ints(1, 6)], {"axis": 1}),
    "before the channels": ("Pad", 18, [ints(0, 1, 0, 0, 0, 0, 0, 0)], {}),
    "of the batch": ("Pad", 18, [ints(0, 0, 0, 0, 1, 0, 0, 0)], {}),
    "other numbers than zeros": (
        "Pad",
        18,
        [ints(0, 0, 0, 0, 0, 1, 0, 0), np.float32(3).reshape(())],
        {},
    ),
    "no code for LRN": ("LRN", 18, [], {"size": 3}),
    "attribute activation": (
        "Conv",
        18,
        [np.ones((4, 6, 3, 3), np.float32)],
        {"activation": "Relu"},
    ),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_there_is_no_code_for_is_refused(reason: str) -> None:
    op, opset, constants, attributes = BAD[reason]
    net = Net(opset=opset)
    inputs = [net.input(None, 6, None, None)]
    inputs += ["" if each is None else net.constant(each) for each in constants]
    attributes = dict(attributes)
    outputs = attributes.pop("outputs", 1)
    assert isinstance(outputs, int)
    y = net.add(op, *inputs, outputs=outputs, **attributes)
    graph = helper.make_graph(
        net.nodes, "g", net.inputs, [helper.make_tensor_value_info(y, 1, None)], net.constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found = layers_of(model)
    assert isinstance(found, str)
    assert reason in found
    why = eligibility(model)(model.graph.node[0])
    assert why is not None
    assert reason in why


def conv_of(kind: int, dims: tuple[int | str | None, ...] | None) -> ModelProto:
    info = helper.make_tensor_value_info("x", kind, dims)
    weight = numpy_helper.from_array(np.ones((4, 6, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [info], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(
    ("kind", "dims", "reason"),
    [
        (TensorProto.FLOAT16, (1, 6, 8, 8), "not float32"),
        (TensorProto.FLOAT, (1, 6, 8), "rank 3"),
        (TensorProto.FLOAT, None, "unknown rank"),
        (TensorProto.FLOAT, (1, "c", 8, 8), "channels of x are not known"),
        (TensorProto.FLOAT, ("n", 6, "h", "w"), None),
    ],
)
def test_types_ranks_and_channels_are_known(
    kind: int, dims: tuple[int | str | None, ...] | None, reason: str | None
) -> None:
    model = conv_of(kind, dims)
    found = eligibility(model)(model.graph.node[0])
    assert found is None if reason is None else reason in (found or "")


def test_weights_that_may_be_overridden_are_no_constants() -> None:
    model = conv_of(TensorProto.FLOAT, (1, 6, 8, 8))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 6, 3, 3)))
    assert eligibility(model)(model.graph.node[0]) is not None


def test_sizes_that_must_agree_are_guarded() -> None:
    net = Net()
    a, b = net.input(None, 6, None, None), net.input(None, 6, None, None)
    graph = layers_of(net.model(net.add("Add", a, b)))
    assert isinstance(graph, LayerGraph)
    assert len([1 for x, y in graph.guards if x.known is None and y.known is None]) == 3
