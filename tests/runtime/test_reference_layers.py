"""Layers in NumPy give what ONNX Runtime gives, each operator by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import ModelProto

from ort_optim.compiler.layers import Convolution, LayerGraph
from ort_optim.compiler.lower import Choice
from ort_optim.compiler.operators import OPERATORS
from ort_optim.kernels import functions
from ort_optim.kernels.spec import ConvSpec
from ort_optim.runtime.reference_functions import BINARY, UNARY
from ort_optim.runtime.reference_layers import run_layers
from tests.compiler.regions import Array, Net, layers_of, prefer, run_ort, weights_of
from tests.compiler.test_operators import GOOD, X, one_node
from tests.kernels.harness import AVX512

RTOL = 2e-6  # sums of at most 54 numbers, functions to a few units in the last place


def choice_of(spec: ConvSpec) -> Choice:
    return prefer("depthwise", "pointwise")(spec, AVX512)


def check(model: ModelProto, *inputs: Array, rtol: float = RTOL) -> None:
    """The main graph's layers give what ONNX Runtime gives, within `rtol` of the largest number."""
    graph = layers_of(model)
    assert isinstance(graph, LayerGraph), graph
    specs = [each.op.spec for each in graph.convolutions if isinstance(each.op, Convolution)]
    found = run_layers(graph, [choice_of(spec) for spec in specs], [*inputs, *weights_of(model)])
    for a, b in zip(found, run_ort(model, *inputs), strict=True):
        assert a.shape == b.shape
        scale = np.abs(b[np.isfinite(b)]).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


def random(shape: tuple[int, ...] = X, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", GOOD)
def test_operators_are_onnx_runtimes(case: str) -> None:
    check(one_node(*GOOD[case], pinned=True), random())


UNARY_NODES: list[tuple[str, int, dict[str, float | str]]] = [
    *((op, 18, {}) for op in ("Abs", "Elu", "Erf", "Exp", "HardSwish", "LeakyRelu", "Mish")),
    *((op, 18, {}) for op in ("Neg", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh")),
    ("Elu", 18, {"alpha": 0.3}),
    ("LeakyRelu", 18, {"alpha": 1.5}),
    ("HardSigmoid", 18, {"alpha": 0.3, "beta": 0.4}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("Swish", 24, {}),
]


@pytest.mark.parametrize(("op", "opset", "attributes"), UNARY_NODES)
def test_functions_of_one_tensor(op: str, opset: int, attributes: dict[str, float | str]) -> None:
    net = Net(opset=opset)
    model = net.model(net.add(op, net.input(*X), **attributes))
    x = random() * 4
    check(model, np.abs(x) if op == "Sqrt" else x)


BINARY_NODES = [
    *itertools.product(
        ["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum"],
        ["tensor", "channel", "constant", "number", "first"],
    ),
    ("PRelu", "constant"),
    ("PRelu", "number"),
]


@pytest.mark.parametrize(("op", "other"), BINARY_NODES)
def test_functions_of_two_tensors(op: str, other: str) -> None:
    net = Net()
    x = net.input(*X)
    inputs = [random()]
    if other in ("tensor", "channel"):
        shape = X if other == "tensor" else (*X[:2], 1, 1)
        inputs.append(random(shape, 1))
        given = [x, net.input(*shape)]
    elif other == "number":
        given = [x, net.constant(1.5)]
    else:
        constant = net.weights(1, X[1], 1, 1)
        given = [constant, x] if other == "first" else [x, constant]
    check(net.model(net.add(op, *given)), *inputs)


def test_functions_are_those_that_kernels_have() -> None:
    assert UNARY.keys() == functions.UNARY.keys()
    assert BINARY.keys() == functions.BINARY.keys()


def test_every_operator_is_tested() -> None:
    tested = {case[0] for case in GOOD.values()} | {op for op, _, _ in UNARY_NODES}
    tested |= {"Add", "Concat", "Div", "Max", "Min", "Mul", "PRelu", "Split", "Sub", "Sum"}
    assert OPERATORS.keys() == tested


def test_split_and_concat() -> None:
    net = Net()
    x = net.input(*X)
    parts = net.add("Split", x, net.constant(np.array([1, 3, 2])), outputs=3, axis=1)
    check(net.model(net.add("Concat", f"{parts}_2", x, parts, axis=1), f"{parts}_1"), random())


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


@pytest.mark.parametrize("sizes", [(18, 22), (5, 7), (1, 1), (13, 40), (9, 11)])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_resize(coordinates: str, sizes: tuple[int, int]) -> None:
    for mode, nearest in [("linear", NEAREST[0]), *itertools.product(["nearest"], NEAREST)]:
        net = Net()
        target = net.constant(np.array([*X[:2], *sizes]))
        attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
        y = net.add("Resize", net.input(*X), "", "", target, mode=mode, **attributes)
        check(net.model(y), random())


WINDOWS = list(itertools.product([(3, 2), (4, 5)], [(1, 2), (2, 2)], [1, 0], [0, 1]))


@pytest.mark.parametrize("counted", [None, 0, 1], ids=["max", "average", "average counted"])
def test_windows_at_the_borders(counted: int | None) -> None:
    for kernel, strides, pad, ceil_mode in WINDOWS:
        net = Net(opset=19)
        attributes: dict[str, object] = {} if counted is None else {"count_include_pad": counted}
        attributes |= {"kernel_shape": kernel, "strides": strides, "ceil_mode": ceil_mode}
        op = "MaxPool" if counted is None else "AveragePool"
        y = net.add(op, net.input(*X), pads=[pad, 0, 0, pad], **attributes)
        check(net.model(y), random())


def test_values_that_several_layers_read_stay() -> None:
    net = Net()
    x = net.input(*X)
    a = net.add("Relu", net.conv(x, 6, 6, 3))
    b = net.conv(a, 6, 6)
    model = net.model(net.add("Add", net.add("Add", a, b), x), a, net.add("Sigmoid", b))
    check(model, random())


def test_infinite_numbers_are_onnx_runtimes() -> None:
    x = random()
    x[0, 0, 0, :3] = np.inf, -np.inf, np.nan
    for op in ("Relu", "Sigmoid", "Tanh", "Elu", "HardSwish"):
        net = Net()
        check(net.model(net.add(op, net.input(*X))), x)
