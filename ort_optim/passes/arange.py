"""Counting written out, as exporters did before opset 11 had Range for them.

    s = [n] -> ConstantOfShape(1) -> NonZero -> Transpose -> Squeeze(1)    =>  Range(0, n, 1)

NonZero of n ones is the row 0 .. n-1, of shape (1, n); what follows makes a vector of it: a
Transpose and a Squeeze, a Squeeze(0), or a Reshape or Flatten-like Reshape to [-1]. Conditions:

(1) the filling is not 0, and the shape s has exactly one element;
(2) each node of the chain is read by the next one only;
(3) opset 11 or later.

n ones are neither stored nor searched. Where n is known, constant folding has been here before.
"""

from __future__ import annotations

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import (
    attr,
    axes_of,
    constant,
    input_or_none,
    ints,
    producer,
    sole_consumer,
    static_shape,
)

NAME = "arange"

RANGE_OPSET = 11
AXES_INPUT_OPSET = 13  # Squeeze takes its axes as an input from here on


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Replace the vector at the end of the chain, found from the NonZero."""
    filled = producer(node.inputs[0], "ConstantOfShape")
    if filled is None:
        return None
    chain = _to_vector(node)
    if chain is None or sole_consumer(filled.outputs[0]) is not node:  # (2)
        return ctx.refuse(NAME, node, "its result is not made a vector straight away")
    filling = attr(filled, "value", None)
    if filling is None or not constant(filling) or static_shape(filled.inputs[0]) != (1,):  # (1)
        return ctx.refuse(NAME, node, "not a vector of ones")
    if (graph.opset or 0) < RANGE_OPSET:  # (3)
        return ctx.refuse(NAME, node, f"Range needs opset {RANGE_OPSET}")
    last = chain[-1]
    if not ctx.fuel(NAME, node, f"{last.key} counts from 0"):
        return None
    count = _as_scalar(filled.inputs[0], last, graph)
    outputs = list(last.outputs)
    for each in (filled, node, *chain):
        graph.remove(each)
    zero = graph.constant(np.array(0, np.int64), f"{outputs[0].name}_start")
    one = graph.constant(np.array(1, np.int64), f"{outputs[0].name}_step")
    graph.insert([graph.make("Range", [zero, count, one], outputs, like=last)], at=last)
    return None


def _to_vector(node: Node) -> list[Node] | None:
    """The nodes that make a vector (n) of the NonZero's (1, n)."""
    after = sole_consumer(node.outputs[0], "Transpose", "Squeeze", "Reshape")
    if after is None:
        return None
    if after.op == "Squeeze":
        return [after] if axes_of(after, 1) in ((0,), (-2,)) else None
    if after.op == "Reshape":
        return [after] if ints(input_or_none(after, 1)) == (-1,) else None
    last = sole_consumer(after.outputs[0], "Squeeze", "Reshape")
    if last is None or attr(after, "perm", (1, 0)) != (1, 0):
        return None
    if last.op == "Squeeze":
        return [after, last] if axes_of(last, 1) in ((1,), (-1,)) else None
    return [after, last] if ints(input_or_none(last, 1)) == (-1,) else None


def _as_scalar(shape: Tensor, at: Node, graph: Graph) -> Tensor:
    """The only element of a shape vector, without its dimension."""
    made_from = producer(shape, "Unsqueeze")
    if made_from is not None and static_shape(made_from.inputs[0]) == ():
        source: Tensor = made_from.inputs[0]
        return source
    count = graph.variable(f"{shape.name}_scalar")
    count.dtype, count.shape = shape.dtype, []
    inputs, attrs = [shape], {}
    if (graph.opset or 0) >= AXES_INPUT_OPSET:
        inputs.append(graph.constant(np.zeros(1, np.int64), f"{shape.name}_axes"))
    else:
        attrs["axes"] = (0,)
    graph.insert([graph.make("Squeeze", inputs, [count], attrs, like=at)], at=at)
    return count


PASS = NodePass(NAME, frozenset({"NonZero"}), rewrite)
