"""1x1 convolution as a matrix product: pixels by input channels times input by output channels."""

from __future__ import annotations

from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import FLOAT_BYTES, SET_BYTES, Isa
from ort_optim.kernels.panel_template import ANY_LAYOUT, BLOCKED, PanelTemplate
from ort_optim.kernels.panels import is_dots
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, no_halo

MOST_IN_A_SET = 16
"""Input channels up to which an NCHW x is read as it is, wherever its planes lie."""


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
        return BLOCKED if is_dots(tile) or _is_crowded(conv, tile, isa) else ANY_LAYOUT, ANY_LAYOUT

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        return no_halo(H.sizes)


def _is_crowded(conv: ConvSpec, tile: Tile, isa: Isa) -> bool:
    """Whether several panels read an NCHW x each of whose pixels fills one set of L1.

    What one panel has read is gone when the next one comes: 1x1 64->65 on 32x32, two panels, takes
    64 us that way, 57 with x imported; 64->64, one panel, 42 and 48; 40->16 on 160x160 250 and 268.
    """
    if conv.Cin <= MOST_IN_A_SET or conv.H is None or conv.W is None:
        return False
    several = -(-conv.Cout // isa.lanes) > tile["nv"]
    return several and conv.H * conv.W * FLOAT_BYTES % SET_BYTES == 0
