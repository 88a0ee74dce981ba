"""What a kernel and a convolution template are.

Kernel          one piece of machine code, described by data alone
Launch          a kernel with its arguments: what becomes a step of a plan
Tile, Demand    a choice a template offers, and what it demands of the machine
ConvTemplate    one way to compute a convolution
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ort_optim.kernels.builder import Code
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout

_TILE_SIZE = re.compile(r"([A-Za-z]+)=(\d{1,9})")


class Kernel(Protocol):
    """A frozen dataclass that describes one piece of machine code completely.

    Its `repr`, with the Isa and the generator's source, is the key of the code cache.
    """

    @property
    def name(self) -> str:
        """Symbol and label: letters, digits and underscores, short, readable."""

    @property
    def pointers(self) -> tuple[str, ...]:
        """Names of the pointer arguments, in order."""

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the integer arguments, in order."""

    def write(self, isa: Isa) -> Code:
        """Generate the code."""


@dataclass(frozen=True)
class Launch:
    """A kernel and the sizes it runs with.

    Attributes:
        kernel: The code.
        values: By name, a size for each of the kernel's values.
        tasks: Number of independent calls.
        scratch_bytes: Private memory of a worker.
    """

    kernel: Kernel
    values: Mapping[str, Size]
    tasks: Size
    scratch_bytes: Size


@dataclass(frozen=True)
class Packing:
    """How weights are brought into the order a kernel reads them in, once per session.

    The kernel's pointers are "w" (the ONNX weight), "b" (the bias, where `bias`) and "packed".
    `bytes` holds everything the compute kernel finds behind its pointer "w", bias included.
    """

    launch: Launch
    bytes: int


@dataclass(frozen=True)
class Tile:
    """Tile sizes, in order, such as (("mr", 14), ("nr", 32))."""

    sizes: tuple[tuple[str, int], ...] = ()

    def __getitem__(self, name: str) -> int:
        return dict(self.sizes)[name]

    @classmethod
    def parse(cls, text: str) -> Tile:
        """The tile that `str` made this text of. Raises ValueError for any other text."""
        found = _TILE_SIZE.findall(text)
        tile = cls(tuple((name, int(size)) for name, size in found))
        if str(tile) != text:
            raise ValueError(f"'{text[:80]}' is no tile")
        return tile

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.sizes)


@dataclass(frozen=True)
class Demand:
    """What a template with a tile needs of the machine.

    Attributes:
        registers: Vector registers its inner loop holds at once.
        l1_bytes, l2_bytes: Working set of the inner loop, and of one task.
        packed_bytes: Packed weights.
        tasks: Independent tasks there are for one image, or None where sizes are unknown.
    """

    registers: int
    l1_bytes: int
    l2_bytes: int
    packed_bytes: int
    tasks: int | None

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"{self.registers} registers, {self.l1_bytes} bytes of L1, {self.l2_bytes} of L2, "
            f"{self.packed_bytes} of memory"
        )


class ConvTemplate(Protocol):
    """One way to compute a convolution. Stateless; instances stand in `kernels.TEMPLATES`."""

    @property
    def name(self) -> str:
        """What files and people call it."""

    @property
    def error_class(self) -> int:
        """0: summed as plainly as ORT does; larger: less exact (Winograd F(2x2) 1, F(4x4) 2)."""

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """None, or the reason why it can't compute this convolution."""

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """Its tile space, what is likely best first."""

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        """What it needs of the machine."""

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        """None, or why a tile (perhaps read from a file) is none of this template's."""

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Layout kinds it can read x in and write y in; "blocked" is in both."""

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """The halo it wants around a blocked x of this size."""

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        """How its weights are packed."""

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        """The convolution x -> y. Pointers: "x", "w" (packed), "y", and those of the epilogue."""

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        """The same algorithm in NumPy, float32: (N, Cin, H, W) -> (N, Cout, OH, OW)."""
