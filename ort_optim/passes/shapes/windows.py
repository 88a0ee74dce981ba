"""Output shapes of operators that slide a window, and of those that scale an image.

Names used here
    WINDOWS     operator -> f(node, shapes, values) -> Shape of the first output
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ort_optim.graph.view import Node
from ort_optim.passes.common.match import attr
from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.symbolic import Size
from ort_optim.passes.shapes.values import Value

Shape = list[Size | None]
Shapes = Sequence[Shape | None]
Values = Sequence[Value | None]


def _explicit_pads(node: Node, spatial: int) -> tuple[int, ...] | None:
    """Pads at the begin of each axis, then at the end; None where ORT works them out."""
    auto_pad = attr(node, "auto_pad", "NOTSET")
    if auto_pad == "VALID":
        return (0,) * (2 * spatial)
    return tuple(attr(node, "pads", (0,) * (2 * spatial))) if auto_pad == "NOTSET" else None


def _conv(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source, weight = shapes[0], shapes[1]
    if source is None or weight is None:
        return None
    return _slide(node, source, weight[0], weight[2:])


def _pool(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source = shapes[0]
    if source is None or attr(node, "ceil_mode", 0):
        return None
    return _slide(node, source, source[1], node.attrs["kernel_shape"])


def _slide(node: Node, source: Shape, channels: Size | None, kernel: Sequence[Any]) -> Shape:
    spatial = len(source) - 2
    pads = _explicit_pads(node, spatial)
    strides = attr(node, "strides", (1,) * spatial)
    dilations = attr(node, "dilations", (1,) * spatial)
    made: Shape = [source[0], channels]
    for at in range(spatial):
        size, extent = source[2 + at], kernel[at]
        if size is None or pads is None or not isinstance(extent, int):
            made.append(None)
            continue
        # floor((size + pads - reach) / stride) + 1 with reach = dilation (extent - 1) + 1
        more = pads[at] + pads[at + spatial] - dilations[at] * (extent - 1) - 1 + strides[at]
        padded = symbolic.add(size, more)
        made.append(None if padded is None else symbolic.divide(padded, strides[at]))
    return made


def _conv_transpose(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source, weight = shapes[0], shapes[1]
    if source is None or weight is None or "output_shape" in node.attrs:
        return None
    spatial = len(source) - 2
    pads = _explicit_pads(node, spatial)
    channels = weight[1]
    made: Shape = [source[0], None]
    if channels is not None:
        made[1] = symbolic.multiply(channels, attr(node, "group", 1))
    strides = attr(node, "strides", (1,) * spatial)
    dilations = attr(node, "dilations", (1,) * spatial)
    extra = attr(node, "output_padding", (0,) * spatial)
    for at in range(spatial):
        size, extent = source[2 + at], weight[2 + at]
        if size is None or pads is None or not isinstance(extent, int):
            made.append(None)
            continue
        # stride (size - 1) + reach - pads + output_padding
        more = dilations[at] * (extent - 1) + 1 - strides[at] + extra[at]
        scaled = symbolic.multiply(size, strides[at])
        more -= pads[at] + pads[at + spatial]
        made.append(None if scaled is None else symbolic.add(scaled, more))
    return made


def _global_pool(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    return None if shapes[0] is None else [*shapes[0][:2], *[1] * (len(shapes[0]) - 2)]


def _resize(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    """Resize by whole-number scales or to given sizes; Upsample likewise."""
    source = shapes[0]
    if source is None or "axes" in node.attrs or "keep_aspect_ratio_policy" in node.attrs:
        return None
    if len(node.inputs) > 3 and node.inputs[3].name:
        sizes = values[3]
        return None if sizes is None else [_size(element) for element in sizes.flat]
    at = 1 if len(node.inputs) == 2 else 2
    if "scales" in node.attrs:
        scales = list(node.attrs["scales"])
    elif at < len(values) and (found := values[at]) is not None:
        scales = found.flat
    else:
        return None
    if len(scales) != len(source):
        return None
    made: Shape = []
    for size, scale in zip(source, scales, strict=True):
        whole = isinstance(scale, float) and scale.is_integer() and scale > 0
        made.append(symbolic.multiply(size, int(scale)) if whole and size is not None else None)
    return made


def _size(element: Any) -> Size | None:
    return None if isinstance(element, float) else element


def _depth_to_space(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source, block = shapes[0], node.attrs["blocksize"]
    if source is None or not isinstance(source[1], int):
        return None
    scaled = [None if size is None else symbolic.multiply(size, block) for size in source[2:]]
    return [source[0], source[1] // block**2, *scaled]


WINDOWS: dict[str, Callable[[Node, Shapes, Values], Shape | None]] = {
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
}
