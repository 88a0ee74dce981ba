"""A constant for each element of a short last axis, repeated along the axes before it.

    Mul(x, c)   =>   Mul(x, c repeated)     x (..., W, k), c (k), repeated (W, k)

ONNX Runtime goes over x in runs as long as x and c lie the same way, here k, at 17 ns a run beside
what the elements take. Per-channel arithmetic before a network in NHWC, and on the corners of boxes
behind one, has runs of 2 to 4. Measured, one thread, us, with Mul; Add, Sub, Div and Max alike:

    x              c     as it is   repeated
    1x224x224x3    3     840        38   (224, 3)
    1x256x128x3    3     559        30   (128, 3)
    8400x4         4     121        12   (8400, 4)
    1x64x64x16     16    73         19   (64, 16)
    1x14x14x32     32    10         7.5  (14, 32)
    1x56x56x64     64    86         43   (56, 64)

Conditions: (1) float32, k from 2 to 32 and at least 256 runs; (2) c has no other axis, does not
enlarge x, and x is not made by a MatMul, with which ONNX Runtime fuses a bias as it is; (3) the
sizes that c is repeated along are known. It is repeated until a run has 256 elements or the next
axis would make it larger than 256 KiB. Passes that take a constant per channel into a layer don't
know it in this form, so this one waits until there is nothing else to do.
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop_unused
from ort_optim.passes.common.match import producer
from ort_optim.passes.measure import ARITHMETIC, has_short_axis

NAME = "long-rows"

LEAST_RUNS = 256
LONG_RUN = 256
MOST_ELEMENTS = 1 << 16


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Repeat the constant operand of one node."""
    found = _short_operand(node)
    if found is None:
        return None
    index, x, c = found
    repeated = _repeated(x, c)
    if repeated is None:
        return ctx.refuse(NAME, node, "the size before the last axis is not known, or large")
    if producer(x, "MatMul") is not None:  # (2)
        return ctx.refuse(NAME, node, "ONNX Runtime may fuse it with a MatMul")
    if ctx.fuel(NAME, node, f"{c.name} is repeated {repeated[:-1]} times"):
        inputs: list[Tensor] = list(node.inputs)
        values = np.ascontiguousarray(np.broadcast_to(c.values.reshape(-1), repeated))
        inputs[index] = graph.constant(values, f"{c.name}_rows")
        graph.replace(node, node.op, inputs, **node.attrs)
        drop_unused(graph, [c])
    return None


def _short_operand(node: Node) -> tuple[int, Variable, Constant] | None:
    """Where a node has a constant that makes it go over short runs, what it is applied to, and the
    constant: conditions (1) and (2)."""
    if len(node.inputs) != 2:
        return None
    for index, (c, x) in enumerate((node.inputs, node.inputs[::-1])):
        if isinstance(c, Constant) and isinstance(x, Variable) and _goes_over_short_runs(x, c):
            return index, x, c
    return None


def _goes_over_short_runs(x: Variable, c: Constant) -> bool:
    if x.shape is None or c.dtype != np.float32 or not has_short_axis(c):
        return False
    if len(c.shape) > len(x.shape) or x.shape[-1] != c.shape[-1]:
        return False
    runs = math.prod(dim for dim in x.shape[:-1] if isinstance(dim, int))
    return runs >= LEAST_RUNS


def _repeated(x: Variable, c: Constant) -> tuple[int, ...] | None:
    """(3): the shape of c when it is repeated; None where that leaves it as it is."""
    assert x.shape is not None
    shape: tuple[int, ...] = (c.shape[-1],)
    for dim in reversed(x.shape[:-1]):
        if not isinstance(dim, int) or math.prod(shape) >= LONG_RUN:
            break
        if math.prod(shape) * dim > MOST_ELEMENTS:
            break
        shape = (dim, *shape)
    return shape if math.prod(shape) > shape[-1] else None


PASS = NodePass(NAME, ARITHMETIC, rewrite, waits=True)
