"""Convolution with any kernel, stride, dilation, padding and groups; transposed ones as well.

Sums are taken tap by tap in a blocked tensor whose halo stands for the padding. Where groups do not
fill vectors, either lanes are moved to where their group is (as many inputs as outputs in a group,
whole groups in a vector; depthwise is one case), or a vector sums over the channels of all its
groups, with zeros for weights: there a NaN or an infinity spreads to the groups it shares a vector
with.
"""

from __future__ import annotations

from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.panel_template import ANY_LAYOUT, BLOCKED, PanelTemplate
from ort_optim.kernels.panels import is_dots
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo


class Direct(PanelTemplate):
    """Every 2-D convolution. Tile sizes as in `panel_tiles`."""

    name = "direct"

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed and conv.strides != (1, 1) and conv.dilations != (1, 1):
            return "transposed with strides and dilations"
        return None

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        plain = conv.group == 1 and not conv.transposed and not is_dots(tile)
        return ANY_LAYOUT if plain else BLOCKED, BLOCKED if conv.transposed else ANY_LAYOUT

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        const = H.sizes.const
        if not conv.transposed:
            return Halo(*map(const, conv.pads))
        (top, bottom), (left, right) = (_reach(conv, axis) for axis in (0, 1))
        return Halo(const(top), const(left), const(bottom), const(right))


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
