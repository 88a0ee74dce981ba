"""Chains of nodes that keep the order of the data become one Reshape, or nothing.

    Unsqueeze(Reshape(x))          =>  Reshape(x)
    Reshape(Transpose(x))          =>  Reshape(x)     the Transpose moves dimensions of size 1 only
    Squeeze(Unsqueeze(x))          =>  x              the shape is x's again

A *regrouping* has the elements of its first input in their order, under another shape: Reshape,
Flatten, Squeeze, Unsqueeze; Transpose, Gather of the only index, and ReduceSum, Mean, Max, Min,
Prod as far as they only concern dimensions of size 1. For a regrouping R that reads from a
regrouping P that reads x:

(1) R => x if both have the same shape, or R removes the axes that P adds, or the reverse;
(2) two Squeezes or two Unsqueezes become one, of the axes of both;
(3) otherwise R becomes a Reshape of x to a constant target, if one is known: R's own if it has no
    0, else R's inferred output shape with 0 for a dimension of x that stays where it is, and -1
    for at most one unknown. 0 and -1 together fail on an empty tensor, so not both, unless some
    Reshape of the chain has them already;
(4) P must go: (2) and (3) are done for all readers of P at once or not at all;
(5) the two Unsqueezes of an attention mask, 1 - Unsqueeze(Unsqueeze(m)), stay: ONNX Runtime's
    Attention is not made without both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop, drop_unused
from ort_optim.passes.common.match import attr, input_or_none, ints, rank, same_shape, sole_consumer
from ort_optim.passes.common.movement import (
    normalized_axis,
    only_moves_ones,
    permutation,
    reduced_axes,
    squeezed_axes,
    target_shape,
)

NAME = "reshape-chain"

_ALWAYS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_REDUCTIONS = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"})


@dataclass(frozen=True)
class _Plan:
    """What a reader of P becomes: (op, its axes or target)."""

    op: str
    numbers: tuple[int, ...]


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Merge P = `node` into the regroupings that read it."""
    if not is_regrouping(node) or not node.inputs[0].name:
        return
    out = node.outputs[0]
    readers = [reader for reader in out.outputs if reader.graph is graph and is_regrouping(reader)]
    readers = [reader for reader in readers if reader.inputs[0] is out]
    for reader in list(readers):
        if _undoes(node, reader) and drop(
            NAME, reader, node.inputs[0], ctx, f"with the {node.op} before it, it changes nothing"
        ):  # (1)
            readers.remove(reader)
    if out.is_output or not readers or len(readers) != len(out.outputs):  # (4)
        return
    if _makes_mask(node, readers):  # (5)
        ctx.refuse(NAME, node, "ONNX Runtime's attention looks for both")
        return
    plans = [_plan(node, reader) for reader in readers]
    known = [plan for plan in plans if plan is not None]
    if len(known) < len(readers) or graph.opset < 5:
        ctx.refuse(NAME, node, f"no constant shape for the {readers[0].op} after it is known")
        return
    ops = ", ".join(reader.op for reader in readers)
    if not ctx.fuel(NAME, node, f"goes into the {ops} after it"):
        return
    source, old = node.inputs[0], list(node.inputs[1:])
    for reader, plan in zip(readers, known, strict=True):
        old.extend(reader.inputs[1:])
        _apply(reader, source, plan, graph)
    graph.remove(node)
    drop_unused(graph, old)


def _makes_mask(node: Node, readers: Sequence[Node]) -> bool:
    if node.op != "Unsqueeze" or [reader.op for reader in readers] != ["Unsqueeze"]:
        return False
    last = readers[0].outputs[0]
    cast = sole_consumer(last, "Cast")
    after = sole_consumer(last if cast is None else cast.outputs[0], "Sub")
    return after is not None and isinstance(after.inputs[0], Constant)


def is_regrouping(node: Node) -> bool:
    """Whether the node's only used output has the elements of its first input in their order."""
    if not node.is_op(*_ALWAYS, *_REDUCTIONS, "Transpose", "Gather"):
        return False
    shape = node.inputs[0].shape
    if node.op in _ALWAYS:
        return True
    if node.op == "Transpose":
        perm = permutation(node)
        return perm is not None and only_moves_ones(perm, shape)
    if shape is None:
        return False
    if node.op == "Gather":
        axis = normalized_axis(attr(node, "axis", 0), len(shape))
        return shape[axis] == 1 and isinstance(node.inputs[1], Constant) and _is_one_index(node)
    axes = reduced_axes(node)
    return axes is not None and all(shape[axis] == 1 for axis in axes)


def _is_one_index(node: Node) -> bool:
    return rank(node.inputs[1]) == 0 and ints(node.inputs[1]) in ((0,), (-1,))


def _undoes(first: Node, second: Node) -> bool:  # (1)
    if same_shape(first.inputs[0], second.outputs[0]):
        return True
    if {first.op, second.op} != {"Squeeze", "Unsqueeze"}:
        return False
    if first.op == "Squeeze" and "axes" not in first.attrs and input_or_none(first, 1) is None:
        return False
    mine, other = squeezed_axes(first), squeezed_axes(second)
    return mine is not None and mine == other


def _plan(first: Node, second: Node) -> _Plan | None:
    if first.op == second.op and first.op in ("Squeeze", "Unsqueeze"):  # (2)
        inner, outer = squeezed_axes(first), squeezed_axes(second)
        if inner is not None and outer is not None:
            if first.op == "Unsqueeze":
                return _Plan(first.op, _joined(outer, inner))
            return _Plan(first.op, _joined(inner, outer))
    target = _target(first, second)
    return None if target is None else _Plan("Reshape", target)


def _joined(larger: Sequence[int], smaller: Sequence[int]) -> tuple[int, ...]:
    """Axes of the larger shape: `larger`, and `smaller`, counted where `larger` is left out."""
    joined = list(larger)
    position = count = 0
    wanted = sorted(smaller)
    while wanted:
        if position not in larger:
            if count == wanted[0]:
                joined.append(position)
                wanted.pop(0)
            count += 1
        position += 1
    return tuple(sorted(joined))


def _target(first: Node, second: Node) -> tuple[int, ...] | None:  # (3)
    given = target_shape(second) if second.op == "Reshape" else None
    if given is not None and 0 not in given:
        return given
    source, out = first.inputs[0].shape, second.outputs[0].shape
    if out is None or 0 in out:
        return None
    target = []
    for index, dim in enumerate(out):
        stays = (
            isinstance(dim, str)
            and source is not None
            and index < len(source)
            and source[index] == dim
        )
        target.append(dim if isinstance(dim, int) else 0 if stays else -1)
    if target.count(-1) > 1 or ({0, -1} <= set(target) and not _mixes(first, second)):
        return None
    return tuple(target)


def _mixes(*nodes: Node) -> bool:
    """Whether one of the Reshapes has both 0 and -1 in its target."""
    targets = [target_shape(node) for node in nodes if node.op == "Reshape"]
    return any(target is not None and {0, -1} <= set(target) for target in targets)


def _apply(reader: Node, source: Tensor, plan: _Plan, graph: Graph) -> None:
    if plan.op != "Reshape" and graph.opset < 13:
        graph.replace(reader, plan.op, [source], axes=plan.numbers)
        return
    hint = "shape" if plan.op == "Reshape" else "axes"
    numbers = graph.constant(np.array(plan.numbers, np.int64), f"{reader.key}_{hint}")
    graph.replace(reader, plan.op, [source, numbers])


PASS = NodePass(NAME, _ALWAYS | _REDUCTIONS | {"Transpose", "Gather"}, rewrite)
