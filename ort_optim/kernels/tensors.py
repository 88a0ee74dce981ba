"""Where the numbers of a tensor lie, for the code that is generated and for the plan around it.

    Place          a position in a tensor, in generated code
    Layout         how a region sees a tensor: sizes, halo and strides
    blocked, nchw  make one

Blocked is [N][Cb][top + H + bottom][left + W + right][v] float32: v channels of one pixel side by
side, Cb = ceil(C / v) blocks ("planes"), and a halo of zeros as wide as a consumer's padding asks.
Lanes beyond C in the last plane hold finite numbers without meaning; packed weights are zero there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ort_optim.kernels.builder import Code
from ort_optim.kernels.memory import Address
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.values import Int

STRIDES = ("batch", "plane", "row")


@dataclass(frozen=True)
class Place:
    """A position in a tensor, and how far it is to its neighbours, in floats.

    `pixel` is the distance of neighbours in a row: v in a blocked tensor, 1 in NCHW, and 0 in a
    tensor that has one number per channel. `plane` is one block of channels, in NCHW one channel.
    """

    address: Address
    batch: Int
    plane: Int
    row: Int
    pixel: int

    def at(
        self,
        image: Int | int = 0,
        plane: Int | int = 0,
        row: Int | int = 0,
        pixel: Int | int = 0,
        lane: Int | int = 0,
    ) -> Place:
        """The position so many images, planes, rows, pixels and single floats on."""
        moved = self.address
        for distance, count in (
            (self.batch, image),
            (self.plane, plane),
            (self.row, row),
            (self.pixel, pixel),
            (1, lane),
        ):
            moved = moved.at(self.address.code.integer(count) * distance)
        return replace(self, address=moved)

    def parts(self) -> list[Address | Int]:
        """As `builder.Compound`."""
        return [self.address, self.batch, self.plane, self.row]

    def rebuilt(self, parts: Iterator[Address | Int]) -> Place:
        """As `builder.Compound`."""
        address, batch, plane, row = (next(parts) for _ in range(4))
        assert isinstance(address, Address)
        assert isinstance(batch, Int)
        assert isinstance(plane, Int)
        assert isinstance(row, Int)
        return Place(address, batch, plane, row, self.pixel)


def tensor_values(name: str) -> tuple[str, ...]:
    """The names of the values that go with the tensor argument `name`."""
    return tuple(f"{name}.{stride}" for stride in STRIDES)


def tensor_place(code: Code, name: str, pixel: int | None = None) -> Place:
    """The tensor argument `name`: pixel (0, 0) of plane 0 of image 0. `pixel` defaults to v."""
    batch, plane, row = (code.value(each) for each in tensor_values(name))
    return Place(code.pointer(name), batch, plane, row, code.lanes if pixel is None else pixel)


@dataclass(frozen=True)
class Halo:
    """Zero pixels around an image."""

    top: Size
    left: Size
    bottom: Size
    right: Size

    def join(self, other: Halo) -> Halo:
        """Wide enough for both."""
        return Halo(
            self.top.max(other.top),
            self.left.max(other.left),
            self.bottom.max(other.bottom),
            self.right.max(other.right),
        )


@dataclass(frozen=True)
class Layout:
    """A tensor as a plan sees it: N, C, H, W, and where its numbers are.

    Attributes:
        kind: "blocked" or "nchw".
        lanes: v for a blocked tensor, 1 for NCHW.
        batch, plane, row: Strides in floats.
        origin: Floats from the start of its memory to pixel (0, 0).
        floats: Its memory, halo and last lanes included.
    """

    kind: Literal["blocked", "nchw"]
    lanes: int
    N: Size
    C: int
    H: Size
    W: Size
    halo: Halo
    batch: Size
    plane: Size
    row: Size
    origin: Size
    floats: Size

    @property
    def planes(self) -> int:
        """Blocks of channels; in NCHW channels."""
        return -(-self.C // self.lanes)

    def values(self, name: str) -> dict[str, Size]:
        """What the tensor argument `name` wants to know of it."""
        return dict(zip(tensor_values(name), (self.batch, self.plane, self.row), strict=True))


def no_halo(sizes: Sizes) -> Halo:
    """None on any side."""
    zero = sizes.const(0)
    return Halo(zero, zero, zero, zero)


def blocked(N: Size, C: int, H: Size, W: Size, lanes: int, halo: Halo) -> Layout:  # noqa: N803
    """A channel-blocked tensor in memory of its own."""
    row = (W + halo.left + halo.right) * lanes
    plane = row * (H + halo.top + halo.bottom)
    batch = plane * -(-C // lanes)
    origin = halo.top * row + halo.left * lanes
    return Layout("blocked", lanes, N, C, H, W, halo, batch, plane, row, origin, batch * N)


def nchw(N: Size, C: int, H: Size, W: Size) -> Layout:  # noqa: N803
    """A tensor as ONNX Runtime holds it."""
    halo = no_halo(N.sizes)
    plane = H * W
    zero = N.sizes.const(0)
    return Layout("nchw", 1, N, C, H, W, halo, plane * C, plane, W, zero, plane * C * N)
