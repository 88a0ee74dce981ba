"""1x1 convolution as a matrix product: pixels by input channels times input by output channels."""

from __future__ import annotations

from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.panel_template import ANY_LAYOUT, BLOCKED, PanelTemplate
from ort_optim.kernels.panels import is_dots
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, no_halo


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
        return BLOCKED if is_dots(tile) else ANY_LAYOUT, ANY_LAYOUT

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        return no_halo(H.sizes)
