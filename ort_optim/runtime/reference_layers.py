"""A region's layers in NumPy: what the compiled code is to compute, without any of it.

    run_layers    inputs of a region -> its outputs

Convolutions are their templates' own `reference`, the tiled algorithm; all else follows ONNX's
definitions. Layers are run as the body has them, before `fuse` moves anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ort_optim.compiler.layers import (
    Applied,
    AveragePool,
    Concat,
    Convolution,
    Elementwise,
    GlobalAveragePool,
    Layer,
    LayerGraph,
    MaxPool,
    Normal,
    Op,
    Pad,
    Pick,
    Resize,
    Shape,
    Slice,
    Weight,
    Widen,
    Window,
)
from ort_optim.compiler.lower import Choices
from ort_optim.runtime.reference_functions import BINARY, UNARY

Array = NDArray[np.float32]


def run_layers(graph: LayerGraph, choices: Choices, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a region, each (N, C, H, W), from all of its inputs, weights included.

    `graph` was parsed with the dimensions of these very inputs, so that every size in it is known.
    """
    values = {i: inputs[number] for i, number in enumerate(graph.activations)}
    last = {value: i for i, layer in enumerate(graph.layers) for value in layer.reads}
    last.update(dict.fromkeys(graph.outputs, len(graph.layers)))
    with np.errstate(all="ignore"):  # infinite and undefined numbers are results like others
        for i, layer in enumerate(graph.layers):
            values[layer.output] = _run(layer, graph, choices, inputs, values)
            for value in {*layer.reads, layer.output}:
                if last.get(value, i) == i:
                    del values[value]
    return [values[output] for output in graph.outputs]


def _run(
    layer: Layer,
    graph: LayerGraph,
    choices: Choices,
    inputs: Sequence[Array],
    values: dict[int, Array],
) -> Array:
    """What a layer makes of the values so far, its epilogue applied."""
    given = [values[each] for each in layer.inputs]
    shape = graph.shapes[layer.output]
    if isinstance(layer.op, Convolution):
        y = _convolution(layer.op, choices, inputs, given[0])
    else:
        y = _computed(layer.op, given, shape)
    for each in layer.epilogue:
        y = _applied(each, y, inputs, values)
    wanted = shape.known
    if y.shape != wanted or y.dtype != np.float32:
        raise AssertionError(f"{layer.label} gives {y.dtype} {y.shape}, not float32 {wanted}")
    return y


def _convolution(op: Convolution, choices: Choices, inputs: Sequence[Array], x: Array) -> Array:
    choice = choices[op.number]
    bias = None if op.bias is None else inputs[op.bias.input]
    weights = inputs[op.weight.input]
    y: Array = choice.template.reference(op.spec, choice.tile, x, weights, bias)
    return y


def _applied(each: Applied, x: Array, inputs: Sequence[Array], values: dict[int, Array]) -> Array:
    operation, operand = each.operation, each.operand
    if operand is None:
        return UNARY[operation.kind](x, *operation.numbers)
    if isinstance(operand, Weight):
        other = inputs[operand.input].reshape(-1, 1, 1)  # one number per channel -> (C, 1, 1)
    elif isinstance(operand, Normal):
        other = _normal(operand, inputs).reshape(-1, 1, 1)
    else:
        other = values[operand]
    a, b = (other, x) if operation.swapped else (x, other)
    return BINARY[operation.kind](a, b)


def _normal(constant: Normal, inputs: Sequence[Array]) -> Array:
    """One of the constants of a BatchNormalization, (C)."""
    of = constant.of
    scale, bias, mean, variance = (
        inputs[each.input] for each in (of.scale, of.bias, of.mean, of.variance)
    )
    factor: Array = scale / np.sqrt(variance + np.float32(of.epsilon))
    return factor if constant.part == "factor" else bias - mean * factor


def _computed(op: Op, given: Sequence[Array], shape: Shape) -> Array:
    """All operations but convolutions."""
    x = given[0]
    _, C, OH, OW = shape.known
    assert OH is not None
    assert OW is not None
    match op:
        case MaxPool(window):
            return _max_pool(x, window, (OH, OW))
        case AveragePool(window, count_include_pad):
            return _average_pool(x, window, (OH, OW), count_include_pad)
        case GlobalAveragePool():
            mean: Array = x.mean((2, 3), keepdims=True, dtype=np.float32)
            return mean
        case Elementwise():
            return x
        case Concat():
            return np.concatenate(given, axis=1)
        case Slice(start):
            return x[:, start : start + C]
        case Pick(channels):
            return x[:, list(channels)]
        case Widen():
            return np.pad(x, ((0, 0), (0, C - x.shape[1]), (0, 0), (0, 0)))
        case Resize():
            return _resize(x, op, (OH, OW))
        case Pad(pads, mode, number):
            around = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
            if mode == "constant":
                return np.pad(x, around, constant_values=number)
            return np.pad(x, around, mode=mode)
        case _:
            raise AssertionError(f"no reference of {op}")


# Pooling


def _max_pool(x: Array, window: Window, outputs: tuple[int, int]) -> Array:
    framed = _framed(x, window, outputs, padding=-np.inf, beyond=-np.inf)
    taps = _taps(framed, window, outputs)
    y = taps[0].copy()
    for tap in taps[1:]:
        np.maximum(y, tap, out=y)
    return y


def _average_pool(
    x: Array, window: Window, outputs: tuple[int, int], count_include_pad: bool
) -> Array:
    sums = np.zeros((*x.shape[:2], *outputs), np.float32)
    for tap in _taps(_framed(x, window, outputs, padding=0, beyond=0), window, outputs):
        sums += tap
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    counted = _framed(ones, window, outputs, padding=float(count_include_pad), beyond=0)
    counts = np.zeros((1, 1, *outputs), np.float32)
    for tap in _taps(counted, window, outputs):
        counts += tap
    found: Array = np.divide(sums, counts)
    return found


def _framed(
    x: Array, window: Window, outputs: tuple[int, int], *, padding: float, beyond: float
) -> Array:
    """x with its padding, and `beyond` as far as windows that `ceil_mode` adds reach."""
    top, left, bottom, right = window.pads
    framed = np.pad(
        x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=np.float32(padding)
    )
    more = [
        max(0, (count - 1) * stride + (taps - 1) * dilation + 1 - size)
        for count, stride, taps, dilation, size in zip(
            outputs,
            window.strides,
            window.kernel,
            window.dilations,
            framed.shape[2:],
            strict=True,
        )
    ]
    return np.pad(
        framed, ((0, 0), (0, 0), (0, more[0]), (0, more[1])), constant_values=np.float32(beyond)
    )


def _taps(framed: Array, window: Window, outputs: tuple[int, int]) -> list[Array]:
    """What each place of the window reads, (N, C, OH, OW), row by row."""
    (KH, KW), (sh, sw), (dh, dw) = window.kernel, window.strides, window.dilations
    OH, OW = outputs
    return [
        framed[:, :, kh * dh :, kw * dw :][:, :, ::sh, ::sw][:, :, :OH, :OW]
        for kh in range(KH)
        for kw in range(KW)
    ]


# Resize


def _resize(x: Array, op: Resize, outputs: tuple[int, int]) -> Array:
    scales = op.scales or (None, None)
    for axis, count, scale in zip((2, 3), outputs, scales, strict=True):
        size = x.shape[axis]
        place = _places(op.coordinates, size, count, scale)
        if op.mode == "nearest":
            nearest = np.clip(_rounded(op.nearest, place), 0, size - 1).astype(np.int64)
            x = x.take(nearest, axis)
        else:
            x = _between(x, np.clip(place, np.float32(0), np.float32(size - 1)), axis)
    return x


def _between(x: Array, place: Array, axis: int) -> Array:
    """x at places between its pixels along an axis."""
    first = np.floor(place).astype(np.int64)
    second = np.minimum(first + 1, x.shape[axis] - 1)
    part = place - first.astype(np.float32)
    if axis == 2:
        part = part[:, None]
    found: Array = x.take(first, axis) * (1 - part) + x.take(second, axis) * part
    return found


def _places(coordinates: str, size: int, count: int, scale: float | None) -> Array:
    """Where the pixels of an output lie in its input, in float32 as ONNX Runtime computes it."""
    index = np.arange(count, dtype=np.float32)
    if coordinates == "align_corners":
        return index * np.float32(size - 1) / np.float32(count - 1) if count > 1 else index * 0
    ratio = np.float32(count) / np.float32(size) if scale is None else np.float32(scale)
    if coordinates == "asymmetric":
        return index / ratio
    if coordinates == "pytorch_half_pixel" and count <= 1:
        return index * 0
    return (index + np.float32(0.5)) / ratio - np.float32(0.5)


def _rounded(how: str, place: Array) -> Array:
    below = np.floor(place)
    rest = place - below  # exact, as place + 0.5 is not
    match how:
        case "floor":
            up = np.zeros(place.shape, bool)
        case "ceil":
            up = rest > 0
        case "round_prefer_floor":
            up = rest > 0.5
        case _:
            up = rest >= 0.5
    return below + up
