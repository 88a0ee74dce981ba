"""Output shapes of Slice, and what follows from a model running without an error.

A Slice of a mask of 1024 rows to n of them has min(n, 1024) rows. Where these meet n rows of
another tensor in an elementwise operator of the main graph, the model fails unless n <= 1024:
min(n, 1024) = n, or one of them is 1, and then n <= 1024 as well. As nothing has to be preserved
of runs that fail, n <= 1024 may be assumed everywhere, also before that operator.

Names used here
    Limits          the upper bounds learnt that way
    sliced_shape    Slice -> Shape
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ort_optim.graph.view import Node
from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.arithmetic import Element
from ort_optim.passes.shapes.symbolic import Poly, Size
from ort_optim.passes.shapes.values import Value, slice_bounds

Shape = list[Size | None]

BEYOND_ANY_SIZE = 2**31 - 1  # exporters write this or more for "to the end"
MAX_LIMITS = 32


class Limits:
    """Numbers that sizes known by name never exceed in a run without an error."""

    def __init__(self) -> None:
        self._minima: dict[Size, tuple[Poly, int]] = {}  # name of min(size, limit) -> both
        self._known: dict[Poly, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def minimum(self, size: Poly, limit: int) -> Size:
        """min(size, limit), for a size that is at least 0."""
        for known, bound in self._known.items():
            order = symbolic.compare(size, known) if bound <= limit else None
            if order is not None and order <= 0:
                return size
        made = symbolic.symbol(f"min(({size}), {limit})")
        self._minima[made] = (size, limit)
        return made

    def learn(self, shapes: Sequence[Shape | None]) -> None:
        """Take in that these shapes are broadcast together."""
        for left, right in itertools.pairwise(shape for shape in shapes if shape is not None):
            for a, b in zip(reversed(left), reversed(right), strict=False):
                self._learn_pair(a, b)
                self._learn_pair(b, a)

    def _learn_pair(self, minimum: Size | None, size: Size | None) -> None:
        if minimum is None or minimum not in self._minima or len(self) >= MAX_LIMITS:
            return
        of, limit = self._minima[minimum]
        if of == size and limit > 1:  # a minimum of 1 by the limit would tell nothing of the size
            self._known[of] = min(limit, self._known.get(of, limit))


def sliced_shape(
    node: Node, source: Shape | None, values: Sequence[Value | None], limits: Limits
) -> Shape | None:
    """The shape of what a Slice leaves of a tensor of shape `source`."""
    bounds = slice_bounds(node, values)
    if source is None or bounds is None:
        return None
    made = list(source)
    for axis, start, end, step in bounds:
        size = made[axis]
        made[axis] = None if size is None else _length(size, start, end, step, limits)
    return made


def _length(size: Size, start: Element, end: Element, step: Element, limits: Limits) -> Size | None:
    if step != 1:
        return None
    first, last = _clamped(start, size, limits), _clamped(end, size, limits)
    if first is None or last is None:
        return None
    length = symbolic.subtract(last, first)
    return length if length is not None and symbolic.is_natural(length) else None


def _clamped(bound: Element, size: Size, limits: Limits) -> Size | None:
    """Where a bound of a Slice lies, in 0..size."""
    if not isinstance(bound, (int, Poly)):
        return None
    if isinstance(bound, int) and abs(bound) >= BEYOND_ANY_SIZE:
        return size if bound > 0 else 0
    if symbolic.is_natural(bound):
        order = symbolic.compare(bound, size)
        if order is not None:
            return size if order >= 0 else bound
        if isinstance(bound, Poly) and isinstance(size, int):
            return limits.minimum(bound, size)
        return None
    if symbolic.compare(bound, 0) == -2:
        from_start = symbolic.add(size, bound)
        if from_start is not None and symbolic.is_natural(from_start):
            return from_start
    return None
