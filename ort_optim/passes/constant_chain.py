"""Consecutive additions, or multiplications, of constants become one.

    (x + a) + b     (x - a) + b     b - (x + a)  ...   =>  x + k     or  k - x
    (x * a) * b     (x / a) * b     x / a / b    ...   =>  x * k

The inner node computes s x + a with s = 1 or -1, the outer one s' y + b, so both together
s s' x + (s' a + b). A division by a constant counts as multiplication by its reciprocal. k is
computed in float64 and rounded once. Conditions:

(1) nothing else reads the inner result;
(2) integers only add, subtract and multiply, which is exact modulo 2^n;
(3) |k| is not much smaller than |a| and |b| in a sum: x + a - a rounds x on purpose, as tricks with
    large constants do;
(4) all of a, b, k are finite and, in a product, normal numbers;
(5) k is no larger than the larger of a and b, unless it is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.graph.weights import Array
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop_unused
from ort_optim.passes.common.match import SMALL_ELEMENTS, producer, sole_consumer

NAME = "constant-chain"

_SUMS = ("Add", "Sub")
_PRODUCTS = ("Mul", "Div")
_CANCELLED = 1 / 16  # k that lost more than four bits to cancellation


@dataclass(frozen=True)
class _Step:
    """sign * x + c in a sum, x * c or x / c in a product."""

    x: Tensor
    c: Constant
    sign: int = 1


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Merge the operation before this one into it."""
    family = _SUMS if node.op in _SUMS else _PRODUCTS
    outer = _step(node)
    before = producer(outer.x, *family) if outer is not None else None
    inner = _step(before) if before is not None else None
    if outer is None or before is None or inner is None or graph.opset < 7:
        return None
    if sole_consumer(before.outputs[0]) is not node:  # (1)
        return ctx.refuse(NAME, node, f"something else reads the {before.op} before it")
    value = _joined(before, node, inner, outer)
    if isinstance(value, str):
        return ctx.refuse(NAME, node, value)
    if not ctx.fuel(NAME, node, f"takes in the {before.op} before it"):
        return None
    k = graph.constant(value, f"{node.key}_constant")
    if family is _PRODUCTS:
        graph.replace(node, "Mul", [inner.x, k])
    elif inner.sign * outer.sign > 0:
        graph.replace(node, "Add", [inner.x, k])
    else:
        graph.replace(node, "Sub", [k, inner.x])
    graph.remove(before)
    drop_unused(graph, [inner.c, outer.c])
    return None


def _step(node: Node) -> _Step | None:
    left, right = node.inputs
    if isinstance(left, Constant) == isinstance(right, Constant):
        return None
    if isinstance(right, Constant):
        return _Step(left, right)
    if node.op == "Div":
        return None
    return _Step(right, left, -1 if node.op == "Sub" else 1)


def _joined(before: Node, node: Node, inner: _Step, outer: _Step) -> Array | str:
    """k, or why it can't be."""
    dtype = outer.c.dtype
    shape = np.broadcast_shapes(tuple(inner.c.shape), tuple(outer.c.shape))
    sizes = [math.prod(each) for each in (shape, inner.c.shape, outer.c.shape)]
    if sizes[0] > max(SMALL_ELEMENTS, *sizes[1:]):  # (5)
        return "the constants together would be larger"
    if dtype.kind in "iu":
        return _joined_integers(before, node, inner, outer)
    if dtype.kind != "f":
        return f"no arithmetic on {dtype}"
    a, b = (step.c.values.astype(np.float64) for step in (inner, outer))
    with np.errstate(all="ignore"):
        if node.op in _SUMS:
            a = -a if before.op == "Sub" and inner.sign > 0 else a
            b = -b if node.op == "Sub" and outer.sign > 0 else b
            k = outer.sign * a + b
            lost = np.abs(k) < _CANCELLED * np.maximum(np.abs(a), np.abs(b))  # (3)
        else:
            a, b = (1 / v if n.op == "Div" else v for v, n in ((a, before), (b, node)))
            k = a * b
            smallest = np.finfo(dtype).tiny  # (4)
            lost = np.minimum(np.minimum(np.abs(a), np.abs(b)), np.abs(k)) < smallest
        rounded = np.asarray(k.astype(dtype))
    if not np.all(np.isfinite(rounded)) or not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return "a constant would overflow"  # (4)
    return "the constants cancel, or are not normal numbers" if np.any(lost) else rounded


def _joined_integers(before: Node, node: Node, inner: _Step, outer: _Step) -> Array | str:  # (2)
    if "Div" in (before.op, node.op):
        return "a division of integers rounds"
    a: NDArray[Any] = inner.c.values
    b: NDArray[Any] = outer.c.values
    with np.errstate(all="ignore"):
        if node.op == "Mul":
            return np.asarray(a * b)
        a = np.negative(a) if before.op == "Sub" and inner.sign > 0 else a
        b = np.negative(b) if node.op == "Sub" and outer.sign > 0 else b
        return np.asarray(np.negative(a) + b if outer.sign < 0 else a + b)


PASS = NodePass(NAME, frozenset({*_SUMS, *_PRODUCTS}), rewrite)
