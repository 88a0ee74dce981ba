"""Explicit zero padding taken into the window operator that reads it.

    Pad(x) -> Conv          =>  Conv with larger pads
    Pad(x) -> AveragePool   =>  AveragePool with larger pads and count_include_pad
    Pad(x) -> MaxPool       =>  MaxPool with larger pads

Conditions:

(1) mode constant, pads constant and not negative, nothing padded in batch and channels;
(2) the value is zero, or minus infinity (the lowest finite number, too) before a MaxPool;
(3) nothing else reads the padded tensor;
(4) an auto_pad of the operator is first resolved to numbers, which SAME_* needs static sizes for;
(5) AveragePool: it has no padding of its own that it leaves out of the average, and no ceil_mode,
    whose last window may reach beyond what count_include_pad counts;
(6) MaxPool pads with minus infinity: zeros may go where the input is nowhere negative. Its
    indices, which count padded positions, are not used;
(7) both poolings: no window lies in the padding alone, that is, pads are smaller than the kernel
    (ONNX Runtime refuses others).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import (
    attr,
    input_or_none,
    ints,
    is_used,
    producer,
    scalar,
    small_constant,
    sole_consumer,
    static_shape,
)

NAME = "padding"

LOOK_BACK = 6  # operators that are searched for the sign of a tensor

NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus"})

SIGN_KEEPING = frozenset(
    {"Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Dropout"}
    | {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split"}
    | {"Add", "Mul", "Max", "Sqrt"}
)
"""Operators without negative outputs as long as no floating-point input has a negative element."""


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Take one Pad into its reader."""
    window = sole_consumer(node.outputs[0], "Conv", "AveragePool", "MaxPool")  # (3)
    if window is None or window.inputs[0] is not node.outputs[0]:
        return None
    spatial = _spatial_rank(window)
    if spatial is None:
        return ctx.refuse(NAME, node, f"the kernel of {window.op} after it is unknown")
    added = _pads(node, spatial)
    if isinstance(added, str):
        return ctx.refuse(NAME, node, added)
    own = _own_pads(window, spatial)
    if isinstance(own, str):
        return ctx.refuse(NAME, node, own)
    pads = tuple(left + right for left, right in zip(added, own, strict=True))
    reason = _objection(node, window, pads, own)
    if reason is not None:
        return ctx.refuse(NAME, node, reason)
    if ctx.fuel(NAME, node, f"into {window.op} {window.key}"):
        attrs: dict[str, Any] = {**window.attrs, "pads": pads}
        attrs.pop("auto_pad", None)
        if window.is_op("AveragePool"):
            attrs["count_include_pad"] = 1
        graph.replace(window, window.op, [node.inputs[0], *window.inputs[1:]], **attrs)
        graph.remove(node)
    return None


def _pads(pad: Node, spatial: int) -> tuple[int, ...] | str:
    """Begins, then ends, for the spatial axes of a Pad that meets (1), or why it does not."""
    rank = spatial + 2
    if attr(pad, "mode", "constant") != "constant":
        return f"its mode is {attr(pad, 'mode', '')}"
    given = pad.attrs.get("pads", pad.attrs.get("paddings"))
    values = tuple(given) if given is not None else ints(input_or_none(pad, 1))
    if values is None:
        return "its pads are not constant"
    axes: tuple[int, ...] | None = tuple(range(rank))
    if input_or_none(pad, 3) is not None:
        axes = ints(input_or_none(pad, 3))
    if axes is None or len(values) != 2 * len(axes):
        return "its axes are not constant or not those of the operator after it"
    pads = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        pads[axis % rank] = values[position]
        pads[axis % rank + rank] = values[position + len(axes)]
    if min(pads) < 0 or any(pads[:2]) or any(pads[rank : rank + 2]):
        return "it crops, or pads batch or channels"
    return (*pads[2:rank], *pads[rank + 2 :])


def _objection(pad: Node, window: Node, pads: tuple[int, ...], own: tuple[int, ...]) -> str | None:
    """Why (2), (5), (6) or (7) does not hold, or None."""
    given = input_or_none(pad, 2)
    value = float(attr(pad, "value", 0.0)) if given is None else scalar(given)
    if value is None:
        return "its value is not constant"
    if window.is_op("AveragePool", "MaxPool"):
        kernel = attr(window, "kernel_shape", ())
        if any(size >= extent for size, extent in zip(pads, (*kernel, *kernel), strict=True)):
            return f"a window of {window.op} after it may lie in the padding alone"
    if window.is_op("MaxPool"):
        return _max_pool_objection(pad, window, value)
    if value != 0:
        return "its value is not zero"
    if window.is_op("AveragePool"):
        if attr(window, "ceil_mode", 0):
            return "AveragePool with ceil_mode after it"
        if any(own) and not attr(window, "count_include_pad", 0):
            return "AveragePool after it leaves its own padding out of the average"
    return None


def _max_pool_objection(pad: Node, window: Node, value: float) -> str | None:
    """Why (6) does not hold, or None."""
    if any(is_used(out) for out in window.outputs[1:]):
        return "the indices of MaxPool after it are used"
    if attr(window, "ceil_mode", 0):
        return "MaxPool with ceil_mode after it"
    if value == 0 and is_non_negative(pad.inputs[0]):
        return None
    if value <= float(np.finfo(np.float32).min):
        return None
    return "MaxPool after it pads with minus infinity, and the input may be negative"


def is_non_negative(tensor: Tensor, depth: int = LOOK_BACK) -> bool:
    """Whether no element of a floating-point tensor can be below zero, looking back a few nodes."""
    if isinstance(tensor, Constant):
        values = small_constant(tensor)
        return values is not None and bool(np.all(values.astype(np.float64) >= 0))
    node = producer(tensor)
    if node is None or depth == 0:
        return False
    if node.is_op(*NON_NEGATIVE):
        return True
    if node.is_op("Clip"):
        low = scalar(input_or_none(node, 1))
        low = low if low is not None else float(attr(node, "min", -1.0))
        return low >= 0 or is_non_negative(node.inputs[0], depth - 1)
    if not node.is_op(*SIGN_KEEPING):
        return False
    data = node.inputs if node.is_op("Concat", "Add", "Mul", "Max") else node.inputs[:1]
    return len(data) <= 64 and all(is_non_negative(each, depth - 1) for each in data)


def _spatial_rank(window: Node) -> int | None:
    """The number of spatial axes of a convolution or pooling."""
    kernel = attr(window, "kernel_shape", None)
    if kernel is None and window.is_op("Conv") and window.inputs[1].shape is not None:
        return len(window.inputs[1].shape) - 2
    return len(kernel) if kernel is not None else None


def _own_pads(window: Node, spatial: int) -> tuple[int, ...] | str:
    """The operator's own pads as numbers (4), begins then ends, or why they are not known."""
    mode = attr(window, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        return tuple(attr(window, "pads", (0,) * (2 * spatial)))
    if mode == "VALID":
        return (0,) * (2 * spatial)
    sizes = static_shape(window.inputs[0])
    kernel = attr(window, "kernel_shape", None)
    if kernel is None:
        weight = static_shape(window.inputs[1])
        kernel = weight[2:] if weight is not None else None
    if sizes is None or kernel is None or len(sizes) != spatial + 2:
        return f"{window.op} after it has auto_pad {mode} and an unknown size"
    strides = attr(window, "strides", (1,) * spatial)
    dilations = attr(window, "dilations", (1,) * spatial)
    begins, ends = [], []
    for size, extent, stride, dilation in zip(sizes[2:], kernel, strides, dilations, strict=True):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + (extent - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        begins.append(less if mode == "SAME_UPPER" else more)
        ends.append(more if mode == "SAME_UPPER" else less)
    return (*begins, *ends)


PASS = NodePass(NAME, frozenset({"Pad"}), rewrite)
