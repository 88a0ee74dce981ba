"""GELU written out.

    x * (1 + erf(x / sqrt 2)) / 2       =>  (1) Gelu(x)                      from opset 20
    x * (1 + tanh(u)) / 2               =>  (2) Gelu(x; approximate=tanh)    from opset 20,
                                                where u = sqrt(2/pi) (x + 0.044715 x^3)
                                            (3) x * Sigmoid(x * (a + b x^2)) before opset 20,
                                                where u = (a x + b x^3) / 2

(1 + tanh(u)) / 2 = sigmoid(2 u). The three factors may be multiplied in any order, u may be written
as any polynomial in x. Conditions: (4) float32, as ONNX Runtime has Gelu for no other type;
(5) nothing else reads what disappears; (6) constants have one element and do not raise the rank;
(7) in (1) and (2) the constants are GELU's to 1e-6 of their size, some ulps of float32.

Measured, one thread, ms:

    form   shape        written out   result
    (1)    4x197x768    0.276         0.266    ONNX Runtime fuses x / sqrt 2, not x * 0.7071
    (2)    1x128x256    0.037         0.017
    (3)    1x128x3072   0.595         0.459    but 0.306 as ONNX Runtime fuses (8)

(8) of the tanh forms it fuses one before opset 20, which stays: u = k (x + c Pow(x, 3)), and x
    halved before it is multiplied by 1 + tanh(u).
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import compute
from ort_optim.passes.common.match import producer, scalar, sole_consumer
from ort_optim.passes.common.scalars import element_type, scalar_beside, scalar_operand, scaling

NAME = "gelu"

MAX_NODES = 8  # in the polynomial

SIGMOID_NODES = 6  # that (3) has; what it replaces has one more than `nodes`

CLOSE = 1e-6  # (7)

Polynomial = dict[int, float]
"""Coefficients by power of x."""


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Recognize the GELU around one Erf or Tanh."""
    if graph.opset < 8 or element_type(node) != np.float32:  # (4)
        return None
    found = _gate(node)
    if found is None:
        return None
    x, last, between = found
    inner = _polynomial(node.inputs[0], x)
    if inner is None:
        return ctx.refuse(NAME, node, "its argument is not a polynomial of the other factor")
    terms, below = inner
    nodes = [*below, node, *between]
    if not _is_closed([*nodes, last]):  # (5)
        return ctx.refuse(NAME, node, "something else reads a part of it")
    linear, cubic = terms.get(1, 0.0), terms.get(3, 0.0)
    if set(terms) - {1, 3}:
        return ctx.refuse(NAME, node, "its argument has other powers than x and x^3")
    if node.is_op("Erf"):
        if cubic or not math.isclose(linear, math.sqrt(0.5), rel_tol=CLOSE):  # (7)
            ctx.refuse(NAME, node, "its argument is not x / sqrt 2")
        elif graph.opset >= 20 and ctx.fuel(NAME, last, f"Gelu of {x.name}"):  # (1)
            graph.replace(last, "Gelu", [x])
            _remove(graph, nodes)
        return None
    k = math.sqrt(2 / math.pi)
    is_gelu = math.isclose(linear, k, rel_tol=CLOSE) and math.isclose(
        cubic, 0.044715 * k, rel_tol=CLOSE
    )
    if graph.opset >= 20 and is_gelu:  # (2)
        if ctx.fuel(NAME, last, f"Gelu of {x.name}, tanh form"):
            graph.replace(last, "Gelu", [x], approximate="tanh")
            _remove(graph, nodes)
    elif is_gelu and _is_fused(x, below, between):  # (8)
        ctx.refuse(NAME, node, "ONNX Runtime fuses this form")
    elif cubic and len(nodes) >= SIGMOID_NODES and ctx.fuel(NAME, last, f"Sigmoid for {x.name}"):
        _to_sigmoid(graph, last, x, 2 * linear, 2 * cubic)  # (3)
        _remove(graph, nodes)
    return None


def _gate(node: Node) -> tuple[Variable, Node, list[Node]] | None:
    """x, the last node and those between, of x * (1 + node) / 2 in any order."""
    add = sole_consumer(node.outputs[0], "Add")
    shifted = scalar_operand(add) if add is not None else None
    if add is None or shifted is None or shifted[1] != 1:
        return None
    x: Variable | None = None
    factor = 1.0
    last, between = add, [add]
    while x is None or factor != 0.5:
        following = sole_consumer(last.outputs[0], "Mul", "Div")
        if following is None or len(between) > 3:
            return None
        scaled = scaling(following)
        if scaled is not None:
            factor *= scaled[1]
        elif x is not None or following.is_op("Div"):
            return None
        else:
            x = _other(following, last.outputs[0])
            half = producer(x, "Mul", "Div") if factor == 1 else None
            halved = scaling(half) if half is not None else None
            if half is not None and halved is not None and halved[1] == 0.5:
                x, factor = halved[0], 0.5
                between.append(half)
        last = following
        between.append(following)
    return x, last, between[:-1]


def _is_fused(x: Variable, below: list[Node], between: list[Node]) -> bool:
    """Whether it is spelled as ONNX Runtime's fusion expects (8)."""
    cubes = any(node.is_op("Pow") and scalar(node.inputs[1]) == 3 for node in below)
    halves = any(node.is_op("Mul") and scaling(node) == (x, 0.5) for node in between)
    return cubes and len(below) == 4 and halves


def _other(node: Node, tensor: Tensor) -> Variable:
    other: Variable = node.inputs[1] if node.inputs[0] is tensor else node.inputs[0]
    return other


def _polynomial(tensor: Tensor, x: Variable) -> tuple[Polynomial, list[Node]] | None:
    """`tensor` as a polynomial in x, and the nodes that compute it from x."""
    nodes: list[Node] = []

    def expand(at: Tensor) -> Polynomial | None:
        if at is x:
            return {1: 1.0}
        if isinstance(at, Constant):
            value = scalar_beside(at, x)  # (6)
            return None if value is None else {0: value}
        node = producer(at, "Add", "Sub", "Mul", "Div", "Pow")
        if node is None or len(nodes) >= MAX_NODES:
            return None
        if node not in nodes:
            nodes.append(node)
        left, right = (expand(each) for each in node.inputs)
        return None if left is None or right is None else _combine(node.op, left, right)

    terms = expand(tensor)
    return None if terms is None else (terms, nodes)


def _combine(op: str, left: Polynomial, right: Polynomial) -> Polynomial | None:
    """left op right."""
    if op in ("Add", "Sub"):
        sign = 1 if op == "Add" else -1
        return {n: left.get(n, 0.0) + sign * right.get(n, 0.0) for n in {*left, *right}}
    if op == "Mul":
        return _product(left, right)
    value = right.get(0, 0.0)
    if set(right) != {0} or value == 0:
        return None
    if op == "Div":
        return {n: each / value for n, each in left.items()}
    if value not in (2, 3):
        return None
    square = _product(left, left)
    return square if value == 2 else _product(left, square)


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    terms: Polynomial = {}
    for n, one in left.items():
        for m, two in right.items():
            terms[n + m] = terms.get(n + m, 0.0) + one * two
    return terms


def _is_closed(nodes: list[Node]) -> bool:
    """Whether the outputs of all nodes but the last are read by these nodes only (5)."""
    inside = set(nodes)
    return all(
        not node.outputs[0].is_output and inside.issuperset(node.outputs[0].outputs)
        for node in nodes[:-1]
    )


def _to_sigmoid(graph: Graph, last: Node, x: Variable, a: float, b: float) -> None:
    """Let `last` be x * Sigmoid(x * (a + b x^2))."""
    coefficients = [
        graph.constant(np.array(value, np.float32), f"{last.key}_{name}")
        for name, value in (("cubic", b), ("linear", a))
    ]
    square = compute("Mul", [x, x], "square", at=last)
    scaled = compute("Mul", [square, coefficients[0]], "scaled", at=last)
    slope = compute("Add", [scaled, coefficients[1]], "slope", at=last)
    argument = compute("Mul", [x, slope], "argument", at=last)
    gate = compute("Sigmoid", [argument], "gate", at=last)
    graph.replace(last, "Mul", [x, gate])


def _remove(graph: Graph, nodes: list[Node]) -> None:
    for node in nodes:
        graph.remove(node)


PASS = NodePass(NAME, frozenset({"Erf", "Tanh"}), rewrite)
