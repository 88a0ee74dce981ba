"""Questions that passes ask about nodes and tensors. None of them changes anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from ort_optim.graph.view import Constant, Node, Tensor, Variable
from ort_optim.graph.weights import Array

SMALL_ELEMENTS = 4096  # an axes list, a shape, a pads vector: never longer


def producer(tensor: Tensor, *ops: str) -> Node | None:
    """The node that makes `tensor`, if it is one of the named standard operators (any if none)."""
    if isinstance(tensor, Constant) or not tensor.inputs:
        return None
    node: Node = tensor.inputs[0]
    return node if not ops or node.is_op(*ops) else None


def sole_consumer(tensor: Variable, *ops: str) -> Node | None:
    """The only reader of `tensor`, if it has exactly one, reads it once, and is of these ops.

    None as well where the tensor is a graph output, or its reader is in a subgraph.
    """
    if tensor.is_output or len(tensor.outputs) != 1:
        return None
    node: Node = tensor.outputs[0]
    if tensor.inputs and node.graph is not tensor.inputs[0].graph:
        return None
    return node if not ops or node.is_op(*ops) else None


def is_used(tensor: Tensor) -> bool:
    """Whether anything reads the tensor or the graph gives it out."""
    return bool(tensor.name) and (tensor.is_output or bool(tensor.outputs))


def input_or_none(node: Node, index: int) -> Tensor | None:
    """The input at `index`; None if it is omitted."""
    if index >= len(node.inputs) or not node.inputs[index].name:
        return None
    found: Tensor = node.inputs[index]
    return found


def constant(tensor: Tensor | None) -> Array | None:
    """The value of a constant, None for anything else. Read once: large ones are not cached."""
    return tensor.values if isinstance(tensor, Constant) else None


def small_constant(tensor: Tensor | None) -> Array | None:
    """The value of a constant of at most SMALL_ELEMENTS elements."""
    if not isinstance(tensor, Constant) or int(np.prod(tensor.shape)) > SMALL_ELEMENTS:
        return None
    return tensor.values


def scalar(tensor: Tensor | None) -> float | None:
    """The value of a constant with exactly one element, whatever its rank."""
    if not isinstance(tensor, Constant) or int(np.prod(tensor.shape)) != 1:
        return None
    values = tensor.values
    return None if values.dtype.kind in "OSU" else float(values.reshape(-1)[0])


def ints(tensor: Tensor | None) -> tuple[int, ...] | None:
    """The value of a small integer constant as a tuple."""
    values = small_constant(tensor)
    if values is None or values.dtype.kind not in "iu":
        return None
    return tuple(int(value) for value in values.reshape(-1))


def axes_of(node: Node, index: int, name: str = "axes") -> tuple[int, ...] | None:
    """Axes given as an attribute in old opsets and as input `index` in new ones; None if neither
    is there or the input is not constant (look at `input_or_none` to tell the two apart)."""
    if name in node.attrs:
        return tuple(node.attrs[name])
    return ints(input_or_none(node, index))


def rank(tensor: Tensor) -> int | None:
    """The number of dimensions, if known."""
    return None if tensor.shape is None else len(tensor.shape)


def static_shape(tensor: Tensor) -> tuple[int, ...] | None:
    """The shape, if every dimension is known."""
    shape = tensor.shape
    if shape is None or any(not isinstance(dim, int) for dim in shape):
        return None
    return tuple(shape)


def same_shape(left: Tensor, right: Tensor) -> bool:
    """Whether both shapes are known to be equal; equal symbols count."""
    if left.shape is None or right.shape is None or None in left.shape:
        return False
    return list(left.shape) == list(right.shape)


def is_float(tensor: Tensor) -> bool:
    """Whether the element type is known to be a floating-point type, bfloat16 included."""
    if tensor.dtype is None:
        return False
    return bool(np.issubdtype(tensor.dtype, np.floating)) or tensor.dtype.name == "bfloat16"


def attr(node: Node, name: str, default: Any) -> Any:
    """An attribute, or its default where it is absent."""
    return node.attrs.get(name, default)


def ends_fused_pattern(x: Tensor) -> bool:
    """Whether `x` is all but the last step of a written-out GELU or normalization.

    That is x' * (1 + erf(.)), x' * (1 + tanh(.)) or d / sqrt(.), maybe scaled. ONNX Runtime fuses
    these with the factor, or the scale and bias, that comes next, and not without it.
    """
    node = producer(x, "Mul", "Div")
    if node is None:
        return False
    if node.is_op("Div"):
        return producer(node.inputs[1], "Sqrt") is not None
    for factor in node.inputs:
        gate = producer(factor, "Add")
        if gate is not None and any(producer(each, "Erf", "Tanh") for each in gate.inputs):
            return True
        quotient = producer(factor, "Div")
        if quotient is not None and producer(quotient.inputs[1], "Sqrt") is not None:
            return True
    return False
