"""Two Slices with constant bounds become one.

    Slice(Slice(x, axis i), axis j)        =>  Slice(x, axes i and j)
    Slice(Slice(x, [s, e)), [s', e'))      =>  Slice(x, [s + s', min(e, s + e')))

(1) nothing else reads the first; (2) on an axis that both slice, the steps are 1, and no bound is
negative or the length of the axis is known.
"""

from __future__ import annotations

from ort_optim.graph.view import Dim, Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.edits import drop_unused
from ort_optim.passes.match import producer, sole_consumer
from ort_optim.passes.movement import END, Window, slice_inputs, windows

NAME = "slice-chain"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Merge the Slice before this one into it."""
    before = producer(node.inputs[0], "Slice")
    if before is None or before.graph is not graph:
        return None
    if sole_consumer(before.outputs[0]) is not node:  # (1)
        return ctx.refuse(NAME, node, "something else reads the Slice before it")
    inner, outer = windows(before), windows(node)
    if inner is None or outer is None:
        return ctx.refuse(NAME, node, "bounds or axes are known only at run time")
    source = before.inputs[0]
    merged = dict(inner)
    for axis, window in outer.items():
        both = window
        if axis in inner:
            dim = source.shape[axis] if source.shape is not None else None
            joined = _joined(inner[axis], window, dim)
            if joined is None:
                return ctx.refuse(NAME, node, f"both slice axis {axis}, not from the front")
            both = joined
        merged[axis] = both
    if not ctx.fuel(NAME, node, "takes in the Slice before it"):
        return None
    old = [*before.inputs[1:], *node.inputs[1:]]
    inputs, attrs = slice_inputs(graph, source, merged, node.key)
    graph.replace(node, "Slice", inputs, **attrs)
    graph.remove(before)
    drop_unused(graph, old)
    return None


def _joined(first: Window, second: Window, dim: Dim) -> Window | None:  # (2)
    first = first.within(dim)
    if isinstance(dim, int):
        second = second.within(first.end - first.start)
    if first.step != 1 or second.step != 1:
        return None
    if min(first.start, first.end, second.start, second.end) < 0:
        return None
    end = min(first.end, first.start + second.end)
    return Window(min(first.start + second.start, END), end)


PASS = NodePass(NAME, frozenset({"Slice"}), rewrite)
