"""Two Slices with constant bounds become one.

    Slice(Slice(x, axis i), axis j)        =>  Slice(x, axes i and j)
    Slice(Slice(x, [s, e)), [s', e'))      =>  Slice(x, [s + s', min(e, s + e')))

(1) the first goes: nothing else reads it than Slices, and it is merged into all of them at once;
(2) on an axis that both slice, the steps are 1, and no bound is negative or the length of the axis
is known.
"""

from __future__ import annotations

from ort_optim.graph.view import Dim, Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop_unused
from ort_optim.passes.common.movement import END, Window, slice_inputs, windows

NAME = "slice-chain"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Merge one Slice into the Slices that read it."""
    out = node.outputs[0]
    readers = [reader for reader in out.outputs if reader.is_op("Slice") and reader.graph is graph]
    if not readers or out.is_output:
        return None
    if len(readers) < len(out.outputs):  # (1)
        return ctx.refuse(NAME, node, "not only Slices read it")
    merged = [_merged(node, reader) for reader in readers]
    taken = [each for each in merged if not isinstance(each, str)]
    if len(taken) < len(merged):
        return ctx.refuse(NAME, node, next(each for each in merged if isinstance(each, str)))
    if not ctx.fuel(NAME, node, f"goes into {len(readers)} Slices after it"):
        return None
    source, old = node.inputs[0], list(node.inputs[1:])
    for reader, wanted in zip(readers, taken, strict=True):
        old.extend(reader.inputs[1:])
        inputs, attrs = slice_inputs(graph, source, wanted, reader.key)
        graph.replace(reader, "Slice", inputs, **attrs)
    graph.remove(node)
    drop_unused(graph, old)
    return None


def _merged(first: Node, second: Node) -> dict[int, Window] | str:
    """The windows of both together, or why that can't be told."""
    inner, outer = windows(first), windows(second)
    if inner is None or outer is None or second.inputs[0] is not first.outputs[0]:
        return "bounds or axes are known only at run time"
    shape = first.inputs[0].shape
    merged = dict(inner)
    for axis, window in outer.items():
        both: Window | None = window
        if axis in inner:
            both = _joined(inner[axis], window, None if shape is None else shape[axis])
        if both is None:
            return f"both slice axis {axis}, not from the front"
        merged[axis] = both
    return merged


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
