"""First layers: one to four input channels, read from the image as ONNX Runtime holds it.

The rows a task needs are copied between zeros, so that its sums check no bounds; steps go channel
by channel and row by row, with the taps of a row written out.
"""

from __future__ import annotations

from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.panel_template import ANY_LAYOUT, PanelTemplate
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo

LARGEST_CIN = 4


class FirstLayer(PanelTemplate):
    """One group, up to 4 input channels. Tile sizes as in `panel_tiles`."""

    name = "first_layer"
    single = True

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed:
            return "transposed"
        if conv.group > 1:
            return f"{conv.group} groups"
        if conv.Cin > LARGEST_CIN:
            return f"{conv.Cin} input channels, more than {LARGEST_CIN}"
        return None

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        return ANY_LAYOUT, ANY_LAYOUT

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        const = H.sizes.const
        return Halo(*map(const, conv.pads))
