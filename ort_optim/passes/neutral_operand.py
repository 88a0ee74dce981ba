"""Arithmetic with a neutral constant, and choices that are made in advance.

    x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1, x ** 1    =>  x
    And(x, true), Or(x, false), Xor(x, false)           =>  x
    Where(all true, x, y) => x,  Where(all false, x, y) => y

Conditions: (1) every element of the constant is the neutral one, (2) broadcasting leaves the
shape of x as it is, (3) x + (+0) makes +0 of -0, which only a division can tell: refused where
the result is a divisor; the rest is exact for every x, infinities and NaN included, (4) a vector
stays where ONNX Runtime looks for it: the scale and bias of a written-out normalization, the bias
of a MatMul. Without them its LayerNormalization, Attention and BiasGelu are not made (a BERT with
untrained biases runs as 211 nodes instead of 55).
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop
from ort_optim.passes.common.match import ends_fused_pattern, producer, rank, same_shape

NAME = "neutral-operand"

_NEUTRAL = {
    "Add": 0,
    "Sub": 0,
    "Mul": 1,
    "Div": 1,
    "Pow": 1,
    "And": True,
    "Or": False,
    "Xor": False,
}
_COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor"})
_MAX_ELEMENTS = 1 << 20  # larger constants are weights, and reading them each round would cost


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Remove one node whose constant operand does nothing."""
    if node.op == "Where":
        _where(node, ctx)
        return
    x, other = node.inputs
    if isinstance(x, Constant) and node.op in _COMMUTATIVE:
        x, other = other, x
    if isinstance(x, Constant) or not _is_filled_with(other, _NEUTRAL[node.op]):  # (1)
        return
    if len(other.shape) == 1 and _is_fused_with(x):  # (4)
        ctx.refuse(NAME, node, "ONNX Runtime fuses it with what comes before")
    elif not _leaves_shape(x, other, node):  # (2)
        ctx.refuse(NAME, node, "broadcasting may change the shape")
    elif node.op in ("Add", "Sub") and _is_divisor(node.outputs[0]):  # (3)
        ctx.refuse(NAME, node, "the result is a divisor, where the sign of zero matters")
    else:
        drop(NAME, node, x, ctx, f"{node.op} with {_NEUTRAL[node.op]} changes nothing")


def _where(node: Node, ctx: Context) -> None:
    condition, *choices = node.inputs
    for value, chosen in zip((True, False), choices, strict=True):
        if not _is_filled_with(condition, value):
            continue
        if same_shape(chosen, node.outputs[0]):
            drop(NAME, node, chosen, ctx, f"its condition is always {str(value).lower()}")
        else:
            ctx.refuse(NAME, node, "broadcasting may change the shape")


def _is_filled_with(tensor: Tensor, value: float) -> bool:
    if not isinstance(tensor, Constant) or not 0 < math.prod(tensor.shape) <= _MAX_ELEMENTS:
        return False
    return tensor.dtype.kind != "O" and bool(np.all(tensor.values == value))


def _leaves_shape(x: Tensor, other: Tensor, node: Node) -> bool:
    known = rank(x)
    if known is not None and len(other.shape) <= known and math.prod(other.shape) == 1:
        return True
    return same_shape(x, node.outputs[0])


def _is_fused_with(x: Tensor) -> bool:
    return producer(x, "MatMul") is not None or ends_fused_pattern(x)


def _is_divisor(tensor: Tensor) -> bool:
    if tensor.is_output:
        return False
    return any(
        reader.is_op("Reciprocal") or (reader.is_op("Div") and reader.inputs[1] is tensor)
        for reader in tensor.outputs
    )


PASS = NodePass(NAME, frozenset(_NEUTRAL) | {"Where"}, rewrite)
