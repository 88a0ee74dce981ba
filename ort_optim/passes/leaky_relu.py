"""Leaky rectifiers: recognized where written out, and PRelu in a form that runs faster.

(1) PRelu(x, s), all elements of s equal to a       =>  LeakyRelu(x; a)
(2) PRelu(x, s), all elements of s at most 1        =>  Max(x, x * s)
(3) Max(x, x * a), a at most 1                      =>  LeakyRelu(x; a)
(4) Relu(x) - s * Relu(-x), Relu(x) + (-s) * ...    =>  PRelu(x, s), and then (1) or (2)
(5) PRelu(x, Expand(s, shape))                      =>  PRelu(x, s), and then (1) or (2)

For s <= 1, x * s is below x exactly where x is positive. A slope is broadcast to x and never
enlarges it, so what an Expand in (5) does is done anyway. Conditions: (6) float32, s constant and
not zero in (2), where Max would make NaN of an infinite x; (7) s does not enlarge x in (1), (2)
and (4); (8) nothing else reads what disappears.

ONNX Runtime's PRelu branches on each element. Measured, one thread, ms, between Neg and Relu:

    shape        PRelu   Max, Mul   LeakyRelu
    1x64x56x56   0.979   0.149      0.123
    1x16x96x96   0.702   0.094      0.083
    1x128x14x14  0.020   0.018      0.015

(2) is one node more, and the only form that ONNX Runtime runs well: Relu(x) + s * Min(x, 0), which
would do for s above 1 as well, is three nodes more and no faster on small tensors.
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.graph.weights import Array
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import compute
from ort_optim.passes.common.match import constant, producer, rank, sole_consumer
from ort_optim.passes.common.scalars import element_type, scalar_operand

NAME = "leaky-relu"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Rewrite one PRelu, Max, Add or Sub."""
    if graph.opset < 8 or element_type(node) != np.float32:  # (6)
        return
    if node.is_op("PRelu"):
        _faster(node, graph, ctx)
    elif node.is_op("Max"):
        _from_max(node, graph, ctx)
    else:
        _from_sum(node, graph, ctx)


def _faster(node: Node, graph: Graph, ctx: Context) -> None:
    """Cases (1), (2) and (5)."""
    x, slope = node.inputs
    expand = producer(slope, "Expand")
    if expand is not None:
        if not ctx.fuel(NAME, node, f"its slope is broadcast by PRelu, not by {expand.key}"):  # (5)
            return None
        node = graph.replace(node, "PRelu", [x, expand.inputs[0]])
        slope = expand.inputs[0]
    values = constant(slope)
    if values is None or values.size == 0:
        return ctx.refuse(NAME, node, "its slope is not a constant")
    if len(values.shape) > _least_rank(x):
        return ctx.refuse(NAME, node, "its slope may have more dimensions than its input")  # (7)
    slopes = values.astype(np.float64)
    if np.all(slopes == slopes.flat[0]):
        if ctx.fuel(NAME, node, f"LeakyRelu of {x.name}"):
            graph.replace(node, "LeakyRelu", [x], alpha=float(slopes.flat[0]))
        return None
    if not np.all(slopes <= 1) or np.any(slopes == 0):
        return ctx.refuse(NAME, node, "a slope is above one, or zero")  # (6)
    if ctx.fuel(NAME, node, f"Max of {x.name} and its product with the slope"):
        scaled = compute("Mul", [x, slope], "scaled", at=node)
        graph.replace(node, "Max", [x, scaled])
    return None


def _from_max(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (3)."""
    if len(node.inputs) != 2:
        return
    for x, other in (node.inputs, node.inputs[::-1]):
        product = producer(other, "Mul")
        scaled = scalar_operand(product) if product is not None else None
        if product is None or scaled is None or scaled[0] is not x or not scaled[1] <= 1:
            continue
        if sole_consumer(other) is not node:  # (8)
            ctx.refuse(NAME, node, "something else reads the scaled input")
        elif ctx.fuel(NAME, node, f"LeakyRelu of {x.name}"):
            graph.replace(node, "LeakyRelu", [x], alpha=scaled[1])
            graph.remove(product)
            return


def _from_sum(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (4)."""
    orders = [node.inputs] if node.is_op("Sub") else [node.inputs, node.inputs[::-1]]
    for positive, scaled in orders:
        above = producer(positive, "Relu")
        negative = _scaled_negative_part(scaled)
        if above is None or negative is None or sole_consumer(positive) is not node:
            continue
        x, factor, nodes = negative
        values = constant(factor)
        if above.inputs[0] is not x or sole_consumer(scaled) is not node or values is None:
            continue
        if not _keeps_shape(factor, x):
            return ctx.refuse(NAME, node, "its slope may enlarge its input")  # (7)
        if ctx.fuel(NAME, node, f"PRelu of {x.name}"):
            sign = 1 if node.is_op("Sub") else -1
            slope: Array = np.asarray(sign * values, values.dtype)
            graph.replace(node, "PRelu", [x, graph.constant(slope, f"{node.key}_slope")])
            for each in (above, *nodes):
                graph.remove(each)
        return None
    return None


def _scaled_negative_part(tensor: Tensor) -> tuple[Variable, Constant, list[Node]] | None:
    """x, s and the nodes of s * Relu(-x), of which nothing else reads a part (8)."""
    product = producer(tensor, "Mul")
    if product is None:
        return None
    for part, factor in (product.inputs, product.inputs[::-1]):
        relu = producer(part, "Relu")
        negation = producer(relu.inputs[0], "Neg") if relu is not None else None
        if relu is None or negation is None or not isinstance(factor, Constant):
            continue
        if sole_consumer(part) is product and sole_consumer(relu.inputs[0]) is relu:
            return negation.inputs[0], factor, [product, relu, negation]
    return None


def _keeps_shape(factor: Constant, x: Variable) -> bool:
    """Whether x * factor is known to have the shape of x."""
    if len(factor.shape) > _least_rank(x):
        return False
    if math.prod(factor.shape) == 1:
        return True
    sizes = (x.shape or [])[len(x.shape or []) - len(factor.shape) :]
    return all(size in (1, known) for size, known in zip(factor.shape, sizes, strict=True))


def _least_rank(x: Tensor) -> int:
    """The rank of x; zero, which every rank is at least, if it is unknown."""
    known = rank(x)
    return 0 if known is None else known


PASS = NodePass(NAME, frozenset({"PRelu", "Max", "Add", "Sub"}), rewrite)
