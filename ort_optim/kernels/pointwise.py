"""1x1 convolution as a matrix product: pixels by input channels times input by output channels."""

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
from ort_optim.kernels.tensors import Halo, Layout, no_halo


class Pointwise:
    """Any stride, one group. Tile sizes as in `panel_tiles`."""

    name = "pointwise"
    error_class = 0

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed:
            return "transposed"
        if not conv.is_pointwise:
            return f"kernel {conv.KH}x{conv.KW} with pads {conv.pads}, not 1x1 without"
        return f"{conv.group} groups" if conv.group > 1 else None

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
        both = frozenset({"blocked", "nchw"})
        return frozenset({"blocked"}) if is_dots(tile) else both, both

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        return no_halo(H.sizes)

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
