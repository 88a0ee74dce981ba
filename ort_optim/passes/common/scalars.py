"""Questions about elementwise formulas with one-element constants: x + 3, clip(x, 0, 6), x / 6."""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Node, Tensor, Variable
from ort_optim.passes.common.match import attr, input_or_none, producer, rank, scalar, sole_consumer


def element_type(node: Node) -> np.dtype[np.generic] | None:
    """The type that all operands of an elementwise node share, known as soon as one is known.

    A constant operand tells it where shape inference gave up further above.
    """
    tensors = (*node.outputs, *node.inputs)
    return next((each.dtype for each in tensors if each.name and each.dtype is not None), None)


def scalar_beside(constant: Tensor, x: Tensor) -> float | None:
    """The value of a one-element constant that leaves the shape of `x` as it is."""
    if not isinstance(constant, Constant) or constant.dtype.kind not in "fV":
        return None
    known = rank(x)
    if len(constant.shape) > (0 if known is None else known):
        return None
    return scalar(constant)


def scalar_operand(node: Node) -> tuple[Variable, float, bool] | None:
    """For a binary node of a computed x and a scalar: x, the scalar, and whether it comes first."""
    if len(node.inputs) != 2:
        return None
    left, right = node.inputs
    for x, constant, leads in ((left, right, False), (right, left, True)):
        value = scalar_beside(constant, x) if isinstance(x, Variable) else None
        if value is not None:
            return x, value, leads
    return None


def scaling(node: Node) -> tuple[Variable, float] | None:
    """x and m for a node that computes m * x as Mul or Div."""
    found = scalar_operand(node) if node.is_op("Mul", "Div") else None
    if found is None:
        return None
    x, value, leads = found
    if node.is_op("Mul"):
        return x, value
    return None if leads or value == 0 else (x, 1 / value)


def clamp_of(node: Node) -> tuple[Variable, float, float] | None:
    """x, low and high for a node that computes min(max(x, low), high) with low <= high.

    Clip with bounds as attributes or constants, Relu, Min and Max with a scalar.
    """
    low, high = -math.inf, math.inf
    x = node.inputs[0]
    if node.is_op("Clip"):
        bounds = (input_or_none(node, 1), input_or_none(node, 2))
        values = [scalar(bound) for bound in bounds]
        if any(b is not None and v is None for b, v in zip(bounds, values, strict=True)):
            return None
        low = values[0] if values[0] is not None else float(attr(node, "min", low))
        high = values[1] if values[1] is not None else float(attr(node, "max", high))
    elif node.is_op("Relu"):
        low = 0.0
    elif node.is_op("Min", "Max"):
        found = scalar_operand(node)
        if found is None:
            return None
        x, value, _ = found
        low, high = (low, value) if node.is_op("Min") else (value, high)
    else:
        return None
    if not isinstance(x, Variable) or not low <= high:
        return None
    return x, low, high


def line_of(tensor: Variable, limit: int = 3) -> tuple[Variable, float, float, list[Node]]:
    """`tensor` as a * x + b with the x furthest away: x, a, b, and the nodes between, last first.

    Only nodes that nothing else needs are walked over, at most `limit`.
    """
    a, b, nodes = 1.0, 0.0, list[Node]()
    while len(nodes) < limit:
        node = producer(tensor, "Add", "Sub", "Mul", "Div")
        reader = tensor.outputs[0] if len(tensor.outputs) == 1 else None
        if node is None or reader is None or sole_consumer(tensor) is not reader:
            break
        found = scalar_operand(node)
        if found is None:
            break
        x, value, leads = found
        if node.is_op("Add"):
            b += a * value
        elif node.is_op("Sub"):
            b, a = (b + a * value, -a) if leads else (b - a * value, a)
        elif node.is_op("Mul"):
            a *= value
        elif not leads and value != 0:
            a /= value
        else:
            break
        nodes.append(node)
        tensor = x
    return tensor, a, b, nodes
