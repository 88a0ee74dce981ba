"""Convolution with any kernel, stride, dilation, padding and groups; transposed ones as well.

Sums are taken tap by tap in a blocked tensor whose halo stands for the padding. Where groups do not
fill vectors, either lanes are moved to where their group is (as many inputs as outputs in a group,
whole groups in a vector; depthwise is one case), or a vector sums over the channels of all its
groups, with zeros for weights: there a NaN or an infinity spreads to the groups it shares a vector
with.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.builder import Isa
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.panel_launch import panel_launch
from ort_optim.kernels.panel_reference import panel_reference
from ort_optim.kernels.panel_tiles import panel_check, panel_demand, panel_tiles
from ort_optim.kernels.panel_weights import pack_panels
from ort_optim.kernels.panels import is_dots, panels_of
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout


class Direct:
    """Every 2-D convolution. Tile sizes as in `panel_tiles`."""

    name = "direct"
    error_class = 0

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed and conv.strides != (1, 1) and conv.dilations != (1, 1):
            return "transposed with strides and dilations"
        return None

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """As `ConvTemplate`."""
        return panel_tiles(conv, isa)

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        """As `ConvTemplate`."""
        return panel_demand(panels_of(conv, tile, isa.lanes), conv, tile)

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        return panel_check(conv, tile, isa)

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        both, one = frozenset({"blocked", "nchw"}), frozenset({"blocked"})
        plain = conv.group == 1 and not conv.transposed and not is_dots(tile)
        return both if plain else one, one if conv.transposed else both

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        const = H.sizes.const
        if not conv.transposed:
            return Halo(*map(const, conv.pads))
        (top, bottom), (left, right) = (_reach(conv, axis) for axis in (0, 1))
        return Halo(const(top), const(left), const(bottom), const(right))

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        """As `ConvTemplate`."""
        return pack_panels(panels_of(conv, tile, isa.lanes), bias=bias, sizes=sizes)

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        """As `ConvTemplate`."""
        return panel_launch(self.name, conv, tile, isa, epilogue, x, y)

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        """As `ConvTemplate`."""
        return panel_reference(conv, tile, x, w, b)


def _reach(conv: ConvSpec, axis: int) -> tuple[int, int]:
    """How far a transposed convolution reads beyond both ends of an axis of x."""
    stride, dilation, taps = conv.strides[axis], conv.dilations[axis], conv.kernel[axis]
    before = 0
    for phase in range(stride):
        first = (phase + conv.pads[axis]) % stride
        count = (taps - 1 + stride - first) // stride
        start = (phase + conv.pads[axis] - first) // stride - (count - 1) * dilation
        before = max(before, -start if count else 0)
    end = conv.extent[axis] + conv.output_padding[axis] - conv.pads[axis + 2] - 1
    return before, max(0, end // stride)
