"""Normalizations written out, as the operators they are.

    n = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)      `moments.py` recognizes it

    n * scale + bias  =>  (1) LayerNormalization(x)              trailing axes, from opset 17
                          (2) InstanceNormalization(x)           all spatial axes of (N, C, ...)
                          (3) Reshape, InstanceNormalization, Reshape; scale and bias stay
                                                                 all axes, or all but the first
    x * r + (bias - mean(x) * r), r = scale / sqrt(var + epsilon)
                      =>  (4) Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add

(4) is TensorFlow's, where no operator fits; the result is the form that ONNX Runtime fuses into
its own layer normalization. With a Reciprocal in the place of Div it does not.

Conditions:

(5) scale and bias are constants over exactly the normalized axes (1) or one per channel (2);
    others stay behind as Mul and Add;
(6) the sizes that a scale needs are static; for (3) no more than one size is unknown;
(7) the type has a kernel: float, half or double (1), float (2, 3);
(8) over the last axis of three, (2) is for a scale per channel only: otherwise it is a layer
    normalization, which ONNX Runtime fuses before opset 17 too.

Measured, one thread, ms:

    form   shape            written out   result
    (1)    1x128x256        0.0173        0.0175    with scale and bias: ONNX Runtime fuses it too
    (1)    4x197x768        0.420         0.271     without: it does not
    (2)    1x64x56x56       0.137         0.048
    (3)    1x32x112x56      0.130         0.080     two threads: 0.140, 0.089
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.graph.weights import Array
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.layers import channel_vector
from ort_optim.passes.common.moments import (
    Moments,
    Tail,
    find_moments,
    folded_tail,
    plain_tail,
    with_affine,
)

NAME = "standardization"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Recognize the normalization around one Sqrt."""
    moments = find_moments(node)
    if moments is None or graph.opset < 8:
        return None
    bare = plain_tail(moments)
    folded = folded_tail(moments) if bare is None else None
    tail = with_affine(bare) if bare is not None else folded
    if tail is None:
        return ctx.refuse(NAME, node, "the standard deviation is used in another way")
    done = _instance_norm(moments, tail, graph, ctx) or _layer_norm(moments, tail, graph, ctx)
    if not done and bare is not None:
        done = (
            _instance_norm(moments, bare, graph, ctx)
            or _layer_norm(moments, bare, graph, ctx)
            or _reshaped(moments, bare, graph, ctx)
        )
    if not done and folded is not None:
        done = _plain_form(moments, folded, graph, ctx)
    if not done:
        ctx.refuse(NAME, node, "no operator for these axes, sizes and this opset")
    return None


def _layer_norm(moments: Moments, tail: Tail, graph: Graph, ctx: Context) -> bool:
    """Case (1); whether it applies."""
    first = moments.axes[0]
    sizes = [size for size in (moments.x.shape or ())[first:] if isinstance(size, int)]
    if graph.opset < 17 or not moments.axes_from(first) or len(sizes) != len(moments.axes):
        return False  # (6)
    if moments.x.dtype not in (np.float32, np.float64, np.float16):
        return False  # (7)
    if not all(_covers(each, sizes, moments.rank) for each in (tail.scale, tail.bias)):
        return False  # (5)
    if ctx.fuel(NAME, tail.last, f"LayerNormalization of {moments.x.name}"):
        scale = np.ones(sizes, moments.x.dtype) if tail.scale is None else tail.scale.values
        inputs: list[Tensor] = [
            moments.x,
            graph.constant(scale.reshape(sizes), f"{tail.last.key}_scale"),
        ]
        if tail.bias is not None:
            bias = tail.bias.values.reshape(sizes)
            inputs.append(graph.constant(bias, f"{tail.last.key}_bias"))
        attrs = {"axis": first - moments.rank, "epsilon": moments.epsilon}
        graph.replace(tail.last, "LayerNormalization", inputs, **attrs)
        _remove(graph, *moments.nodes, *tail.between)
    return True


def _covers(operand: Constant | None, sizes: list[int], rank: int) -> bool:
    """Whether the constant has one element for each normalized one, and no other dimension."""
    if operand is None:
        return True
    shape = list(operand.shape)
    lead = max(len(shape) - len(sizes), 0)
    return len(shape) <= rank and math.prod(shape[:lead]) == 1 and shape[lead:] == sizes


def _instance_norm(moments: Moments, tail: Tail, graph: Graph, ctx: Context) -> bool:
    """Case (2); whether it applies."""
    channels = moments.x.shape[1] if moments.rank >= 3 else None
    if not moments.axes_from(2) or not isinstance(channels, int):
        return False  # (6)
    if moments.x.dtype != np.float32 or (moments.rank == 3 and tail.scale is None):
        return False  # (7) (8)
    scale, bias = (
        _per_channel(each, channels, moments.rank, fill)
        for each, fill in ((tail.scale, 1), (tail.bias, 0))
    )
    if scale is None or bias is None:
        return False  # (5)
    if ctx.fuel(NAME, tail.last, f"InstanceNormalization of {moments.x.name}"):
        inputs: list[Tensor] = [
            moments.x,
            graph.constant(scale, f"{tail.last.key}_scale"),
            graph.constant(bias, f"{tail.last.key}_bias"),
        ]
        graph.replace(tail.last, "InstanceNormalization", inputs, epsilon=moments.epsilon)
        _remove(graph, *moments.nodes, *tail.between)
    return True


def _per_channel(operand: Constant | None, channels: int, rank: int, fill: float) -> Array | None:
    """The operand as one value per channel; all `fill` where there is none."""
    if operand is None:
        return np.full(channels, fill, np.float32)
    values = channel_vector(operand, channels, rank - 2, rank)
    return None if values is None else values.astype(np.float32)


def _reshaped(moments: Moments, tail: Tail, graph: Graph, ctx: Context) -> bool:
    """Case (3); whether it applies."""
    x = moments.x
    sizes = [size if isinstance(size, int) else -1 for size in x.shape or ()]
    if sizes.count(-1) > 1 or 0 in sizes or len(moments.axes) < 2 or x.dtype != np.float32:
        return False  # (6) (7)
    if not (moments.axes_from(0) or moments.axes_from(1)):
        return False
    if ctx.fuel(NAME, tail.last, f"InstanceNormalization of {x.name}, reshaped"):
        rows = 1 if moments.axes_from(0) else 0  # 0 copies the first size: (N, ...) -> (N, 1, ...)
        flat = _between(graph, moments, "flat")
        normal = _between(graph, moments, "normal")
        target = graph.constant(np.array([rows, 1, -1], np.int64), f"{tail.last.key}_flat_shape")
        one = graph.constant(np.ones(1, np.float32), f"{tail.last.key}_one")
        zero = graph.constant(np.zeros(1, np.float32), f"{tail.last.key}_zero")
        attrs = {"epsilon": moments.epsilon}
        graph.insert(
            [
                graph.make("Reshape", [x, target], [flat], like=moments.mean),
                graph.make(
                    "InstanceNormalization", [flat, one, zero], [normal], attrs, like=moments.sqrt
                ),
            ],
            at=tail.last,
        )
        back = graph.constant(np.array(sizes, np.int64), f"{tail.last.key}_shape")
        graph.replace(tail.last, "Reshape", [normal, back])
        _remove(graph, *moments.nodes, *tail.between)
    return True


def _plain_form(moments: Moments, tail: Tail, graph: Graph, ctx: Context) -> bool:
    """Case (4); whether it applies."""
    if tail.scale is None or tail.bias is None:
        return False
    if ctx.fuel(NAME, tail.last, f"the common form of the normalization of {moments.x.name}"):
        deviation = moments.sub.outputs[0]
        normal = _between(graph, moments, "normal")
        scaled = _between(graph, moments, "scaled")
        root = moments.sqrt.outputs[0]
        if moments.square.is_op("Mul"):
            two = graph.constant(np.array(2, moments.x.dtype), f"{tail.last.key}_two")
            graph.replace(moments.square, "Pow", [deviation, two])
        graph.insert(
            [
                graph.make("Div", [deviation, root], [normal], like=tail.between[0]),
                graph.make("Mul", [normal, tail.scale], [scaled], like=tail.between[1]),
            ],
            at=tail.last,
        )
        graph.replace(tail.last, "Add", [scaled, tail.bias])
        _remove(graph, *tail.between)
    return True


def _between(graph: Graph, moments: Moments, what: str) -> Variable:
    """A new tensor of the type of x."""
    made = graph.variable(f"{moments.sqrt.key}_{what}")
    made.dtype = moments.x.dtype
    return made


def _remove(graph: Graph, *nodes: Node) -> None:
    for node in nodes:
        graph.remove(node)


PASS = NodePass(NAME, frozenset({"Sqrt"}), rewrite)
