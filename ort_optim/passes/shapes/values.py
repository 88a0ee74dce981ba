"""What is known of small tensors that hold sizes, computed from the shapes of other tensors.

An element is a number, a polynomial over dimension names (symbolic.py), or None where nothing is
known. All that is said holds for every size the names may stand for.

Names used here
    Value           the elements of one tensor
    RULES           operator -> f(node, inputs) -> Value of the first output
    outputs_of      the Values of all outputs of a node
    slice_bounds    what a Slice cuts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ort_optim.graph.view import Node
from ort_optim.graph.weights import Array
from ort_optim.passes.common.match import attr
from ort_optim.passes.shapes.arithmetic import (
    BINARY,
    BOOLEAN,
    UNARY,
    DType,
    Element,
    cast_element,
    python_number,
)

MAX_ELEMENTS = 256  # a shape, a list of pads or axes: never longer


@dataclass(frozen=True)
class Value:
    """Elements in an object array of the tensor's shape, and the tensor's element type."""

    elements: NDArray[Any]
    dtype: DType

    @property
    def flat(self) -> list[Element]:
        """The elements in row-major order."""
        return list(self.elements.reshape(-1))

    @property
    def is_known(self) -> bool:
        """Whether every element is a number."""
        return all(isinstance(element, (int, float)) for element in self.flat)

    @property
    def is_symbolic(self) -> bool:
        """Whether every element is known, and one at least by name only."""
        return None not in self.flat and not self.is_known

    def as_scalar(self) -> Value:
        """The only element, without a dimension."""
        return Value(self.elements.reshape(()), self.dtype)

    def to_array(self) -> Array:
        """The numbers; only where `is_known`."""
        return np.array(self.elements.tolist(), dtype=self.dtype).reshape(self.elements.shape)

    def ints(self) -> list[int] | None:
        """The elements if all are int."""
        found = [element for element in self.flat if isinstance(element, int)]
        return found if len(found) == self.elements.size else None


Rule = Callable[[Node, Sequence[Value | None]], Value | None]


def vector(elements: Sequence[Element], dtype: Any = np.int64) -> Value:
    """A 1-D Value."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return Value(array, np.dtype(dtype))


def of_array(array: Array) -> Value | None:
    """The Value of a constant; None if it is long, or not of numbers."""
    if array.size > MAX_ELEMENTS or array.dtype.kind not in "iufb":
        return None
    elements = np.empty(array.shape, dtype=object)
    elements.reshape(-1)[:] = [python_number(item) for item in array.reshape(-1).tolist()]
    return Value(elements, array.dtype)


def outputs_of(node: Node, inputs: Sequence[Value | None]) -> list[Value | None]:
    """The values of a node's outputs; None where nothing is known."""
    nothing: list[Value | None] = [None] * len(node.outputs)
    try:
        if node.is_op("Split"):
            return _split(node, inputs) or nothing
        if node.is_op(*BINARY):
            found = _binary(node, inputs)
        elif node.is_op(*UNARY):
            found = _unary(node, inputs)
        elif node.is_op(*RULES):
            found = RULES[node.op](node, inputs)
        else:
            return nothing
    except (IndexError, ValueError, TypeError, OverflowError):  # a node that ORT would refuse too
        return nothing
    if found is None or found.elements.size > MAX_ELEMENTS:
        return nothing
    return [found, *nothing[1:]]


def _binary(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    rule = BINARY[node.op]
    if attr(node, "axis", None) is not None or attr(node, "broadcast", 0):
        return None  # the broadcasting of opset 6
    present = [value for value in inputs if value is not None]
    if not present or len(present) < len(inputs):
        return None
    total = present[0]
    for other in present[1:]:
        pairs = np.broadcast(total.elements, other.elements)
        if pairs.size > MAX_ELEMENTS:
            return None
        elements = np.empty(pairs.shape, dtype=object)
        elements.reshape(-1)[:] = [rule(node, total.dtype, a, b) for a, b in pairs]
        total = Value(elements, total.dtype)
    return Value(total.elements, np.dtype(bool)) if node.op in BOOLEAN else total


def _unary(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    value, rule = inputs[0], UNARY[node.op]
    return None if value is None else _map(value, lambda each: rule(value.dtype, each), value.dtype)


def _map(value: Value, rule: Callable[[Element], Element], dtype: DType) -> Value:
    elements = np.empty(value.elements.shape, dtype=object)
    elements.reshape(-1)[:] = [rule(element) for element in value.flat]
    return Value(elements, dtype)


def _cast(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    value, made = inputs[0], _cast_type(node, inputs)
    if value is None or made is None or made.kind not in "iufb":
        return None
    return _map(value, lambda element: cast_element(element, made), made)


def _cast_type(node: Node, inputs: Sequence[Value | None]) -> DType | None:
    if node.op == "CastLike":
        return None if inputs[1] is None else inputs[1].dtype
    to = node.attrs["to"]
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to)) if isinstance(to, int) else None


def _identity(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    return inputs[0]


def _gather(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    data, indices = inputs[0], inputs[1]
    if data is None or indices is None or (at := indices.ints()) is None:
        return None
    axis = attr(node, "axis", 0) % data.elements.ndim
    where = np.array(at, dtype=np.int64).reshape(indices.elements.shape)
    found = np.empty(
        data.elements.shape[:axis] + where.shape + data.elements.shape[axis + 1 :], object
    )
    found[...] = np.take(data.elements, where, axis=axis)  # which may be a bare element
    return Value(found, data.dtype)


def _slice(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    data = inputs[0]
    bounds = slice_bounds(node, inputs)
    if data is None or bounds is None:
        return None
    index: list[Any] = [slice(None)] * data.elements.ndim
    for axis, start, end, step in bounds:
        if not isinstance(start, int) or not isinstance(end, int) or not isinstance(step, int):
            return None
        last = None if step < 0 and end < -data.elements.shape[axis] else end
        index[axis] = slice(start, last, step)
    return Value(data.elements[tuple(index)], data.dtype)


def slice_bounds(
    node: Node, inputs: Sequence[Value | None]
) -> list[tuple[int, Element, Element, Element]] | None:
    """(axis, start, end, step) of each axis that a Slice cuts, in any opset; axis may be < 0."""
    if "starts" in node.attrs:
        starts, ends = list(node.attrs["starts"]), list(node.attrs["ends"])
        axes = list(attr(node, "axes", range(len(starts))))
        return [(a, s, e, 1) for a, s, e in zip(axes, starts, ends, strict=True)]
    given = [inputs[i] if i < len(inputs) else None for i in range(5)]
    present = [i < len(node.inputs) and bool(node.inputs[i].name) for i in range(5)]
    if given[1] is None or given[2] is None:
        return None
    if any(present[i] and given[i] is None for i in (3, 4)):
        return None
    starts, ends = given[1].flat, given[2].flat
    found_axes = given[3].ints() if given[3] is not None else list(range(len(starts)))
    steps = given[4].flat if given[4] is not None else [1] * len(starts)
    if found_axes is None:
        return None
    return list(zip(found_axes, starts, ends, steps, strict=True))


def _concat(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    parts = [value for value in inputs if value is not None]
    if not parts or len(parts) < len(inputs):
        return None
    axis = attr(node, "axis", 1)
    return Value(np.concatenate([part.elements for part in parts], axis=axis), parts[0].dtype)


def axes_given(node: Node, inputs: Sequence[Value | None]) -> list[int] | None:
    """Axes by attribute or second input; [] if not given at all, None if not known."""
    if "axes" in node.attrs:
        return list(node.attrs["axes"])
    if len(node.inputs) < 2 or not node.inputs[1].name:
        return []
    return None if inputs[1] is None else inputs[1].ints()


def _unsqueeze(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    axes = axes_given(node, inputs)
    if inputs[0] is None or axes is None:
        return None
    return Value(np.expand_dims(inputs[0].elements, tuple(axes)), inputs[0].dtype)


def _squeeze(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    axes = axes_given(node, inputs)
    if inputs[0] is None or axes is None:
        return None
    return Value(np.squeeze(inputs[0].elements, tuple(axes) or None), inputs[0].dtype)


def _reshape(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    if inputs[0] is None or inputs[1] is None or (target := inputs[1].ints()) is None:
        return None
    data = inputs[0].elements
    if not attr(node, "allowzero", 0):
        target = [data.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return Value(data.reshape(target), inputs[0].dtype)


def _transpose(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    if inputs[0] is None:
        return None
    return Value(np.transpose(inputs[0].elements, attr(node, "perm", None)), inputs[0].dtype)


def _reduction(op: str) -> Rule:
    def apply(node: Node, inputs: Sequence[Value | None]) -> Value | None:
        value, axes = inputs[0], axes_given(node, inputs)
        if value is None or axes is None or value.elements.ndim != 1:
            return None
        if not axes and attr(node, "noop_with_empty_axes", 0):
            return value
        total: Element = value.elements[0]
        for element in value.elements[1:]:
            total = BINARY[op](node, value.dtype, total, element)
        shape = (1,) if attr(node, "keepdims", 1) else ()
        elements = np.empty(shape, dtype=object)
        elements[...] = total
        return Value(elements, value.dtype)

    return apply


def _constant_of_shape(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    if inputs[0] is None or (shape := inputs[0].ints()) is None:
        return None
    fill = attr(node, "value", None)
    filling = np.zeros(1, np.float32) if fill is None else fill.values
    if math.prod(shape) > MAX_ELEMENTS:
        return None
    return of_array(np.full(shape, filling.reshape(-1)[0], dtype=filling.dtype))


def _expand(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    if inputs[0] is None or inputs[1] is None or (shape := inputs[1].ints()) is None:
        return None
    full = np.broadcast_shapes(inputs[0].elements.shape, tuple(shape))
    if math.prod(full) > MAX_ELEMENTS:
        return None
    return Value(np.broadcast_to(inputs[0].elements, full), inputs[0].dtype)


def _tile(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    if inputs[0] is None or inputs[1] is None or (times := inputs[1].ints()) is None:
        return None
    if inputs[0].elements.size * math.prod(times) > MAX_ELEMENTS:
        return None
    return Value(np.tile(inputs[0].elements, times), inputs[0].dtype)


def _range(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    bounds = [value.ints() if value is not None else None for value in inputs]
    if inputs[0] is None or any(found is None for found in bounds):
        return None
    start, limit, delta = (found[0] for found in bounds if found)
    if delta == 0 or len(range(start, limit, delta)) > MAX_ELEMENTS:
        return None
    return vector(list(range(start, limit, delta)), inputs[0].dtype)


def _where(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    condition, left, right = inputs
    if condition is None or left is None or right is None:
        return None
    triples = np.broadcast(condition.elements, left.elements, right.elements)
    if triples.size > MAX_ELEMENTS:
        return None
    elements = np.empty(triples.shape, dtype=object)
    elements.reshape(-1)[:] = [_choose(c, a, b) for c, a, b in triples]
    return Value(elements, left.dtype)


def _choose(condition: Element, left: Element, right: Element) -> Element:
    if condition is None:
        return left if left == right else None
    return left if condition else right


def _scatter(node: Node, inputs: Sequence[Value | None]) -> Value | None:
    """ScatterND of single elements into a vector."""
    data, indices, updates = inputs
    if data is None or indices is None or updates is None or data.elements.ndim != 1:
        return None
    at = indices.ints()
    if at is None or attr(node, "reduction", "none") != "none" or len(at) != updates.elements.size:
        return None
    elements = data.elements.copy()
    for position, element in zip(at, updates.flat, strict=True):
        elements[position] = element
    return Value(elements, data.dtype)


def _split(node: Node, inputs: Sequence[Value | None]) -> list[Value | None] | None:
    data = inputs[0]
    if data is None:
        return None
    axis = attr(node, "axis", 0)
    length = data.elements.shape[axis]
    if "split" in node.attrs:
        sizes = list(node.attrs["split"])
    elif len(node.inputs) > 1 and node.inputs[1].name:
        found = inputs[1].ints() if inputs[1] is not None else None
        if found is None:
            return None
        sizes = found
    else:
        part = -(-length // len(node.outputs))
        sizes = [min(part, length - part * i) for i in range(len(node.outputs))]
    ends = np.cumsum(sizes)[:-1].tolist()
    return [Value(part, data.dtype) for part in np.split(data.elements, ends, axis=axis)]


RULES: dict[str, Rule] = {
    "Cast": _cast,
    "CastLike": _cast,
    "Identity": _identity,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ReduceProd": _reduction("Mul"),
    "ReduceSum": _reduction("Add"),
    "ReduceMax": _reduction("Max"),
    "ReduceMin": _reduction("Min"),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Where": _where,
    "ScatterND": _scatter,
    "ScatterElements": _scatter,
}
