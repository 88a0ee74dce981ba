"""Functions that are written out become one."""

from __future__ import annotations

import itertools
import math

import pytest

from ort_optim.compiler.fuse import fuse
from ort_optim.compiler.layers import LayerGraph
from tests.compiler.regions import Net, check, layers_of, plainly
from tests.kernels.harness import AVX512


def epilogues(net: Net, *outputs: str) -> list[list[str]]:
    """The kinds of each layer's operations, once fused."""
    graph = layers_of(net.model(*outputs))
    assert isinstance(graph, LayerGraph), graph
    return [[each.operation.kind for each in layer.epilogue] for layer in fuse(graph).layers]


def mish(net: Net, x: str, order: int) -> str:
    gate = net.add("Tanh", net.add("Softplus", x))
    return net.add("Mul", *(x, gate)[:: order or 1])


def mish_of_exponentials(net: Net, x: str, order: int, cap: float = 20.0) -> str:
    two, step = net.constant(2.0), order or 1
    e = net.add("Exp", net.add("Min", x, net.constant(cap)))
    n = net.add("Mul", *(e, net.add("Add", e, two))[::step])
    gate = net.add("Div", n, net.add("Add", *(n, two)[::step]))
    return net.add("Mul", *(x, gate)[::step])


def gelu(net: Net, x: str, half: str, divide: bool, order: int) -> str:
    """Half of x, of the gate or of their product."""
    root = net.constant(math.sqrt(2) if divide else math.sqrt(0.5))
    inner = net.add("Div" if divide else "Mul", x, root)
    gate = net.add("Add", *(net.add("Erf", inner), net.constant(1.0))[:: order or 1])
    factors = {"x": x, "gate": gate}
    if half in factors:
        factors[half] = net.add("Mul", factors[half], net.constant(0.5))
    y = net.add("Mul", *list(factors.values())[:: order or 1])
    return net.add("Div", y, net.constant(2.0)) if half == "product" else y


ORDERS = pytest.mark.parametrize("order", [1, -1])


@ORDERS
@pytest.mark.parametrize("written", [mish, mish_of_exponentials])
def test_mish(written: object, order: int) -> None:
    assert callable(written)
    net = Net()
    x = net.conv(net.input(1, 19, 6, 6), 19, 19)
    y = written(net, x, order)
    assert epilogues(net, y) == [["mish"]]
    check(net.model(y), AVX512, plainly, (1, 19, 6, 6), rtol=1e-5)


@ORDERS
@pytest.mark.parametrize(
    ("half", "divide"), list(itertools.product(["x", "gate", "product"], [True, False]))
)
def test_gelu(half: str, divide: bool, order: int) -> None:
    net = Net()
    x = net.conv(net.input(1, 19, 6, 6), 19, 19)
    y = gelu(net, x, half, divide, order)
    assert epilogues(net, y) == [["gelu"]]
    check(net.model(y), AVX512, plainly, (1, 19, 6, 6), rtol=1e-5)


def test_what_is_nearly_a_pattern_stays() -> None:
    net = Net()
    x, other = net.input(1, 16, 6, 6), net.input(1, 16, 6, 6)
    gate = net.add("Tanh", net.add("Softplus", other))
    assert epilogues(net, net.add("Mul", x, gate)) == [["softplus", "tanh", "mul"]]
    assert ["mish"] not in epilogues(net, mish_of_exponentials(net, x, 1, cap=10.0))
    inner = net.add("Div", x, net.constant(1.41))
    y = net.add("Mul", x, net.add("Add", net.add("Erf", inner), net.constant(1.0)))
    y = net.add("Mul", y, net.constant(0.5))
    expected = ["div_number", "erf", "add_number", "mul", "mul_number"]
    assert epilogues(net, y) == [expected]


def test_a_quotient_is_not_turned_over() -> None:
    net = Net()
    x, two = net.input(1, 16, 6, 6), net.constant(2.0)
    e = net.add("Exp", net.add("Min", x, net.constant(20.0)))
    n = net.add("Mul", e, net.add("Add", e, two))
    y = net.add("Mul", x, net.add("Div", net.add("Add", n, two), n))
    assert all("mish" not in each for each in epilogues(net, y))


def test_parts_that_others_read_stay() -> None:
    net = Net()
    x = net.conv(net.input(1, 16, 6, 6), 16, 16)
    gate = net.add("Tanh", net.add("Softplus", x))
    y = net.add("Mul", x, gate)
    assert epilogues(net, y, gate) == [[], ["softplus", "tanh"], ["mish"]]
    check(net.model(y, gate), AVX512, plainly, (1, 16, 6, 6), rtol=1e-5)
