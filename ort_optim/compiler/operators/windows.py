"""Convolutions and poolings: what goes over an image with a window."""

from __future__ import annotations

from ort_optim.compiler.layers import (
    AveragePool,
    Convolution,
    GlobalAveragePool,
    MaxPool,
    Pads,
    Pair,
    Shape,
    Weight,
    Window,
)
from ort_optim.compiler.scope import Node, Refusal
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec

MOST_CHANNELS = 1 << 16
MOST_KERNEL = 1 << 10


# Convolution


def conv(node: Node) -> None:
    node.allow("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    x, weight = node.shape(0), node.weight(1, 4)
    group = node.integer("group", 1)
    Cout, Cin = weight.dims[0], weight.dims[1] * group
    _check_channels(x, Cin, Cout, group)
    kernel = _kernel(node, weight)
    strides, dilations = node.pair("strides"), node.pair("dilations")
    pads = _pads(node, x, kernel, strides, dilations)
    spec = ConvSpec(Cin, Cout, kernel, strides, dilations, pads, group, *_pinned(x))
    extent = spec.extent
    H, W = (_windows(s, extent[i], strides[i], _both(pads, i)) for i, s in enumerate((x.H, x.W)))
    _add_convolution(node, spec, weight, Shape(x.N, Cout, H, W))


def conv_transpose(node: Node) -> None:
    node.allow(
        "auto_pad", "dilations", "group", "kernel_shape", "output_padding", "pads", "strides"
    )
    x, weight = node.shape(0), node.weight(1, 4)
    group = node.integer("group", 1)
    Cin, Cout = weight.dims[0], weight.dims[1] * group
    _check_channels(x, Cin, Cout, group)
    kernel = _kernel(node, weight)
    strides, dilations = node.pair("strides"), node.pair("dilations")
    if node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Refusal(f"auto_pad={node.text('auto_pad', '')}")
    pads = _given_pads(node)
    extra = node.ints("output_padding") or (0, 0)
    if len(extra) != 2 or min(extra) < 0:
        raise Refusal(f"output_padding={list(extra)}")
    output_padding = (extra[0], extra[1])
    spec = ConvSpec(
        Cin,
        Cout,
        kernel,
        strides,
        dilations,
        pads,
        group,
        *_pinned(x),
        transposed=True,
        output_padding=output_padding,
    )
    H, W = (
        ((s - 1) * strides[i] + (spec.extent[i] + output_padding[i] - _both(pads, i))).max(0)
        for i, s in enumerate((x.H, x.W))
    )
    _add_convolution(node, spec, weight, Shape(x.N, Cout, H, W))


def _add_convolution(node: Node, spec: ConvSpec, weight: Weight, shape: Shape) -> None:
    bias = node.weight(2, 1) if node.has_input(2) else None
    if bias is not None and bias.dims != (spec.Cout,):
        raise Refusal(f"a bias of {bias.dims[0]} numbers for {spec.Cout} channels")
    number = node.scope.convolutions
    node.scope.convolutions += 1
    node.add(Convolution(spec, weight, bias, number), [node.value(0)], shape)


def _check_channels(x: Shape, Cin: int, Cout: int, group: int) -> None:  # noqa: N803
    if group < 1 or Cin < 1 or Cout < 1 or Cin % group or Cout % group:
        raise Refusal(f"{group} groups of {Cin} and {Cout} channels")
    if Cin != x.C:
        raise Refusal(f"weights for {Cin} channels, not {x.C}")
    if max(Cin, Cout) > MOST_CHANNELS:
        raise Refusal(f"{max(Cin, Cout)} channels")


def _kernel(node: Node, weight: Weight) -> Pair:
    kernel = (weight.dims[2], weight.dims[3])
    said = node.ints("kernel_shape")
    if said is not None and said != kernel:
        raise Refusal(f"kernel_shape={list(said)} with weights of {list(kernel)}")
    return _sound_kernel(kernel)


def _sound_kernel(kernel: Pair) -> Pair:
    if not 1 <= min(kernel) <= max(kernel) <= MOST_KERNEL:
        raise Refusal(f"a kernel of {list(kernel)}")
    return kernel


def _pads(node: Node, x: Shape, kernel: Pair, strides: Pair, dilations: Pair) -> Pads:
    """The padding that the node asks for, `auto_pad` resolved."""
    auto = node.text("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return _given_pads(node)
    if auto == "VALID":
        return 0, 0, 0, 0
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Refusal(f"auto_pad={auto}")
    low, high = [], []
    for axis, size in enumerate((x.H, x.W)):
        extent, stride = (kernel[axis] - 1) * dilations[axis] + 1, strides[axis]
        if stride == 1:
            total = extent - 1
        elif size.known is None:
            raise Refusal(f"auto_pad={auto} with stride {stride} and a size that is not known")
        else:
            total = max((-(-size.known // stride) - 1) * stride + extent - size.known, 0)
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        low.append(first)
        high.append(total - first)
    return low[0], low[1], high[0], high[1]


def _given_pads(node: Node) -> Pads:
    pads = node.ints("pads")
    if not pads:
        return 0, 0, 0, 0
    if len(pads) != 4 or not 0 <= min(pads) <= max(pads) <= MOST_KERNEL:
        raise Refusal(f"pads={list(pads)}")
    return pads[0], pads[1], pads[2], pads[3]


def _both(pads: Pads, axis: int) -> int:
    return pads[axis] + pads[axis + 2]


def _windows(size: Size, extent: int, stride: int, padding: int) -> Size:
    """How many windows fit."""
    return ((size + (padding - extent)) // stride + 1).max(0)


def _pinned(x: Shape) -> tuple[int | None, int | None, int | None]:
    return x.N.known, x.H.known, x.W.known


# Pooling


def max_pool(node: Node) -> None:
    node.allow(
        "auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"
    )
    window, shape = _pool(node)
    node.add(MaxPool(window), [node.value(0)], shape)


def average_pool(node: Node) -> None:
    node.allow(
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
        "dilations",
        "kernel_shape",
        "pads",
        "strides",
    )
    window, shape = _pool(node)
    counted = bool(node.integer("count_include_pad", 0))
    node.add(AveragePool(window, counted), [node.value(0)], shape)


def _pool(node: Node) -> tuple[Window, Shape]:
    x = node.shape(0)
    if not node.has_attribute("kernel_shape"):
        raise Refusal("no kernel_shape")
    kernel = _sound_kernel(node.pair("kernel_shape"))
    strides, dilations = node.pair("strides"), node.pair("dilations")
    pads = _pads(node, x, kernel, strides, dilations)
    ceil_mode = bool(node.integer("ceil_mode", 0))
    found = []
    for i, size in enumerate((x.H, x.W)):
        extent = (kernel[i] - 1) * dilations[i] + 1
        if max(pads[i], pads[i + 2]) >= extent:
            raise Refusal(f"pads={list(pads)} as large as the kernel")
        padding = _both(pads, i)
        if ceil_mode and not _is_floor(size, extent, strides[i], padding):
            _check_last_window(size, extent, strides[i], (pads[i], pads[i + 2]))
            padding += strides[i] - 1
        found.append(_windows(size, extent, strides[i], padding))
    window = Window(kernel, strides, pads, dilations, ceil_mode)
    return window, Shape(x.N, x.C, found[0], found[1])


def _is_floor(size: Size, extent: int, stride: int, padding: int) -> bool:
    """Whether the windows fit without rest, so that rounding up is the same as rounding down."""
    return stride == 1 or (size.known is not None and (size.known + padding - extent) % stride == 0)


def _check_last_window(size: Size, extent: int, stride: int, pads: Pair) -> None:
    """Refuse a last window that begins behind the image: versions of ORT differ on it."""
    if stride + pads[1] <= extent:
        return
    if size.known is None:
        raise Refusal("ceil_mode with a size that is not known")
    last = -(-(size.known + sum(pads) - extent) // stride) * stride
    if last >= size.known + pads[0]:
        raise Refusal("ceil_mode with a window that begins behind the image")


def global_average_pool(node: Node) -> None:
    node.allow()
    _add_global_average(node)


def reduce_mean(node: Node) -> None:
    node.allow("axes", "keepdims", "noop_with_empty_axes")
    axes = node.integers(1) if node.has_input(1) else node.ints("axes") or ()
    if sorted(axis % 4 for axis in axes) != [2, 3] or not node.integer("keepdims", 1):
        raise Refusal(f"a mean over axes {list(axes)}, not of all pixels")
    _add_global_average(node)


def _add_global_average(node: Node) -> None:
    x = node.shape(0)
    one = node.sizes.const(1)
    node.add(GlobalAveragePool(), [node.value(0)], Shape(x.N, x.C, one, one))
