"""Slices that together take all of an axis, each element once, become one Split.

    x[:, 0:a], x[:, a:b], x[:, b:]   =>   Split(x, axis = 1, sizes (a, b - a, ...))

(1) each slices that axis alone, with step 1; (2) its length is known; (3) the Slices stand in one
graph; (4) x is a tensor of numbers or truth values.

Measured with all other passes on, one thread: XFeat 194 nodes become 132, GTCRN 345 become 331,
both as fast as before within noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.edits import drop_unused
from ort_optim.passes.common.movement import Window, windows

NAME = "slices-to-split"


def rewrite(root: Graph, ctx: Context) -> None:
    """Replace the Slices of each tensor that cover an axis."""
    for graph in root.walk():
        order = {node: index for index, node in enumerate(graph.nodes)}
        for node in graph.nodes:
            if node.is_op("Slice") and not node.dead:
                _cover(node, graph, order, ctx)


def _cover(node: Node, graph: Graph, order: dict[Node, int], ctx: Context) -> None:
    """Replace a Slice that starts at 0, and those that take the rest."""
    x = node.inputs[0]
    found = _window(node)
    if found is None or x.dtype is None or x.dtype.kind not in "biuf":  # (4)
        return
    axis, first = found
    dim = x.shape[axis]
    if first != Window(0, first.end) or first.end == dim:
        return
    by_start: dict[int, tuple[Node, Window]] = {}
    for reader in x.outputs:
        other = _window(reader) if reader.graph is graph else None  # (3)
        if other is not None and other[0] == axis and other[1].start not in by_start:
            by_start[other[1].start] = (reader, other[1])
    parts: list[tuple[Node, Window]] = []
    position = 0
    while position < dim and position in by_start:
        parts.append(by_start[position])
        if parts[-1][1].end <= position:
            return
        position = parts[-1][1].end
    if position != dim:
        return
    if ctx.fuel(NAME, node, f"{len(parts)} Slices cover axis {axis}"):
        slices = [part for part, _ in parts]
        first_of_all = min(slices, key=order.__getitem__)
        _replace(slices, first_of_all, [w.end - w.start for _, w in parts], axis, graph)


def _window(node: Node) -> tuple[int, Window] | None:
    """Axis and window, counted from the front, of a Slice of one axis of known length."""
    taken = windows(node) if node.is_op("Slice") else None
    shape = node.inputs[0].shape
    if taken is None or len(taken) != 1 or shape is None:  # (1)
        return None
    [(axis, window)] = taken.items()
    if window.step != 1 or axis >= len(shape) or not isinstance(shape[axis], int):  # (2)
        return None
    return axis, window.within(shape[axis])


def _replace(slices: list[Node], at: Node, sizes: list[int], axis: int, graph: Graph) -> None:
    x, name = at.inputs[0], at.key
    outputs = [node.outputs[0] for node in slices]
    old = [tensor for node in slices for tensor in node.inputs[1:]]
    for node in slices:
        graph.remove(node)
    drop_unused(graph, old)
    inputs: list[Tensor] = [x]
    attrs: dict[str, Any] = {"axis": axis}
    if graph.opset < 13:
        attrs["split"] = tuple(sizes)
    else:
        inputs.append(graph.constant(np.array(sizes, np.int64), f"{name}_split"))
    graph.insert([graph.make("Split", inputs, outputs, attrs, like=at)], at=at)


PASS = GraphPass(NAME, rewrite)
