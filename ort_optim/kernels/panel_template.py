"""What the templates by panels share: pointwise, direct and first layers differ in what they
support, in the layouts they read and write, and in the halo they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.panel_launch import panel_launch
from ort_optim.kernels.panel_reference import panel_reference
from ort_optim.kernels.panel_tiles import panel_check, panel_demand, panel_tiles
from ort_optim.kernels.panel_weights import pack_panels
from ort_optim.kernels.panels import panels_of
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Layout

BLOCKED = frozenset({"blocked"})
ANY_LAYOUT = frozenset({"blocked", "nchw"})


class PanelTemplate:
    """The part of a `ConvTemplate` that follows from its panels. Tile sizes as in `panel_tiles`.

    Attributes:
        name: As `ConvTemplate`.
        single: Whether input channels are taken one by one, as `panels_of` says.
    """

    name: ClassVar[str]
    single: ClassVar[bool] = False
    error_class = 0

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """As `ConvTemplate`."""
        return panel_tiles(conv, isa, single=self.single)

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        """As `ConvTemplate`."""
        return panel_demand(panels_of(conv, tile, isa.lanes, single=self.single), conv, tile)

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        return panel_check(conv, tile, isa)

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        """As `ConvTemplate`."""
        panels = panels_of(conv, tile, isa.lanes, single=self.single)
        return pack_panels(panels, bias=bias, sizes=sizes)

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        """As `ConvTemplate`."""
        return panel_launch(self.name, conv, tile, isa, epilogue, x, y, single=self.single)

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        """As `ConvTemplate`."""
        return panel_reference(conv, tile, x, w, b)
