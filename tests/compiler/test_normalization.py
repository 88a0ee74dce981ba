"""BatchNormalization in a region: two constants per channel in the epilogue of another layer."""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from ort_optim.compiler.draft import Draft
from ort_optim.compiler.layers import LayerGraph, Normal
from ort_optim.compiler.parse import eligibility
from ort_optim.graph.regions.region import make_region
from ort_optim.graph.regions.wiring import Wiring
from ort_optim.kernels.isa import Isa
from tests.compiler.regions import (
    Net,
    all_blocked,
    check,
    draft_of,
    layers_of,
    plainly,
    plan_of,
    prefer,
    run_ort,
    run_plan,
)
from tests.kernels.harness import AVX2, AVX512

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])


def normalize(net: Net, x: str, channels: int, **attributes: object) -> str:
    """A BatchNormalization with constants of its own."""
    given = [net.weights(channels) for _ in range(3)]
    variance = net.random.uniform(0.05, 2, channels).astype(np.float32)
    return net.add("BatchNormalization", x, *given, net.constant(variance), **attributes)


def labels(draft: Draft) -> list[str]:
    return [re.split("[ :]", step.label)[0] for step in draft.steps]


@ISAS
@pytest.mark.parametrize("channels", [1, 7, 16, 19, 40])
@pytest.mark.parametrize("attributes", [{}, {"epsilon": 0.25}, {"epsilon": 0.0}], ids=str)
def test_first_in_the_region(isa: Isa, channels: int, attributes: dict[str, object]) -> None:
    net = Net()
    y = normalize(net, net.input(None, channels, None, None), channels, **attributes)
    model = net.model(net.add("Relu", y))
    assert labels(draft_of(model, isa, plainly)) == ["Import", "BatchNormalization", "Export"]
    plan = check(model, isa, plainly, (2, channels, 5, 7), rtol=1e-6)
    check(model, isa, plainly, (0, channels, 3, 3), plan=plan)


@pytest.mark.parametrize(
    ("opset", "attributes"),
    [
        (7, {}),
        (7, {"momentum": 0.5}),
        (8, {"spatial": 1}),
        (9, {}),
        (14, {}),
        (14, {"training_mode": 0}),
        (15, {"momentum": 0.5, "epsilon": 1e-3}),
        (22, {}),
    ],
)
def test_operator_sets(opset: int, attributes: dict[str, object]) -> None:
    net = Net(opset=opset)
    x = net.input(1, 10, 6, 5)
    y = normalize(net, net.conv(x, 10, 10), 10, **attributes)
    model = net.model(y)
    check(model, AVX512, plainly, (1, 10, 6, 5), rtol=1e-5)
    why = eligibility(model)
    assert [why(node) for node in model.graph.node] == [None, None]


def test_before_opset_7_it_is_an_inference_where_it_says_so() -> None:
    for is_test, reason in ((1, None), (0, "is_test=0")):
        net = Net(opset=6)
        x = net.input(1, 10, 6, 5)
        net.add("BatchNormalization", x, *(net.weights(10) for _ in range(4)), is_test=is_test)
        assert eligibility(typed(net))(net.nodes[0]) == reason


def typed(net: Net) -> ModelProto:
    """The net as a model, without inference of shapes, which may find fault with it."""
    output = helper.make_tensor_value_info(net.nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(net.nodes, "g", net.inputs, [output], net.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", net.opset)])


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs", "reason"),
    [
        (15, {"training_mode": 1}, 1, "training_mode=1"),
        (15, {"training_mode": 1}, 3, "more than one output"),
        (9, {}, 5, "more than one output"),
        (7, {"spatial": 0}, 1, "spatial=0"),
        (15, {"axis": 1}, 1, "attribute axis"),
    ],
)
def test_other_forms_are_refused(
    opset: int, attributes: dict[str, object], outputs: int, reason: str
) -> None:
    net = Net(opset=opset)
    x = net.input(1, 10, 6, 5)
    constants = [net.weights(10) for _ in range(4)]
    net.add("BatchNormalization", x, *constants, outputs=outputs, **attributes)
    model = typed(net)
    found = layers_of(model)
    assert isinstance(found, str)
    assert found.endswith(reason)
    assert eligibility(model)(model.graph.node[0]) == reason


def test_constants_that_do_not_fit_are_refused() -> None:
    net = Net()
    x, y = net.input(1, 10, 6, 5), net.input(10)
    w, short, two = net.weights(10), net.weights(9), net.weights(10, 1)
    net.add("BatchNormalization", x, w, w, w, short)
    net.add("BatchNormalization", x, w, w, w, two)
    net.add("BatchNormalization", x, w, y, w, w)
    why = eligibility(typed(net))
    assert [why(node) for node in net.nodes] == [
        "9 constants for 10 channels",
        f"{two} has rank 2, not 1",
        f"{y} has rank 1, not 4",
    ]


def test_it_joins_the_layer_that_makes_what_it_reads() -> None:
    net = Net()
    x = net.input(1, 20, 8, 8)
    conv = net.add("Relu", normalize(net, net.conv(x, 20, 20, 3), 20))
    pool = normalize(net, net.add("MaxPool", conv, kernel_shape=[2, 2], strides=[2, 2]), 20)
    wide = normalize(net, net.add("GlobalAveragePool", pool), 20)
    model = net.model(wide)
    steps = labels(draft_of(model, AVX512, all_blocked))
    assert steps == ["Import", "Conv", "MaxPool", "GlobalAveragePool", "Export"]
    check(model, AVX512, all_blocked, (1, 20, 8, 8), rtol=1e-5)


@ISAS
@pytest.mark.parametrize("template", ["pointwise", "direct", "winograd_f43", "depthwise"])
def test_in_the_epilogue_of_the_real_templates(isa: Isa, template: str) -> None:
    net = Net()
    group, kernel = (24, 3) if template == "depthwise" else (1, 1 if template == "pointwise" else 3)
    y = net.conv(net.input(None, 24, None, None), 24, 24, kernel, group=group)
    model = net.model(net.add("Relu", normalize(net, y, 24)))
    check(model, isa, prefer(template), (2, 24, 9, 13), rtol=2e-4)


@ISAS
def test_two_that_read_one_value_and_one_that_two_read(isa: Isa) -> None:
    net = Net()
    a = net.conv(net.input(1, 12, 6, 6), 12, 21)
    b, c = normalize(net, a, 21), net.add("Relu", normalize(net, a, 21))
    model = net.model(net.conv(b, 21, 5), net.add("Add", b, c), net.conv(c, 21, 5, 3))
    check(model, isa, plainly, (1, 12, 6, 6), rtol=1e-5)


def test_equal_ones_are_packed_once() -> None:
    net = Net()
    x, y = net.input(1, 12, 6, 6), net.input(1, 12, 6, 6)
    constants = [net.weights(12) for _ in range(4)]
    names = [net.add("BatchNormalization", each, *constants, epsilon=10.0) for each in (x, y)]
    other = net.add("BatchNormalization", x, *constants, epsilon=20.0)
    model = net.model(*names, other)
    assert len(draft_of(model, AVX512, plainly).pack_steps) == 2
    check(model, AVX512, plainly, (1, 12, 6, 6), (1, 12, 6, 6), rtol=1e-6)


@ISAS
@pytest.mark.parametrize("growth", [16, 12])
def test_a_dense_block(isa: Isa, growth: int) -> None:
    net = Net()
    y, channels = net.conv(net.input(None, 3, None, None), 3, 24, 3), 24
    for _ in range(3):
        a = net.conv(net.add("Relu", normalize(net, y, channels)), channels, 32, bias=False)
        b = net.conv(net.add("Relu", normalize(net, a, 32)), 32, growth, 3, bias=False)
        y, channels = net.add("Concat", y, b, axis=1), channels + growth
    a = net.conv(net.add("Relu", normalize(net, y, channels)), channels, 20, bias=False)
    model = net.model(net.add("AveragePool", a, kernel_shape=[2, 2], strides=[2, 2]))
    plan = plan_of(model, isa, all_blocked)
    check(model, isa, all_blocked, (2, 3, 9, 14), rtol=1e-4, plan=plan)
    check(model, isa, all_blocked, (1, 3, 2, 2), rtol=1e-4, plan=plan)


def test_undefined_and_infinite_numbers_stay_where_they_are() -> None:
    net = Net()
    model = net.model(normalize(net, net.input(1, 18, 2, 2), 18))
    plan = plan_of(model, AVX512, plainly)
    x = np.ones((1, 18, 2, 2), np.float32)
    x[0, 3, 0, 1], x[0, 17, 1, 1] = np.nan, np.inf
    (found,), (wanted,) = run_plan(plan, model, x), run_ort(model, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_all_four_constants_are_weights_of_the_region_however_small() -> None:
    net = Net()
    y = normalize(net, net.input(1, 1, 4, 4), 1)
    model = net.model(y)
    graph = layers_of(model)
    assert isinstance(graph, LayerGraph)
    operands = [each.operand for each in graph.layers[0].epilogue]
    assert all(isinstance(each, Normal) for each in operands)
    region = make_region(Wiring(model.graph), [0], [0], net.opset)
    assert region.weights == tuple(net.nodes[0].input[1:])
    assert region.constants == ()
