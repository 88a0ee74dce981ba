"""1x1 convolution as a matrix product: pixels by input channels times input by output channels."""

from __future__ import annotations

from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.panel_template import ANY_LAYOUT, BLOCKED, PanelTemplate
from ort_optim.kernels.panels import is_dots
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, no_halo

CACHE_SETS_BYTES = 4096
"""Planes this far apart, or a multiple, fall into the same set of an L1 of 64 sets of 64 bytes."""

MOST_IN_A_SET = 16
"""Input channels up to which such planes are read as they are: 1x1 40->16 on 160x160 runs at 0.67
times ONNX Runtime's speed that way, imported at 1.24; 32->16 on 160x160 at 0.51 to 0.99, and 0.98;
64->65 on 32x32 at 0.91 and 1.05; but 16->32 on 240x320 at 1.04 and 0.80."""


class Pointwise(PanelTemplate):
    """Any stride, one group. Tile sizes as in `panel_tiles`."""

    name = "pointwise"

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed:
            return "transposed"
        if not conv.is_pointwise:
            return f"kernel {conv.KH}x{conv.KW} with pads {conv.pads}, not 1x1 without"
        return f"{conv.group} groups" if conv.group > 1 else None

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        return BLOCKED if is_dots(tile) or _shares_a_set(conv) else ANY_LAYOUT, ANY_LAYOUT

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        return no_halo(H.sizes)


def _shares_a_set(conv: ConvSpec) -> bool:
    """Whether reading a pixel of an NCHW x, channel by channel, fills one set of L1."""
    if conv.Cin <= MOST_IN_A_SET or conv.H is None or conv.W is None:
        return False
    return conv.H * conv.W * FLOAT_BYTES % CACHE_SETS_BYTES == 0
