"""How operators are written when their tensors come with permuted axes.

A node computes t = f(s). Given s' and wanted t' with s = Transpose(s', p), t = Transpose(t', p),
so that axis i of s is axis p[i] of s', `moved` says which node computes t' from s': the same
operator with other axes. Some operators that lose axes compute t itself from s'.

Names used here
    Moved      what changes: inputs, outputs, attributes, small constants
    moved      Node, p -> Moved, or None where there is no such node
    moved_constant   a constant operand in the permuted layout

r is the number of axes, len(p). Each rule is a function in RULES, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ort_optim.graph.view import Constant, Node, Tensor
from ort_optim.graph.weights import Array
from ort_optim.passes.common.match import attr, axes_of, input_or_none, ints, rank, small_constant
from ort_optim.passes.common.movement import (
    inverse,
    normalized_axes,
    normalized_axis,
    only_moves_ones,
    squeezed_axes,
    target_shape,
)

Perm = tuple[int, ...]


@dataclass(frozen=True)
class Moved:
    """The node in the permuted layout.

    Inputs numbered in `inputs` are permuted tensors, those in `constants` new small constants, all
    others stay; `attrs` replace attributes. All outputs are permuted or, with `keeps_outputs`,
    none is.
    """

    inputs: tuple[int, ...] = (0,)
    constants: dict[int, Array] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    keeps_outputs: bool = False


def moved(node: Node, perm: Perm) -> Moved | None:
    """The node in the layout that `perm` leads back from; None if there is none."""
    rule = RULES.get(node.op) if node.is_op(node.op) else None
    if rule is None or node.graph is None or node.graph.opset < 7:
        return None
    if not node.inputs or not all(tensor.name for tensor in node.inputs[:1]):
        return None
    if rule is not _elementwise and rank(node.inputs[0]) != len(perm):  # they count axes of it
        return None
    found = rule(node, perm)
    if found is None or any(rank(node.inputs[i]) != len(perm) for i in found.inputs[:1]):
        return None
    if not found.keeps_outputs and any(out.name and rank(out) != len(perm) for out in node.outputs):
        return None
    return found


def moved_constant(constant: Constant, perm: Perm) -> Array:
    """The value whose transpose by `perm` is the constant, with leading axes of 1 added."""
    values = constant.values
    full = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
    return np.ascontiguousarray(np.transpose(full, inverse(perm)))


def _spread(values: Sequence[Any], perm: Perm) -> list[Any]:
    """One value for each axis, in the permuted order."""
    spread = [None] * len(perm)
    for axis, value in zip(perm, values, strict=True):
        spread[axis] = value
    return spread


def _unary(node: Node, perm: Perm) -> Moved | None:
    return Moved()


def _elementwise(node: Node, perm: Perm) -> Moved | None:
    """Operands of r axes are permuted, single values stay."""
    permuted = []
    for index, tensor in enumerate(node.inputs):
        known = rank(tensor)
        if known is None or known > len(perm):
            return None
        if all(dim == 1 for dim in tensor.shape) and (known < len(perm) or _is_constant(tensor)):
            continue
        if known < len(perm) and not _is_constant(tensor):
            return None
        permuted.append(index)
    variables = [i for i in permuted if not _is_constant(node.inputs[i])]
    constants = [i for i in permuted if _is_constant(node.inputs[i])]
    return Moved(tuple(variables + constants)) if variables else None


def _is_constant(tensor: Tensor) -> bool:
    return isinstance(tensor, Constant)


def _concat(node: Node, perm: Perm) -> Moved | None:
    axis = normalized_axis(attr(node, "axis", 1), len(perm))
    if axis is None or any(rank(tensor) != len(perm) for tensor in node.inputs):
        return None
    return Moved(tuple(range(len(node.inputs))), attrs={"axis": perm[axis]})


def _with_axis(default: int, first_opset: int = 1) -> Callable[[Node, Perm], Moved | None]:
    """Operators that work along the axis of an attribute, from an opset on."""

    def rule(node: Node, perm: Perm) -> Moved | None:
        axis = normalized_axis(attr(node, "axis", default), len(perm))
        if axis is None or node.graph is None or node.graph.opset < first_opset:
            return None
        return Moved(attrs={"axis": perm[axis]})

    return rule


def _quantization(node: Node, perm: Perm) -> Moved | None:
    scale = node.inputs[1].shape
    if scale is None or attr(node, "block_size", 0):
        return None
    if all(dim == 1 for dim in scale):
        return Moved()
    return _with_axis(1)(node, perm) if len(scale) == 1 else None


def _losing(axes: Sequence[int], perm: Perm) -> bool:
    """Whether the axes that are left without these stand in the same order in both layouts."""
    left = [perm[axis] for axis in range(len(perm)) if axis not in axes]
    return left == sorted(left)


def _reduce(node: Node, perm: Perm) -> Moved | None:
    keeps = not attr(node, "keepdims", 1)
    given = axes_of(node, 1)
    if given is None and ("axes" in node.attrs or input_or_none(node, 1) is not None):
        return None
    if not given:  # all of the axes or, if so told, none
        return Moved(keeps_outputs=keeps) if not attr(node, "noop_with_empty_axes", 0) else None
    axes = normalized_axes(given, len(perm))
    if axes is None or (keeps and not _losing(axes, perm)):
        return None
    return _axes_moved(node, axes, perm, keeps)


def _axes_moved(node: Node, axes: Sequence[int], perm: Perm, keeps_outputs: bool) -> Moved:
    new = tuple(sorted(perm[axis] for axis in axes))
    opset = node.graph.opset if node.graph is not None else 0
    if "axes" in node.attrs or (node.op == "Squeeze" and opset < 13):
        return Moved(attrs={"axes": new}, keeps_outputs=keeps_outputs)
    return Moved(constants={1: np.array(new, np.int64)}, keeps_outputs=keeps_outputs)


def _arg(node: Node, perm: Perm) -> Moved | None:
    axis = normalized_axis(attr(node, "axis", 0), len(perm))
    keeps = not attr(node, "keepdims", 1)
    if axis is None or (keeps and not _losing((axis,), perm)):
        return None
    return Moved(attrs={"axis": perm[axis]}, keeps_outputs=keeps)


def _gather(node: Node, perm: Perm) -> Moved | None:
    axis = normalized_axis(attr(node, "axis", 0), len(perm))
    taken = rank(node.inputs[1])
    if axis is None or taken not in (0, 1) or (taken == 0 and not _losing((axis,), perm)):
        return None
    return Moved(attrs={"axis": perm[axis]}, keeps_outputs=taken == 0)


def _squeeze(node: Node, perm: Perm) -> Moved | None:
    axes = squeezed_axes(node)
    if axes is None or not _losing(axes, perm):
        return None
    return _axes_moved(node, axes, perm, keeps_outputs=True)


def _reshape(node: Node, perm: Perm) -> Moved | None:
    """Where only dimensions of size 1 have moved, the order of the data is the same."""
    target = target_shape(node)
    if target is None or 0 in target or not _keeps_order(node, perm):
        return None
    return Moved(keeps_outputs=True)


def _flatten(node: Node, perm: Perm) -> Moved | None:
    if attr(node, "axis", 1) != 1 or perm[0] != 0 or not _keeps_order(node, perm):
        return None
    return Moved(keeps_outputs=True)


def _keeps_order(node: Node, perm: Perm) -> bool:
    shape = node.inputs[0].shape
    if shape is None or len(shape) != len(perm):
        return False
    return only_moves_ones(perm, _spread(shape, perm))


def _pad(node: Node, perm: Perm) -> Moved | None:
    if input_or_none(node, 3) is not None:
        axes = normalized_axes(ints(node.inputs[3]), len(perm))
        if axes is None:
            return None
        return Moved(constants={3: np.array([perm[axis] for axis in axes], np.int64)})
    pads = attr(node, "pads", None) or ints(input_or_none(node, 1))
    if pads is None or len(pads) != 2 * len(perm):
        return None
    ends = len(perm)
    new = [*_spread(pads[:ends], perm), *_spread(pads[ends:], perm)]
    if "pads" in node.attrs:
        return Moved(attrs={"pads": tuple(new)})
    return Moved(constants={1: np.array(new, np.int64)})


def _slice(node: Node, perm: Perm) -> Moved | None:
    if "starts" in node.attrs:
        axes = attr(node, "axes", tuple(range(len(node.attrs["starts"]))))
    elif input_or_none(node, 3) is not None:
        axes = ints(node.inputs[3])
    else:
        count = node.inputs[1].shape
        if count is None or not isinstance(count[0], int):
            return None
        axes = tuple(range(count[0]))
    axes = normalized_axes(axes, len(perm))
    if axes is None:
        return None
    new = tuple(perm[axis] for axis in axes)
    if "starts" in node.attrs:  # sorted: else shape inference gives up
        rows = sorted(zip(new, node.attrs["starts"], node.attrs["ends"], strict=True))
        columns = zip(("axes", "starts", "ends"), zip(*rows, strict=True), strict=True)
        return Moved(attrs=dict(columns))
    dtype = np.int64 if node.inputs[1].dtype is None else node.inputs[1].dtype
    return Moved(constants={3: np.array(new, dtype)})


def _per_axis(node: Node, perm: Perm) -> Moved | None:
    """Tile's repeats and Expand's shape: one number for each axis."""
    numbers = ints(input_or_none(node, 1))
    if numbers is None or len(numbers) != len(perm):
        return None
    return Moved(constants={1: np.array(_spread(numbers, perm), np.int64)})


def _resize(node: Node, perm: Perm) -> Moved | None:
    """Only towards a layout with batch and channels first: ONNX Runtime is made for that one."""
    opset = node.graph.opset if node.graph is not None else 0
    if opset < 11 or "axes" in node.attrs:
        return None
    roi = input_or_none(node, 1)
    if attr(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize" or (
        roi is not None and (roi.shape is None or 0 not in roi.shape)
    ):
        return None
    shape = node.inputs[0].shape
    for index in (2, 3):
        numbers = small_constant(input_or_none(node, index))
        if numbers is None or numbers.shape != (len(perm),):
            continue
        new = np.array(_spread(numbers.tolist(), perm), numbers.dtype)
        unchanged = _spread(shape, perm)[:2] if index == 3 and shape is not None else [1, 1]
        if list(new[:2]) != unchanged:
            return None
        return Moved(constants={index: new})
    return None


def _spatial(node: Node, perm: Perm) -> Moved | None:
    """Operators to which all axes after the first two are alike."""
    return Moved() if perm[:2] == (0, 1) else None


def _layer_norm(node: Node, perm: Perm) -> Moved | None:
    axis = normalized_axis(attr(node, "axis", -1), len(perm))
    if axis is None or perm[axis:] != tuple(range(axis, len(perm))) or len(node.outputs) > 1:
        return None
    return Moved()


_UNARY = """
Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu
Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal
Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
"""
_ELEMENTWISE = """
Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual
Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor
"""
_REDUCTIONS = """
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare
"""

RULES: dict[str, Callable[[Node, Perm], Moved | None]] = {
    **dict.fromkeys(_UNARY.split(), _unary),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "BatchNormalization": _spatial,
    "Concat": _concat,
    "DequantizeLinear": _quantization,
    "Expand": _per_axis,
    "Flatten": _flatten,
    "Gather": _gather,
    "GlobalAveragePool": _spatial,
    "GlobalMaxPool": _spatial,
    "InstanceNormalization": _spatial,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _with_axis(-1, first_opset=13),
    "LpNormalization": _with_axis(-1),
    "Pad": _pad,
    "QuantizeLinear": _quantization,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _with_axis(-1, first_opset=13),
    "Split": _with_axis(0),
    "Squeeze": _squeeze,
    "Tile": _per_axis,
}
"""The rule for each operator that has one."""


def elements(tensor: Tensor) -> int | None:
    """How many elements the tensor has, if known."""
    shape = tensor.shape
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return math.prod(shape)
