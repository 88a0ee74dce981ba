"""What moves numbers: along channels, and to another height and width."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ort_optim.compiler.layers import Concat, Op, Pad, Pair, Pick, Resize, Shape, Slice, Widen
from ort_optim.compiler.operators.windows import MOST_CHANNELS, MOST_KERNEL
from ort_optim.compiler.scope import Node, Refusal
from ort_optim.kernels.sizes import Size


def _channel_axis(node: Node, default: int) -> None:
    axis = node.integer("axis", default)
    if axis not in (1, -3):
        raise Refusal(f"axis={axis}, not the channels")


def concat(node: Node) -> None:
    node.allow("axis")
    _channel_axis(node, 1)
    shapes = [node.shape(i) for i in range(node.input_count)]
    first = shapes[0]
    for other in shapes[1:]:
        node.scope.require_equal(first.N, other.N)
        node.scope.require_equal(first.H, other.H)
        node.scope.require_equal(first.W, other.W)
    channels = sum(shape.C for shape in shapes)
    if channels > MOST_CHANNELS:
        raise Refusal(f"{channels} channels")
    values = [node.value(i) for i in range(node.input_count)]
    node.add(Concat(), values, Shape(first.N, channels, first.H, first.W))


def split(node: Node) -> None:
    node.allow("axis", "num_outputs", "split")
    _channel_axis(node, 0)
    x, count = node.shape(0), len(node.proto.output)
    if node.has_input(1):
        parts = node.integers(1)
    elif (given := node.ints("split")) is not None:
        parts = given
    else:
        largest = -(-x.C // count)
        parts = (*[largest] * (count - 1), x.C - largest * (count - 1))
    if len(parts) != count or sum(parts) != x.C or min(parts) < 1:
        raise Refusal(f"{x.C} channels in parts of {list(parts)}")
    start = 0
    for i, channels in enumerate(parts):
        if node.proto.output[i]:
            node.add(Slice(start), [node.value(0)], Shape(x.N, channels, x.H, x.W), output=i)
        start += channels


def slice_(node: Node) -> None:
    node.allow("axes", "ends", "starts")
    x = node.shape(0)
    if node.opset >= 10:
        starts, ends = node.integers(1), node.integers(2)
        axes = node.integers(3) if node.has_input(3) else tuple(range(len(starts)))
        steps = node.integers(4) if node.has_input(4) else (1,) * len(starts)
    else:
        starts, ends = node.ints("starts") or (), node.ints("ends") or ()
        axes = node.ints("axes") or tuple(range(len(starts)))
        steps = (1,) * len(starts)
    if not (len(starts) == len(ends) == len(axes) == len(steps) == 1):
        raise Refusal("not a slice of one axis")
    if axes[0] not in (1, -3) or steps[0] != 1:
        raise Refusal(f"a slice of axis {axes[0]} with step {steps[0]}, not of channels")
    start, stop = (
        min(max(each + x.C if each < 0 else each, 0), x.C) for each in (starts[0], ends[0])
    )
    if stop <= start:
        raise Refusal("an empty slice")
    node.add(Slice(start), [node.value(0)], Shape(x.N, stop - start, x.H, x.W))


def gather(node: Node) -> None:
    node.allow("axis")
    _channel_axis(node, 0)
    x, given = node.shape(0), node.array(1)
    channels = node.integers(1)
    if given.ndim != 1 or not channels or len(channels) > MOST_CHANNELS:
        raise Refusal(f"indices of shape {list(given.shape)}")
    if not all(-x.C <= each < x.C for each in channels):
        raise Refusal(f"an index outside of {x.C} channels")
    op = Pick(tuple(each % x.C for each in channels))
    node.add(op, [node.value(0)], replace(x, C=len(channels)))


# Height and width


def upsample(node: Node) -> None:
    node.allow("mode", "scales")
    scales = node.floats("scales") if node.opset < 9 else _floats(node, 1)
    _resample(node, scales, None, "asymmetric", "floor")


def resize(node: Node) -> None:
    node.allow(
        "antialias",
        "axes",
        "coordinate_transformation_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
        "keep_aspect_ratio_policy",
        "mode",
        "nearest_mode",
    )
    if node.integer("antialias", 0) or node.integer("exclude_outside", 0):
        raise Refusal("antialias or exclude_outside")
    if node.ints("axes") or node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refusal("axes or keep_aspect_ratio_policy")
    if node.opset < 11:
        _resample(node, _floats(node, 1), None, "asymmetric", "floor")
        return
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    nearest = node.text("nearest_mode", "round_prefer_floor")
    if coordinates not in _COORDINATES:
        raise Refusal(f"coordinate_transformation_mode={coordinates}")
    scales = _floats(node, 2) if node.has_input(2) else None
    sizes = node.integers(3) if node.has_input(3) else None
    _resample(node, scales or None, sizes, coordinates, nearest)


_COORDINATES = frozenset({"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"})
_NEAREST = frozenset({"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})


def _floats(node: Node, index: int) -> tuple[float, ...]:
    found = node.array(index)
    if found.dtype != np.float32 or found.ndim > 1:
        raise Refusal(f"{node.name(index)} is no list of float32 numbers")
    return tuple(float(each) for each in found.reshape(-1))


def _resample(
    node: Node,
    scales: tuple[float, ...] | None,
    sizes: tuple[int, ...] | None,
    coordinates: str,
    nearest: str,
) -> None:
    x = node.shape(0)
    mode = node.text("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        raise Refusal(f"mode={mode}")
    if nearest not in _NEAREST:
        raise Refusal(f"nearest_mode={nearest}")
    given: Pair | tuple[float, float] | None = None
    if scales is not None and sizes is None:
        if len(scales) != 4 or scales[:2] != (1.0, 1.0) or min(scales) <= 0:
            raise Refusal(f"scales={list(scales)}")
        given = (scales[2], scales[3])
        H, W = _scaled(x.H, scales[2]), _scaled(x.W, scales[3])
    elif sizes is not None and scales is None:
        if len(sizes) != 4 or sizes[1] != x.C or min(sizes) < 1:
            raise Refusal(f"sizes={list(sizes)}")
        node.scope.require_equal(x.N, node.sizes.const(sizes[0]))
        H, W = node.sizes.const(sizes[2]), node.sizes.const(sizes[3])
    else:
        raise Refusal("neither scales nor sizes")
    op = Resize("nearest" if mode == "nearest" else "linear", coordinates, nearest, given)
    node.add(op, [node.value(0)], Shape(x.N, x.C, H, W))


def _scaled(size: Size, scale: float) -> Size:
    """floor(size * scale)"""
    if size.known is not None:
        return size.sizes.const(math.floor(np.float32(size.known) * np.float32(scale)))
    over, under = scale.as_integer_ratio()
    if max(over, under) > 64:
        raise Refusal(f"a scale of {scale:g} and a size that is not known")
    return size * over // under


def pad(node: Node) -> None:
    node.allow("mode", "pads", "value")
    x, mode = node.shape(0), node.text("mode", "constant")
    number = node.real("value", 0.0)
    if node.opset >= 11:
        pads = node.integers(1)
        number = node.number(2) if node.has_input(2) else 0.0
        axes = node.integers(3) if node.has_input(3) else (0, 1, 2, 3)
    else:
        pads, axes = node.ints("pads") or (), (0, 1, 2, 3)
    if len(pads) != 2 * len(axes) or len({axis % 4 for axis in axes}) != len(axes):
        raise Refusal(f"pads={list(pads)}")
    around = [0] * 8
    for i, axis in enumerate(axes):
        around[axis % 4], around[axis % 4 + 4] = pads[i], pads[i + len(axes)]
    (top, left), (bottom, right), behind = around[2:4], around[6:], around[5]
    if around[:2] != [0, 0] or around[4]:
        raise Refusal("a padding of the batch, or before the channels")
    if behind and (mode != "constant" or number != 0):
        raise Refusal("a padding of channels with other numbers than zeros")
    if min(around) < 0 or max(around[2:4] + around[6:]) > MOST_KERNEL:
        raise Refusal(f"pads={list(pads)}")
    if x.C + behind > MOST_CHANNELS:
        raise Refusal(f"{x.C + behind} channels")
    op: Op
    if mode == "constant":
        op = Pad((top, left, bottom, right), "constant", number)
    elif mode == "edge":
        op = Pad((top, left, bottom, right), "edge", 0.0)
    elif mode == "reflect":
        _check_reflection(x.H, max(top, bottom))
        _check_reflection(x.W, max(left, right))
        op = Pad((top, left, bottom, right), "reflect", 0.0)
    else:
        raise Refusal(f"mode={mode}")
    shape = Shape(x.N, x.C, x.H + (top + bottom), x.W + (left + right))
    value = node.value(0)
    if not behind or any((top, left, bottom, right)):
        value = node.add(op, [value], shape)
    if behind:
        node.add(Widen(), [value], replace(shape, C=x.C + behind))


def _check_reflection(size: Size, padding: int) -> None:
    if padding and size.known is not None and size.known <= padding:
        raise Refusal(f"a reflection of {padding} pixels of {size.known}")
