"""First layers: one to four input channels, read from the image as ONNX Runtime holds it.

The rows a task needs are copied between zeros, so that its sums check no bounds; steps go channel
by channel and row by row, with the taps of a row written out.
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
from ort_optim.kernels.panels import panels_of
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout

LARGEST_CIN = 4


class FirstLayer:
    """One group, up to 4 input channels. Tile sizes as in `panel_tiles`."""

    name = "first_layer"
    error_class = 0

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed:
            return "transposed"
        if conv.group > 1:
            return f"{conv.group} groups"
        if conv.Cin > LARGEST_CIN:
            return f"{conv.Cin} input channels, more than {LARGEST_CIN}"
        return None

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """As `ConvTemplate`."""
        return panel_tiles(conv, isa, single=True)

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        """As `ConvTemplate`."""
        return panel_demand(panels_of(conv, tile, isa.lanes, single=True), conv, tile)

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        return panel_check(conv, tile, isa)

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        return frozenset({"blocked", "nchw"}), frozenset({"blocked", "nchw"})

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`."""
        const = H.sizes.const
        return Halo(*map(const, conv.pads))

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        """As `ConvTemplate`."""
        return pack_panels(panels_of(conv, tile, isa.lanes, single=True), bias=bias, sizes=sizes)

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        """As `ConvTemplate`."""
        return panel_launch(self.name, conv, tile, isa, epilogue, x, y, single=True)

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        """As `ConvTemplate`."""
        return panel_reference(conv, tile, x, w, b)
