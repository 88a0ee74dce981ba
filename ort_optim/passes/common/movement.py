"""What operators that only move data do, read from attributes or inputs alike, in every opset.

Axes come back non-negative. Each question is answered with None where the answer depends on
something that is known only at run time.

Names used here
    normalized_axis, normalized_axes   axes counted from the front
    permutation                        of a Transpose
    squeezed_axes                      of Squeeze and Unsqueeze
    reduced_axes                       of the Reduce family
    target_shape                       of a Reshape, with its 0 and -1
    Window, windows                    of a Slice: one half-open range for each axis
    slice_inputs                       the inputs and attributes of a Slice of these windows
    only_moves_ones                    whether a permutation leaves the order of the data as it is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ort_optim.graph.view import Dim, Graph, Node, Tensor
from ort_optim.passes.common.match import attr, axes_of, input_or_none, ints, rank

END = np.iinfo(np.int64).max
"""An end that no dimension reaches."""

LARGE = np.iinfo(np.int32).max
"""Exporters write this, or more, for "to the end"."""


def normalized_axis(axis: int, of_rank: int | None) -> int | None:
    """The axis counted from the front."""
    if axis >= 0:
        return axis
    return None if of_rank is None else axis + of_rank


def normalized_axes(axes: Sequence[int] | None, of_rank: int | None) -> tuple[int, ...] | None:
    """The axes counted from the front, in the order given."""
    if axes is None:
        return None
    found = [normalized_axis(axis, of_rank) for axis in axes]
    return None if None in found else tuple(axis for axis in found if axis is not None)


def permutation(node: Node) -> tuple[int, ...] | None:
    """A Transpose's permutation: output axis i is input axis perm[i]."""
    given = attr(node, "perm", None)
    if given is not None:
        return tuple(given)
    known = rank(node.inputs[0])
    return None if known is None else tuple(reversed(range(known)))


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `perm`."""
    return tuple(int(axis) for axis in np.argsort(perm))


def only_moves_ones(perm: Sequence[int], shape: Sequence[Dim] | None) -> bool:
    """Whether transposing a tensor of this shape leaves the order of its elements as it is."""
    if shape is None:
        return list(perm) == sorted(perm)
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def squeezed_axes(node: Node) -> tuple[int, ...] | None:
    """The axes a Squeeze removes or an Unsqueeze adds, counted in the larger shape."""
    axes = axes_of(node, 1)
    larger = node.inputs[0] if node.op == "Squeeze" else node.outputs[0]
    known = rank(larger)
    if axes is None:
        if input_or_none(node, 1) is not None or larger.shape is None:
            return None
        if not all(isinstance(dim, int) for dim in larger.shape):
            return None
        return tuple(i for i, dim in enumerate(larger.shape) if dim == 1)
    if known is None and node.op == "Unsqueeze" and rank(node.inputs[0]) is not None:
        known = len(node.inputs[0].shape) + len(axes)
    found = normalized_axes(axes, known)
    return None if found is None else tuple(sorted(found))


def reduced_axes(node: Node) -> tuple[int, ...] | None:
    """The axes a Reduce operator reduces; empty if it is told to do nothing."""
    known = rank(node.inputs[0])
    if "axes" not in node.attrs and input_or_none(node, 1) is None:
        axes: tuple[int, ...] | None = ()
    else:
        axes = normalized_axes(axes_of(node, 1), known)
    if axes != ():
        return axes
    if attr(node, "noop_with_empty_axes", 0):
        return ()
    return None if known is None else tuple(range(known))


def target_shape(node: Node) -> tuple[int, ...] | None:
    """A Reshape's constant target, with 0 for "as in the input" unless allowzero is set."""
    if "shape" in node.attrs:
        return tuple(node.attrs["shape"])
    return ints(input_or_none(node, 1))


@dataclass(frozen=True)
class Window:
    """What a Slice takes of one axis: elements start, start + step, ... before end."""

    start: int
    end: int
    step: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether it takes all of an axis of any length."""
        return self.start == 0 and self.end >= LARGE and self.step == 1

    def within(self, dim: Dim) -> Window:
        """The same elements, written with 0 <= start <= end <= dim where that can be done."""
        if not isinstance(dim, int) or self.step < 1:
            return self
        start = min(max(self.start + (dim if self.start < 0 else 0), 0), dim)
        end = min(max(self.end + (dim if self.end < 0 else 0), 0), dim)
        return Window(start, max(start, end), self.step)

    def takes_all(self, dim: Dim) -> bool:
        """Whether it takes all of an axis of this length, in order."""
        if self.is_whole or not isinstance(dim, int):
            return self.is_whole
        return self.within(dim) == Window(0, dim)


def windows(node: Node) -> dict[int, Window] | None:
    """A Slice's window for each axis it names."""
    starts, ends = _slice_part(node, "starts", 1), _slice_part(node, "ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    axes: tuple[int, ...] | None = tuple(range(len(starts)))
    if "axes" in node.attrs or input_or_none(node, 3) is not None:
        axes = normalized_axes(axes_of(node, 3), rank(node.inputs[0]))
    steps: tuple[int, ...] | None = (1,) * len(starts)
    if input_or_none(node, 4) is not None:
        steps = ints(node.inputs[4])
    if (
        axes is None
        or steps is None
        or not len(axes) == len(set(axes)) == len(steps) == len(starts)
    ):
        return None
    return {
        axis: Window(start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def slice_inputs(
    graph: Graph, source: Tensor, wanted: Mapping[int, Window], hint: str
) -> tuple[list[Tensor], dict[str, Any]]:
    """Inputs and attributes for a Slice of `source`, in the form of the graph's opset."""
    axes = sorted(wanted)
    columns = {
        "starts": [wanted[axis].start for axis in axes],
        "ends": [wanted[axis].end for axis in axes],
        "axes": axes,
        "steps": [wanted[axis].step for axis in axes],
    }
    if set(columns["steps"]) == {1}:
        del columns["steps"]
    if graph.opset < 10:
        return [source], {name: tuple(column) for name, column in columns.items()}
    made = [
        graph.constant(np.array(column, np.int64), f"{hint}_{name}")
        for name, column in columns.items()
    ]
    return [source, *made], {}


def _slice_part(node: Node, name: str, index: int) -> tuple[int, ...] | None:
    if name in node.attrs:
        return tuple(node.attrs[name])
    return ints(input_or_none(node, index))
