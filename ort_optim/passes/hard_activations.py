"""HardSigmoid and HardSwish written out, as the operators they are.

    HardSigmoid(x; alpha, beta) = clip(alpha x + beta, 0, 1)

(1) Clip(a x + b, 0, 1)                =>  HardSigmoid(x; a, b)
(2) Clip(a x + b, 0, h) * m            =>  HardSigmoid(x; a m, b m)        where h m = 1
(3) (y * Clip(a x + b, 0, h)) * m      =>  y * HardSigmoid(x; a m, b m)    where h m = 1
(4) (y * m) * Clip(a x + b, 0, h)      =>  y * HardSigmoid(x; a m, b m)    where h m = 1
(5) x * HardSigmoid(x; 1/6, 1/2)       =>  HardSwish(x)                    from opset 14

a x + b is any chain of Add, Sub, Mul, Div with scalars, * m also / (1 / m), which covers
Add-Clip-Div-Mul, Add-Clip-Mul-Div, Mul-Add-Clip-Mul and so on. Conditions:

(6) float32: ONNX Runtime has these operators for no other type;
(7) scalars do not raise the number of dimensions, and nothing else reads what disappears.

Measured between a 1x1 and a depthwise convolution, one thread, ms for (3) or (4) and (5):

    shape          written out   Mul, HardSigmoid   HardSwish
    1x64x56x56     0.308         0.228              0.228
    1x16x112x112   0.225         0.144              0.143
    1x256x14x14    0.160         0.143              0.142

`Swish` (opset 24) is not made of x * Sigmoid(x): ONNX Runtime 1.32 has no kernel for it, and its
expansion has one Mul more than what stands there.
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import attr, producer, sole_consumer
from ort_optim.passes.common.scalars import clamp_of, element_type, line_of, scaling

NAME = "hard-activations"

Ramp = tuple[Variable, float, float, float, list[Node]]
"""x, a, b, h and the nodes of Clip(a x + b, 0, h), the Clip first."""

ULP = 2.0**-22  # exporters round 1/6 in several ways


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Recognize one HardSigmoid or HardSwish that ends at `node`."""
    if graph.opset < 7 or element_type(node) != np.float32:  # (6)
        return
    if node.is_op("Clip"):
        _from_clip(node, graph, ctx)
        return
    scaled = scaling(node)
    if scaled is not None:
        _from_scaling(node, *scaled, graph, ctx)
        return
    if node.is_op("Mul") and not _scaled_product(node, graph, ctx):
        _hard_swish(node, graph, ctx)


def _from_clip(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (1)."""
    bounds = clamp_of(node)
    if bounds is None or bounds[1:] != (0, 1):
        return
    x, a, b, nodes = line_of(bounds[0])
    if nodes and ctx.fuel(NAME, node, f"HardSigmoid of {x.name}"):
        graph.replace(node, "HardSigmoid", [x], alpha=a, beta=b)
        _remove(graph, nodes)


def _from_scaling(node: Node, source: Variable, m: float, graph: Graph, ctx: Context) -> None:
    """Cases (2) and (3)."""
    ramp = _ramp(source, m)
    if ramp is not None:
        x, a, b, _, nodes = ramp
        if ctx.fuel(NAME, node, f"HardSigmoid of {x.name}"):
            graph.replace(node, "HardSigmoid", [x], alpha=a * m, beta=b * m)
            _remove(graph, nodes)
        return
    product = producer(source, "Mul")
    if product is None or sole_consumer(source) is not node:  # (7)
        return
    for y, other in (product.inputs, product.inputs[::-1]):
        ramp = _ramp(other, m)
        if ramp is not None:
            _multiply(node, y, ramp, m, [product], graph, ctx)
            return


def _scaled_product(node: Node, graph: Graph, ctx: Context) -> bool:
    """Case (4)."""
    for left, right in (node.inputs, node.inputs[::-1]):
        factor = producer(left, "Mul", "Div")
        scaled = scaling(factor) if factor is not None else None
        if factor is None or scaled is None or sole_consumer(left) is not node:  # (7)
            continue
        y, m = scaled
        ramp = _ramp(right, m)
        if ramp is not None:
            return _multiply(node, y, ramp, m, [factor], graph, ctx)
    return False


def _multiply(
    node: Node,
    y: Tensor,
    ramp: Ramp,
    m: float,
    between: list[Node],
    graph: Graph,
    ctx: Context,
) -> bool:
    """Let `node` be y * HardSigmoid."""
    x, a, b, _, nodes = ramp
    if not ctx.fuel(NAME, node, f"HardSigmoid of {x.name}, times {y.name}"):
        return False
    gate = graph.variable(f"{node.key}_hard_sigmoid")
    gate.dtype, gate.shape = x.dtype, x.shape
    last = nodes[0]
    attrs = {"alpha": a * m, "beta": b * m}
    graph.insert([graph.make("HardSigmoid", [x], [gate], attrs, like=last)], at=node)
    graph.replace(node, "Mul", [y, gate])
    _remove(graph, [*between, *nodes])
    return True


def _hard_swish(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (5)."""
    if graph.opset < 14:
        return
    for x, gate in (node.inputs, node.inputs[::-1]):
        hard = producer(gate, "HardSigmoid")
        if hard is None or hard.inputs[0] is not x or sole_consumer(gate) is not node:  # (7)
            continue
        alpha, beta = attr(hard, "alpha", 0.2), attr(hard, "beta", 0.5)
        if not (math.isclose(alpha, 1 / 6, rel_tol=ULP) and math.isclose(beta, 0.5, rel_tol=ULP)):
            ctx.refuse(NAME, node, f"a HardSwish with alpha {alpha:g} and beta {beta:g}")
        elif ctx.fuel(NAME, node, f"HardSwish of {x.name}"):
            graph.replace(node, "HardSwish", [x])
            graph.remove(hard)
            return


def _ramp(tensor: Tensor, m: float) -> Ramp | None:
    """Clip(a x + b, 0, h) that one node reads, with h m = 1."""
    clip = producer(tensor, "Clip")
    bounds = clamp_of(clip) if clip is not None and sole_consumer(clip.outputs[0]) else None  # (7)
    if clip is None or bounds is None or bounds[1] != 0:
        return None
    if not math.isclose(bounds[2] * m, 1, rel_tol=ULP):
        return None
    x, a, b, nodes = line_of(bounds[0])
    return x, a, b, bounds[2], [clip, *nodes]


def _remove(graph: Graph, nodes: list[Node]) -> None:
    for node in nodes:
        graph.remove(node)


PASS = NodePass(NAME, frozenset({"Clip", "Mul", "Div"}), rewrite)
