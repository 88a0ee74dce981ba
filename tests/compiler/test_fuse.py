"""Fusing: which layers take which functions."""

from __future__ import annotations

import pytest
from onnx import ModelProto

from ort_optim.compiler.fuse import fuse
from ort_optim.compiler.layers import Elementwise, LayerGraph
from tests.compiler.regions import Net, layers_of


def fused(model: ModelProto) -> list[tuple[str, list[str]]]:
    """The layers after fusing: node, and kinds of its epilogue."""
    graph = layers_of(model)
    assert isinstance(graph, LayerGraph), graph
    found = fuse(graph)
    made = set(range(len(found.activations)))
    for layer in found.layers:
        assert made.issuperset(layer.reads), "a layer comes before what it reads"
        made.add(layer.output)
    assert made.issuperset(found.outputs)
    return [
        (layer.label, [each.operation.kind for each in layer.epilogue]) for layer in found.layers
    ]


def start() -> tuple[Net, str]:
    net = Net()
    return net, net.input(1, 8, 6, 6)


def test_a_chain_of_functions_joins_the_convolution() -> None:
    net, x = start()
    y = net.add("Mul", net.add("Relu", net.conv(x, 8, 8)), net.constant(0.5))
    assert fused(net.model(net.add("Tanh", y))) == [("Conv n0", ["relu", "mul_number", "tanh"])]


def test_the_later_of_two_convolutions_takes_the_sum() -> None:
    net, x = start()
    a, b = net.conv(x, 8, 8), net.conv(x, 8, 8)
    for pair in ((a, b), (b, a)):
        inner, other = Net(), ""
        inner.__dict__.update(
            {k: list(v) if isinstance(v, list) else v for k, v in vars(net).items()}
        )
        other = inner.add("Relu", inner.add("Add", *pair))
        assert fused(inner.model(other)) == [("Conv n0", []), ("Conv n1", ["add", "relu"])]


def test_a_convolution_takes_the_sum_rather_than_a_pool_that_comes_later() -> None:
    net, x = start()
    a = net.conv(x, 8, 8)
    b = net.add("MaxPool", x, kernel_shape=[1, 1])
    assert fused(net.model(net.add("Add", a, b))) == [("MaxPool n1", []), ("Conv n0", ["add"])]


def test_what_others_read_too_is_not_changed() -> None:
    net, x = start()
    a = net.conv(x, 8, 8)
    y = net.add("Relu", a)
    assert fused(net.model(a, y)) == [("Conv n0", []), ("Relu n1", ["relu"])]
    assert fused(net.model(y, net.conv(a, 8, 8)))[1] == ("Relu n1", ["relu"])


def test_a_difference_keeps_its_order() -> None:
    net, x = start()
    a = net.conv(x, 8, 8)
    graph = layers_of(net.model(net.add("Sub", x, a)))
    assert isinstance(graph, LayerGraph)
    (layer,) = fuse(graph).layers
    (applied,) = layer.epilogue
    assert applied.operation.swapped
    assert applied.operand == 0


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize(
    ("gate", "attributes", "kind"),
    [
        ("Sigmoid", {}, "silu"),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, "hard_swish"),
    ],
)
def test_gated_products_are_one_function(
    gate: str, attributes: dict[str, float], kind: str, gate_first: bool
) -> None:
    net, x = start()
    a = net.conv(x, 8, 8)
    b = net.add(gate, a, **attributes)
    y = net.add("Mul", *((b, a) if gate_first else (a, b)))
    assert fused(net.model(y)) == [("Conv n0", [kind])]
    (_, sigmoid, product) = fused(net.model(y, b))
    assert (sigmoid[1], product[1]) == (
        [gate.lower() if kind == "silu" else "hard_sigmoid"],
        [kind],
    )


def test_other_gates_stay_products() -> None:
    net, x = start()
    a = net.conv(x, 8, 8)
    y = net.add("Mul", a, net.add("HardSigmoid", a, alpha=0.2))
    assert fused(net.model(y)) == [
        ("Conv n0", []),
        ("HardSigmoid n1", ["hard_sigmoid", "mul"]),
    ]


def test_what_nothing_reads_is_dropped() -> None:
    net, x = start()
    a = net.conv(x, 8, 8)
    net.add("Relu", net.conv(a, 8, 8))
    assert fused(net.model(net.add("Relu", a))) == [("Conv n0", ["relu"])]


def test_functions_of_an_input_are_one_layer() -> None:
    net, x = start()
    y = net.add("Relu", net.add("Add", x, net.add("Relu", x)))
    graph = layers_of(net.model(y))
    assert isinstance(graph, LayerGraph)
    (layer,) = fuse(graph).layers
    assert isinstance(layer.op, Elementwise)
    assert [each.operation.kind for each in layer.epilogue] == ["relu", "add", "relu"]
