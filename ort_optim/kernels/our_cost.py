"""How long our own kernels take for a convolution, in the terms of `ort_cost`.

    estimate_us   one step of a region, one thread, from spec, template, tile and target alone
    border_us     the step that brings a tensor into a region's layout, or out of it

Each kernel is modelled as multiplications at a part of the core's peak, beside which its weights,
and what it reads and writes, come from memory. The parts were read from chains of four layers on
the machine that `ort_cost` describes, where these estimates are 9% off in the mean. Each constant
says what it was read from.
"""

from __future__ import annotations

from collections.abc import Callable

from ort_optim.hardware import Target
from ort_optim.kernels.base import Tile
from ort_optim.kernels.ort_cost import FLOAT_BYTES, Machine, Sizes
from ort_optim.kernels.panels import Panels, panels_of
from ort_optim.kernels.spec import ConvSpec

STEP_US = 0.6
"""A step that has next to nothing to do: 1x1 24->6 on one pixel, in a chain, takes 0.8 us."""

CALL_US = 1.5
"""A region's call: a session of one such step takes 2 to 3 us, one of ONNX Runtime's Conv 3."""

# -- panels: pointwise, direct, first layers -------------------------------------------------------

WIDE = 0.95
"""Part of the peak with two vectors of outputs or more: 1x1 64->64 to 832->160 run at 205 to 229 of
247 GFLOP/s, 3x3 and 5x5 at 215 to 235."""

NARROW = 0.80
"""With one vector each number of x is read for one product: 3x3 256->6 and 8->12 run at 190 to 203,
1x1 40->16 to 128->16 at 177 to 212."""

SHARED_1X1 = 0.76
"""Groups that share vectors: each vector reads other numbers of x. 1x1 112->112 to 544->544 in 4
groups, on 28x28 to 7x7, run at 183 to 192 with the products of other groups that are zero."""

DOTS = 0.5
"""Sums over vectors of input channels end in sums over lanes: 3x3 64->3 runs at 120."""

LANES = 0.6
"""Groups in the lanes of a vector, whose numbers of x are moved to where their group is: depthwise
3x3 runs at 72 to 107, 5x5 at 130."""

FULL_TILE = 3.2
"""Pixels of a tile below which its weights are waited for: 5x1 256->512 takes 8464 us on 512 rows
of one pixel, 4417 on 256 of two, 3337 on 170 of three, 2803 on 86 of six."""

# -- depthwise -------------------------------------------------------------------------------------

DEPTHWISE = 0.95
TAPS = {1: 3.0, 2: 4.0}
"""What an output costs beside its KH * KW products, in products, by horizontal stride (2 stands for
more)."""

DEPTHWISE_COLUMNS = 2.0
"""Columns that the borders of a row cost more: 3x3 runs at 118 GFLOP/s on 26 columns, at 83 to 98
on 13, at 85 to 92 on 7."""

# -- Winograd --------------------------------------------------------------------------------------

PRODUCTS = 0.95
"""Part of the peak of the matrix products."""

TRANSFORM = {2: 10.0, 4: 13.0}
"""What a number of a transformed input or output costs, in products, by m of F(m x m, 3 x 3): 8->8
on 128x128, transforms all but alone, takes 178 us with F(4x4), 278 with F(2x2)."""

# -- memory ----------------------------------------------------------------------------------------

WEIGHTS_BYTES_PER_FLOP = 0.18
"""Bandwidth for weights, by the peak, in a time that nothing else fills: 3x3 224->224 on
7x7 takes 248 us with F(4x4), its products and transforms 70, its 7.2 MB of weights 150; 192->256 on
14x14 393, 270 and 147; 1x1 512->2048 on 7x7 560, 438 and 95, 1024->512 on 14x14 915, 876 and 47."""

WEIGHTS_AT_HAND = 1 << 19
"""Bytes of them that cost nothing: 3x3 128->32 on 7x7 reads 0.6 MB in 11 us, in which the products
and transforms take 9."""


TURNED = 0.5
"""Of what a step that changes a layout takes, where a kernel turns its output in scratch: 1x1
24->112 on 56x56 in 4 groups takes 69 us so, 45 of them for the convolution and the change of its
input."""


def estimate_us(spec: ConvSpec, template: str, tile: Tile, target: Target) -> float | None:
    """Microseconds that a template takes for the convolution on one core of `target`, between
    others in a region.

    Args:
        spec: The convolution; what is fused into its store comes at no cost.
        template: Name of the template.
        tile: Its tile.
        target: The machine. Facts it lacks are replaced by the defaults of `ort_cost`.

    None where height or width are not known, or the template.
    """
    sizes, kernel = Sizes.of(spec), _KERNELS.get(template)
    if sizes is None or kernel is None:
        return None
    return STEP_US + kernel(spec, tile, sizes, Machine.of(target))


def border_us(images: int, channels: int, pixels: int, target: Target) -> float:
    """Microseconds to change the layout of a tensor of so many images, channels and pixels."""
    machine = Machine.of(target)
    return STEP_US + machine.memory_us(
        images * pixels * (channels + _padded(channels, machine.lanes))
    )


def _panels_us(
    spec: ConvSpec, tile: Tile, sizes: Sizes, machine: Machine, *, single: bool
) -> float:
    panels = panels_of(spec, tile, machine.lanes, single=single)
    taps = spec.KH * spec.KW / panels.phases
    vectors = panels.groups * panels.vectors * _channels(panels)
    macs = sizes.outputs * taps * vectors * machine.lanes
    floats = sizes.inputs * (spec.Cin if single else _padded(spec.Cin, machine.lanes))
    floats += sizes.outputs * _padded(spec.Cout, machine.lanes)
    floats += panels.floats
    row = sizes.OH * sizes.OW if spec.is_pointwise and spec.strides == (1, 1) else sizes.OW
    width = row / max(1, -(-row // tile["mr"]))
    part = _part(panels) * min(1.0, max(width, 1.0) / FULL_TILE)
    computed, moved = machine.compute_us(macs, part), machine.memory_us(floats)
    return computed + _weights_us(panels.floats, machine) if computed > moved else moved


def _weights_us(floats: int, machine: Machine) -> float:
    """What a kernel waits for its packed weights."""
    waited = max(0, FLOAT_BYTES * floats - WEIGHTS_AT_HAND)
    return 1e-3 * waited / (WEIGHTS_BYTES_PER_FLOP * machine.peak_gflops)


def _part(panels: Panels) -> float:
    if panels.reading in ("dots", "lanes"):
        return DOTS if panels.dots else LANES
    if panels.shared and panels.conv.kernel == (1, 1):
        return SHARED_1X1
    return WIDE if panels.vectors > 1 else NARROW


def _channels(panels: Panels) -> float:
    """Channels that a vector is summed over: `Panels.channels` in the mean of all panels."""
    conv = panels.conv
    if panels.reading != "channels" or not panels.shared:
        return panels.channels
    width, size = panels.nv * panels.v, conv.group_Cout
    starts = range(0, conv.Cout, width)
    groups = [(min(at + width, conv.Cout) - 1) // size - at // size + 1 for at in starts]
    return conv.group_Cin * sum(groups) / len(groups)


def _blocks_us(spec: ConvSpec, tile: Tile, sizes: Sizes, machine: Machine) -> float:
    return _panels_us(spec, tile, sizes, machine, single=False)


def _single_us(spec: ConvSpec, tile: Tile, sizes: Sizes, machine: Machine) -> float:
    return _panels_us(spec, tile, sizes, machine, single=True)


def _depthwise_us(spec: ConvSpec, tile: Tile, sizes: Sizes, machine: Machine) -> float:
    channels = _padded(spec.Cin, machine.lanes)
    taps = spec.KH * spec.KW + TAPS[min(2, spec.strides[1])]
    macs = sizes.N * sizes.OH * (sizes.OW + DEPTHWISE_COLUMNS) * channels * taps
    moved = (sizes.inputs + sizes.outputs) * channels
    return max(machine.compute_us(macs, DEPTHWISE), machine.memory_us(moved))


def _winograd(m: int) -> Callable[[ConvSpec, Tile, Sizes, Machine], float]:
    def kernel_us(spec: ConvSpec, tile: Tile, sizes: Sizes, machine: Machine) -> float:
        positions = (m + 2) ** 2
        Cin, Cout = (_padded(each, machine.lanes) for each in (spec.Cin, spec.Cout))
        numbers = positions * sizes.N * -(-sizes.OH // m) * -(-sizes.OW // m)
        products = machine.compute_us(numbers * spec.Cin * Cout, PRODUCTS)
        transforms = machine.compute_us(numbers * (Cin + Cout) * TRANSFORM[m], 1.0)
        moved = machine.memory_us(sizes.inputs * Cin + sizes.outputs * Cout)
        weights = _weights_us(positions * spec.Cin * Cout, machine)
        return max(products + transforms, moved) + weights

    return kernel_us


def _padded(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


_KERNELS: dict[str, Callable[[ConvSpec, Tile, Sizes, Machine], float]] = {
    "pointwise": _blocks_us,
    "direct": _blocks_us,
    "first_layer": _single_us,
    "depthwise": _depthwise_us,
    "winograd_f23": _winograd(2),
    "winograd_f43": _winograd(4),
}
