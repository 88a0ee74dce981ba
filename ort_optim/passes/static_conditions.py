"""Control flow that always goes the same way.

    If(true) {A} {B}                        =>  A
    If(c) {A} {A}                           =>  A
    Loop(1, true, v) {body}                 =>  body(0, true, v)
    Loop(0, c, v) {body}                    =>  v
    Where(all true, x, y)                   =>  x

(1) An If whose condition is constant becomes the nodes of the branch taken.
(2) So does one whose branches do the same.
(3) A Loop that runs exactly once becomes its body: the trip count is 1, or absent or larger where
    the body's own condition is constantly false; the first condition is absent or constantly
    true. What it collects per iteration (scan outputs) gets a leading dimension of 1.
(4) A Loop that never runs gives its initial values. With scan outputs it stays: they are empty
    tensors of a shape that only the body knows.
(5) A Where with a constant condition that is the same everywhere gives one of its operands, if
    that operand has the shape of the result.

The nodes get fresh names for their tensors. What the branch captures is visible where it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.constants import known_value
from ort_optim.passes.common.edits import drop
from ort_optim.passes.common.inlining import copies_needed, inline
from ort_optim.passes.common.match import (
    constant,
    is_used,
    rank,
    same_shape,
    scalar,
    small_constant,
)

NAME = "static-conditions"

AXES_INPUT_OPSET = 13  # Unsqueeze takes its axes as an input from here on
MAX_ADDED = 5  # nodes that take a Loop's place beside its body; see measure.WEIGHTS

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
)


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Replace one If, Loop or Where that has no choice."""
    {"If": _rewrite_if, "Loop": _rewrite_loop, "Where": _rewrite_where}[node.op](node, graph, ctx)


def _truth(tensor: Tensor | None) -> bool | None:
    """The value of a constant condition of one element."""
    value = None if tensor is None or not tensor.name else known_value(tensor)
    return bool(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _rewrite_if(node: Node, graph: Graph, ctx: Context) -> None:
    condition = _truth(node.inputs[0])
    then_branch, else_branch = node.attrs["then_branch"], node.attrs["else_branch"]
    if condition is not None:
        taken, other = (then_branch, else_branch) if condition else (else_branch, then_branch)
        why = f"the condition is always {'true' if condition else 'false'}"  # (1)
    elif _same_graph(then_branch, else_branch, {}):
        taken, other, why = then_branch, else_branch, "both branches do the same"  # (2)
    else:
        return None
    if copies_needed(node, taken, taken.outputs) > 1 + len(other.nodes):
        return ctx.refuse(NAME, node, "its results would have to be copied to graph outputs")
    if ctx.fuel(NAME, node, why):
        inline(node, taken, {}, taken.outputs)
    return None


def _rewrite_loop(node: Node, graph: Graph, ctx: Context) -> None:
    trip_count = scalar(node.inputs[0]) if node.inputs[0].name else None
    enters = _truth(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1].name else True
    body: Graph = node.attrs["body"]
    initial = list(node.inputs[2:])
    scans = node.outputs[len(initial) :]
    if (trip_count is not None and trip_count <= 0) or enters is False:
        _skip_loop(node, initial, scans, ctx)
        return None
    once = trip_count == 1 or (
        _truth(body.outputs[0]) is False and (trip_count is not None or not node.inputs[0].name)
    )
    if not once or enters is None:
        return None
    results = body.outputs[1:]
    if len(results) != len(node.outputs) or len(body.inputs) != 2 + len(initial):
        return None
    used_scans = [out for out in scans if is_used(out)]
    if any(rank(out) is None for out in used_scans):
        return ctx.refuse(NAME, node, "the rank of what it collects is not known")
    if copies_needed(node, body, results) + len(used_scans) > MAX_ADDED:
        return ctx.refuse(NAME, node, f"it gives out more than {MAX_ADDED} tensors")
    if ctx.fuel(NAME, node, "it runs exactly once"):  # (3)
        _run_once(node, graph, body, initial, results)
    return None


def _skip_loop(
    node: Node, initial: Sequence[Tensor], scans: Sequence[Variable], ctx: Context
) -> None:
    """(4)"""
    if any(is_used(out) for out in scans):
        return ctx.refuse(NAME, node, "it never runs, but what it collects is used")
    copied = [out for out in node.outputs if out.is_output]
    if len(copied) > MAX_ADDED:
        return ctx.refuse(NAME, node, f"it gives out more than {MAX_ADDED} tensors")
    if ctx.fuel(NAME, node, "it never runs"):
        body: Graph = node.attrs["body"]
        for inner in body.nodes:
            body.remove(inner)
        body.nodes = []
        body.constants.clear()
        inline(node, body, {}, [*initial, *scans])
    return None


def _run_once(
    node: Node, graph: Graph, body: Graph, initial: Sequence[Tensor], results: Sequence[Tensor]
) -> None:
    number, condition, *carried = body.inputs
    arguments: dict[Tensor, Tensor] = dict(zip(carried, initial, strict=True))
    shape = (1,) if rank(number) == 1 else ()
    if is_used(number):
        arguments[number] = graph.constant(np.zeros(shape, np.int64), number.name)
    if is_used(condition):
        shape = (1,) if rank(condition) == 1 else ()
        arguments[condition] = graph.constant(np.ones(shape, np.bool_), condition.name)
    collected: list[Tensor] = []
    for out, result in zip(node.outputs, results, strict=True):
        scanned = len(collected) >= len(initial) and is_used(out)
        collected.append(_unsqueezed(result, body) if scanned else result)
    inline(node, body, arguments, collected)


def _unsqueezed(result: Tensor, body: Graph) -> Variable:
    """The result of the only iteration with the dimension over all iterations in front."""
    out = body.variable(f"{result.name}_collected")
    inputs, attrs = [result], {}
    if (body.opset or 0) >= AXES_INPUT_OPSET:
        inputs.append(body.constant(np.zeros(1, np.int64), f"{result.name}_axes"))
    else:
        attrs["axes"] = (0,)
    made = Node("Unsqueeze", inputs, [out], attrs)
    made.graph = body
    body.nodes.append(made)
    return out


def _rewrite_where(node: Node, graph: Graph, ctx: Context) -> None:
    condition = small_constant(node.inputs[0])
    if condition is None or condition.size == 0 or condition.all() != condition.any():
        return None
    kept = node.inputs[1] if condition.all() else node.inputs[2]
    if not same_shape(kept, node.outputs[0]):
        return ctx.refuse(NAME, node, "its result may be larger than the operand it picks")
    drop(NAME, node, kept, ctx, f"the condition is always {bool(condition.all())}".lower())  # (5)
    return None


def _same_graph(left: Graph, right: Graph, pairs: dict[Tensor, Tensor]) -> bool:
    """Whether two subgraphs compute the same from the same captures, node by node."""
    if len(left.nodes) != len(right.nodes) or len(left.outputs) != len(right.outputs):
        return False
    if len(left.inputs) != len(right.inputs):
        return False
    pairs.update(zip(left.inputs, right.inputs, strict=True))
    for a, b in zip(left.nodes, right.nodes, strict=True):
        if (a.op, a.domain or "", len(a.outputs)) != (b.op, b.domain or "", len(b.outputs)):
            return False
        if a.op in RANDOM or not _same_tensors(a.inputs, b.inputs, pairs):
            return False
        if a.attrs.keys() != b.attrs.keys():
            return False
        if not all(_same_attribute(a.attrs[name], b.attrs[name], pairs) for name in a.attrs):
            return False
        pairs.update(zip(a.outputs, b.outputs, strict=True))
    return _same_tensors(left.outputs, right.outputs, pairs)


def _same_tensors(
    left: Sequence[Tensor], right: Sequence[Tensor], pairs: dict[Tensor, Tensor]
) -> bool:
    return len(left) == len(right) and all(
        pairs.get(a) is b or a is b or (not a.name and not b.name) or _same_constant(a, b)
        for a, b in zip(left, right, strict=True)
    )


def _same_constant(left: Tensor, right: Tensor) -> bool:
    if not isinstance(left, Constant) or not isinstance(right, Constant):
        return False
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    a, b = constant(left), constant(right)
    assert a is not None
    assert b is not None
    return a.dtype.kind != "O" and a.tobytes() == b.tobytes()


def _same_attribute(left: Any, right: Any, pairs: dict[Tensor, Tensor]) -> bool:
    if isinstance(left, Graph):
        return isinstance(right, Graph) and _same_graph(left, right, pairs)
    if isinstance(left, Constant):
        return _same_constant(left, right)
    return bool(left == right)


PASS = NodePass(NAME, frozenset({"If", "Loop", "Where"}), rewrite)
