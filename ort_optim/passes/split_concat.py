"""Taking a tensor apart and putting it together again, or the reverse.

    Concat(Split(x))                           =>  x
    Concat(x[0:a], x[a:b], x[b:])              =>  x
    Concat(x[a:b], x[b:c])                     =>  x[a:c]
    Concat(y, x[0:a], x[a:], z)                =>  Concat(y, x, z)
    Split(Concat(x, y, z)) of the same sizes   =>  x, y, z
    Slice(Concat(x, y, z)) where y is          =>  y

All on one axis. A piece is an output of a Split with known sizes, or a Slice with step 1 of that
axis alone, with bounds counted from the front (which needs the length if they are negative).
Conditions: (1) the pieces of a run follow one another without a gap; bounds beyond the end are
fine, as x[0:a] and x[a:b] join to x[0:b] for every length. (2) A run that is not all of x becomes a
Slice, and for that so many Slices must go that fewer nodes are left. (3) Sizes of what is
concatenated are known where a Split or a Slice is to match them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from ort_optim.graph.view import Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop, drop_unused
from ort_optim.passes.common.match import (
    attr,
    input_or_none,
    ints,
    is_used,
    producer,
    rank,
    sole_consumer,
)
from ort_optim.passes.common.movement import END, Window, normalized_axis, slice_inputs, windows

NAME = "split-concat"


@dataclass(frozen=True)
class _Run:
    """Consecutive inputs of a Concat that are x[start:end]; `x` is None for any other input."""

    inputs: tuple[Tensor, ...]
    x: Tensor | None = None
    start: int = 0
    end: int = 0
    is_all: bool = False


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Simplify one Concat, or one Split or Slice of a Concat."""
    if node.op == "Concat":
        _concat(node, graph, ctx)
    elif node.op == "Split":
        _split(node, graph, ctx)
    else:
        _slice(node, ctx)


def _concat(node: Node, graph: Graph, ctx: Context) -> None:
    split = producer(node.inputs[0], "Split")
    if split is not None and _is_all_of(split, node):
        drop(NAME, node, split.inputs[0], ctx, "it puts together what was taken apart")
        return
    axis = normalized_axis(attr(node, "axis", 1), rank(node.outputs[0]))
    if axis is None or len(node.inputs) < 2:
        return
    runs = [part for run in _runs(node, axis) for part in _settled(run, node, axis)]
    if len(runs) == len(node.inputs):
        return
    if len(runs) == 1 and runs[0].is_all and runs[0].x is not None:
        drop(NAME, node, runs[0].x, ctx, "it puts together what was taken apart")
        return
    if not ctx.fuel(NAME, node, "it puts together some of what was taken apart"):
        return
    old = list(node.inputs)
    inputs: list[Tensor] = []
    for run in runs:
        if run.x is None:
            inputs.extend(run.inputs)
        elif run.is_all:
            inputs.append(run.x)
        else:
            window = {axis: Window(run.start, run.end)}
            given, attrs = slice_inputs(graph, run.x, window, node.key)
            if len(runs) == 1:
                graph.replace(node, "Slice", given, **attrs)
                break
            made = graph.variable(f"{node.key}_slice")
            slice_node = Node("Slice", given, [made], attrs, graph.fresh_name(made.name))
            graph.insert([slice_node], at=node)
            inputs.append(made)
    else:
        graph.replace(node, "Concat", inputs, **node.attrs)
    for piece in old:
        before = producer(piece)
        if before is not None and before.op == "Slice" and not is_used(piece):
            constants = before.inputs[1:]
            graph.remove(before)
            drop_unused(graph, constants)


def _runs(node: Node, axis: int) -> list[_Run]:  # (1)
    runs: list[_Run] = []
    for tensor in node.inputs:
        run = _piece(tensor, axis)
        last = runs[-1] if runs else None
        if last is not None and last.x is not None and run.x is last.x and run.start == last.end:
            runs[-1] = _Run((*last.inputs, tensor), last.x, last.start, run.end)
        else:
            runs.append(run)
    return runs


def _settled(run: _Run, node: Node, axis: int) -> list[_Run]:
    """The run as it will be written; its inputs one by one where joining them gains nothing."""
    apart = [_Run((tensor,)) for tensor in run.inputs]
    if run.x is None or len(run.inputs) == 1:
        return apart
    dim = run.x.shape[axis] if run.x.shape is not None else None
    if Window(run.start, run.end).takes_all(dim):
        return [_Run(run.inputs, run.x, is_all=True)]
    going = sum(
        producer(tensor, "Slice") is not None
        and isinstance(tensor, Variable)
        and sole_consumer(tensor) is node
        for tensor in run.inputs
    )
    is_only = len(run.inputs) == len(node.inputs)
    return [run] if going >= (1 if is_only else 2) else apart  # (2)


def _piece(tensor: Tensor, axis: int) -> _Run:
    before = producer(tensor, "Slice", "Split")
    if before is None:
        return _Run((tensor,))
    x = before.inputs[0]
    if before.op == "Split":
        sizes = split_sizes(before)
        along = normalized_axis(attr(before, "axis", 0), rank(x))
        if sizes is None or along != axis:
            return _Run((tensor,))
        ends = list(accumulate(sizes))
        index = next(i for i, out in enumerate(before.outputs) if out is tensor)
        return _Run((tensor,), x, ends[index] - sizes[index], ends[index])
    taken = windows(before)
    if taken is None or list(taken) != [axis] or x.shape is None:
        return _Run((tensor,))
    window = taken[axis].within(x.shape[axis])
    if window.step != 1 or not 0 <= window.start <= window.end:
        return _Run((tensor,))
    return _Run((tensor,), x, window.start, min(window.end, END))


def _is_all_of(split: Node, concat: Node) -> bool:
    """Whether all outputs of the Split are joined in their order, whatever their sizes."""
    known = rank(split.inputs[0])
    axes = [attr(split, "axis", 0), attr(concat, "axis", 1)]
    if known is not None:
        axes = [axis % known for axis in axes]
    return (
        axes[0] == axes[1]
        and len(split.outputs) == len(concat.inputs)
        and all(out is given for out, given in zip(split.outputs, concat.inputs, strict=True))
    )


def split_sizes(node: Node) -> tuple[int, ...] | None:
    """What each output of a Split has of its axis, if known."""
    if "split" in node.attrs:
        return tuple(node.attrs["split"])
    if input_or_none(node, 1) is not None:
        return ints(node.inputs[1])
    axis = normalized_axis(attr(node, "axis", 0), rank(node.inputs[0]))
    sizes = []
    for out in node.outputs:
        if axis is None or out.shape is None or not isinstance(out.shape[axis], int):
            return None
        sizes.append(out.shape[axis])
    return tuple(sizes)


def _sizes_along(node: Node, axis: int) -> list[int] | None:
    """What each input of a Concat has of the axis, if known."""  # (3)
    sizes = []
    for tensor in node.inputs:
        if tensor.shape is None or not isinstance(tensor.shape[axis], int):
            return None
        sizes.append(tensor.shape[axis])
    return sizes


def _concat_before(node: Node, axis: int | None) -> tuple[Node, list[int]] | None:
    before = producer(node.inputs[0], "Concat")
    if before is None or axis is None:
        return None
    if normalized_axis(attr(before, "axis", 1), rank(before.outputs[0])) != axis:
        return None
    sizes = _sizes_along(before, axis)
    return None if sizes is None else (before, sizes)


def _split(node: Node, graph: Graph, ctx: Context) -> None:
    found = _concat_before(node, normalized_axis(attr(node, "axis", 0), rank(node.inputs[0])))
    sizes = split_sizes(node)
    if found is None or sizes is None:
        return None
    before, given = found
    if list(sizes) != given:
        return ctx.refuse(NAME, node, "it cuts elsewhere than the Concat before it joins")
    if any(out.is_output for out in node.outputs):
        return ctx.refuse(NAME, node, "one of its several outputs is a graph output")
    if ctx.fuel(NAME, node, "it takes apart what was put together"):
        for out, tensor in zip(node.outputs, before.inputs, strict=True):
            graph.redirect(out, tensor)
        graph.remove(node)
    return None


def _slice(node: Node, ctx: Context) -> None:
    taken = windows(node)
    if taken is None or len(taken) != 1:
        return
    [(axis, window)] = taken.items()
    found = _concat_before(node, axis)
    if found is None or window.step != 1:
        return
    before, sizes = found
    window = window.within(sum(sizes))
    for tensor, size, end in zip(before.inputs, sizes, accumulate(sizes), strict=True):
        if size and (window.start, window.end) == (end - size, end):
            drop(NAME, node, tensor, ctx, "it takes one of the tensors that were put together")
            return


PASS = NodePass(NAME, frozenset({"Concat", "Split", "Slice"}), rewrite)
