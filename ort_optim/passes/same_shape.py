"""Nodes that could move or combine elements, and on these shapes do not.

    op(x) => x    where the output has x's shape and x's elements in x's order

(1) Reshape, Flatten, Squeeze, Unsqueeze, Expand: never reorder, so an equal shape is enough.
    Also without knowing shapes: Reshape or Expand to Shape(x), Reshape to 0s and at most one -1
    or to x's own dimensions, Expand to 1s, Flatten of a matrix at axis 1
(2) Transpose that moves only dimensions of size 1 and keeps the shape
(3) Slice that takes all of every axis, Gather of all indices in order, Tile by 1, Pad by 0
(4) Resize and Upsample by scale 1, or to the size there is; no crop
(5) ReduceSum, Mean, Max, Min, Prod over no axes, or over dimensions of size 1 that are kept
(6) AveragePool and MaxPool of kernel 1, stride 1, no padding; global pooling of 1 x 1 images
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ort_optim.graph.view import Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop
from ort_optim.passes.common.match import (
    attr,
    input_or_none,
    ints,
    producer,
    rank,
    same_shape,
    small_constant,
    static_shape,
)
from ort_optim.passes.common.movement import (
    normalized_axis,
    only_moves_ones,
    permutation,
    reduced_axes,
    target_shape,
    windows,
)

NAME = "same-shape"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Remove one node whose output is its input."""
    if node.inputs and node.inputs[0].name and _QUESTIONS[node.op](node):
        drop(NAME, node, node.inputs[0], ctx, f"this {node.op} changes nothing")


def _keeps_shape(node: Node) -> bool:
    return same_shape(node.inputs[0], node.outputs[0])


def _reads_own_shape(node: Node) -> bool:
    """Whether the second input is Shape of the first."""
    target = input_or_none(node, 1)
    shape = None if target is None else producer(target, "Shape")
    return shape is not None and shape.inputs[0] is node.inputs[0] and not shape.attrs


def _reshape(node: Node) -> bool:  # (1)
    if _keeps_shape(node) or _reads_own_shape(node):
        return True
    target, shape = target_shape(node), node.inputs[0].shape
    if target is None or shape is None or len(target) != len(shape):
        return False
    if attr(node, "allowzero", 0) and 0 in target:
        return False
    differing = [
        wanted for wanted, dim in zip(target, shape, strict=True) if wanted not in (0, dim)
    ]
    return differing in ([], [-1])


def _expand(node: Node) -> bool:  # (1)
    if _keeps_shape(node) or _reads_own_shape(node):
        return True
    target, shape = ints(node.inputs[1]), node.inputs[0].shape
    if target is None or shape is None or len(target) > len(shape):
        return False
    aligned = shape[len(shape) - len(target) :]
    return all(wanted in (1, dim) for wanted, dim in zip(target, aligned, strict=True))


def _flatten(node: Node) -> bool:  # (1)
    return _keeps_shape(node) or (rank(node.inputs[0]) == 2 and attr(node, "axis", 1) in (1, -1))


def _transpose(node: Node) -> bool:  # (2)
    perm = permutation(node)
    if perm is None:
        return False
    if list(perm) == sorted(perm):
        return True
    return _keeps_shape(node) and only_moves_ones(perm, node.inputs[0].shape)


def _slice(node: Node) -> bool:  # (3)
    taken, shape = windows(node), node.inputs[0].shape
    if taken is None:
        return False
    if _keeps_shape(node) and all(window.step == 1 for window in taken.values()):
        return True
    if shape is not None and any(axis >= len(shape) for axis in taken):
        return False
    return all(
        window.takes_all(None if shape is None else shape[axis]) for axis, window in taken.items()
    )


def _gather(node: Node) -> bool:  # (3)
    axis = normalized_axis(attr(node, "axis", 0), rank(node.inputs[0]))
    indices = node.inputs[1]
    if axis is None or node.inputs[0].shape is None or rank(indices) != 1:
        return False
    dim, taken = node.inputs[0].shape[axis], ints(indices)
    return isinstance(dim, int) and taken is not None and taken == tuple(range(dim))


def _tile(node: Node) -> bool:  # (3)
    graph = node.graph
    repeats = ints(input_or_none(node, 1))
    if graph is None or graph.opset < 6 or repeats is None:
        return False
    return all(count == 1 for count in repeats)


def _pad(node: Node) -> bool:  # (3)
    given = attr(node, "pads", attr(node, "paddings", None))
    pads = ints(input_or_none(node, 1)) if given is None else given
    return pads is not None and not any(pads)


def _resize(node: Node) -> bool:  # (4)
    if attr(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    if "scales" in node.attrs:
        return all(scale == 1 for scale in node.attrs["scales"])
    is_old = node.op == "Upsample" or (node.graph is not None and node.graph.opset < 11)
    scales = input_or_none(node, 1 if is_old else 2)
    if scales is not None and static_shape(scales) != (0,):
        values = small_constant(scales)
        return values is not None and bool(np.all(values == 1))
    return input_or_none(node, 3) is not None and _keeps_shape(node)


def _reduce(node: Node) -> bool:  # (5)
    axes, shape = reduced_axes(node), node.inputs[0].shape
    if axes is None:
        return False
    if not axes:
        return True
    if not attr(node, "keepdims", 1) or shape is None:
        return False
    return all(shape[axis] == 1 for axis in axes)


def _pool(node: Node) -> bool:  # (6)
    return (
        all(size == 1 for size in attr(node, "kernel_shape", (0,)))
        and all(step == 1 for step in attr(node, "strides", ()))
        and not any(attr(node, "pads", ()))
    )


def _global_pool(node: Node) -> bool:  # (6)
    shape = node.inputs[0].shape
    return shape is not None and len(shape) > 2 and all(dim == 1 for dim in shape[2:])


_QUESTIONS: dict[str, Callable[[Node], bool]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _keeps_shape,
    "Unsqueeze": _keeps_shape,
    "Expand": _expand,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Tile": _tile,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "ReduceSum": _reduce,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
}

PASS = NodePass(NAME, frozenset(_QUESTIONS), rewrite)
