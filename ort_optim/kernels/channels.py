"""`CopyChannels`: channels from anywhere in one blocked tensor to anywhere in another;
`ClearChannels`: zeros in the last ones of a tensor; `PickChannels`: in any order.

A concat or split whose channel counts are multiples of v is a matter of pointers. Here the counts
are not: every vector of y is put together from two neighbouring planes of x by one shuffle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.tensors import Layout, Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int, Vec


@dataclass(frozen=True)
class CopyChannels:
    """y[:, target : target + channels] = x[:, source : source + channels].

    Other lanes of y keep what they hold, save that `last` clears those behind the copied channels
    in their plane: the copies of one concat run in order, and the last one leaves zeros.

    Attributes:
        channels: How many.
        source, target: First channel in x, first channel in y.
        last: No channels of y follow.
    """

    channels: int
    source: int
    target: int
    last: bool

    @property
    def name(self) -> str:
        """As `Kernel`."""
        suffix = "_last" if self.last else ""
        return f"copy_channels_{self.channels}_from{self.source}_to{self.target}{suffix}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return *tensor_values("x"), *tensor_values("y"), "width", *ROW_VALUES

    def planes(self, v: int) -> int:
        """Planes of y that it writes into."""
        return -(-(self.target + self.channels) // v) - self.target // v

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v = code.lanes
        x, y = tensor_place(code, "x"), tensor_place(code, "y")
        ahead = self.source - self.target  # channel c of y is channel c + ahead of x
        base = self.target // v
        planes = self.planes(v)

        def copy(x: Place, y: Place, plane: int | Int, shown: int) -> None:
            """Plane `base + plane` of one row; `shown` is an example of `plane`."""
            first = (base + shown) * v
            low = max(self.target - first, 0)
            high = min(self.target + self.channels - first, v)
            start = first + ahead  # channel of x that belongs in lane 0
            shift = start % v
            from_x = x.at(plane=code.integer(plane) + (start // v - shown))
            to_y = y.at(plane=code.integer(plane) + base)
            with code.loop(code.value("width")) as pixel:
                here = from_x.at(pixel=pixel)
                none = code.vec(0.0)
                lower = here.address.load() if low + shift < v else none
                upper = here.at(plane=1).address.load() if high + shift > v else none
                vector = code.shuffle(lower, upper, [shift + lane for lane in range(v)])
                stop = v if self.last else high
                if high < stop:
                    copied = code.mask([lane < high for lane in range(v)])
                    vector = copied.choose(vector, code.vec(0.0))
                place = to_y.at(pixel=pixel).address
                if (low, stop) == (0, v):
                    place.store(vector)
                else:
                    written = code.mask([low <= lane < stop for lane in range(v)])
                    place.store_first(vector, written)

        # Only the first and the last plane may be partial: they have code of their own.
        partial_first = self.target % v != 0
        partial_last = (self.target + self.channels) % v != 0 and planes > partial_first
        with Rows(code).each() as (image, plane, row):
            source, target = x.at(image, row=row), y.at(image, row=row)
            if partial_first:
                with code.when(plane.equals(0)):
                    copy(source, target, 0, 0)
            if partial_last:
                with code.when(plane.equals(planes - 1)):
                    copy(source, target, planes - 1, planes - 1)
            if planes > partial_first + partial_last:
                whole = (plane >= int(partial_first)) & (plane < planes - partial_last)
                with code.when(whole):
                    copy(source, target, plane, int(partial_first))
        return code


def launch_copy_channels(
    isa: Isa, x: Layout, y: Layout, channels: int, source: int, target: int, *, last: bool
) -> Launch:
    """Copy channels of x from `source` on to channels of y from `target` on; both blocked."""
    kernel = CopyChannels(channels, source, target, last)
    rows, tasks = split_rows(x.N, kernel.planes(isa.lanes), x.H, x.W * (2 * isa.lanes))
    values = {**x.values("x"), **y.values("y"), "width": x.W, **rows}
    return Launch(kernel, values, tasks, x.N.sizes.const(0))


@dataclass(frozen=True)
class ClearChannels:
    """x[:, first:] = 0, and so in the lanes behind the last channel."""

    first: int

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return f"clear_channels_from{self.first}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("x",)

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return *tensor_values("x"), "width", *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        base, low = divmod(self.first, code.lanes)
        cleared = code.mask([lane >= low for lane in range(code.lanes)])
        x, none = tensor_place(code, "x").at(plane=base), code.vec(0.0)
        with Rows(code).each() as (image, plane, row):
            place = x.at(image, plane, row)
            with code.when(plane.equals(0)), code.loop(code.value("width")) as pixel:
                place.at(pixel=pixel).address.store_first(none, cleared)
            with code.when(plane >= 1), code.loop(code.value("width")) as pixel:
                place.at(pixel=pixel).address.store(none)
        return code


def launch_clear_channels(isa: Isa, x: Layout, first: int) -> Launch:
    """Clear the channels of the blocked x from `first` on."""
    planes = x.planes - first // isa.lanes
    rows, tasks = split_rows(x.N, planes, x.H, x.W * isa.lanes)
    values = {**x.values("x"), "width": x.W, **rows}
    return Launch(ClearChannels(first), values, tasks, x.N.sizes.const(0))


@dataclass(frozen=True)
class PickChannels:
    """y[:, i] = x[:, channels[i]].

    A vector of y is put together from those planes of x that have its channels, two by two: two in
    a shuffle of two groups, of which the channels are seldom aligned, three or four.
    """

    channels: tuple[int, ...]

    @property
    def name(self) -> str:
        """As `Kernel`."""
        digest = hashlib.sha256(repr(self.channels).encode()).hexdigest()[:12]
        return f"pick_{len(self.channels)}_channels_{digest}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return *tensor_values("x"), *tensor_values("y"), "width", *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        x, y, v = tensor_place(code, "x"), tensor_place(code, "y"), code.lanes
        with Rows(code).each() as (image, plane, row):
            source, target = x.at(image, row=row), y.at(image, plane, row)
            for number, start in enumerate(range(0, len(self.channels), v)):
                picked = self.channels[start : start + v]
                with code.when(plane.equals(number)), code.loop(code.value("width")) as pixel:
                    vector = _picked(code, source.at(pixel=pixel), picked)
                    target.at(pixel=pixel).address.store(vector)
        return code


def _picked(code: Code, x: Place, channels: Sequence[int]) -> Vec:
    """A vector of these channels of a pixel, zeros in the lanes behind them."""
    v = code.lanes
    planes = sorted({channel // v for channel in channels})
    vectors = [x.at(plane=plane).address.load() for plane in planes]
    where = [planes.index(channel // v) * v + channel % v for channel in channels]
    rest = [v] * (v - len(where))
    while len(vectors) > 1:
        # Lane i of each pair's shuffle is the one that y wants there, if the pair has it.
        vectors = [
            code.shuffle(
                vectors[first],
                vectors[min(first + 1, len(vectors) - 1)],
                [at - first * v if 0 <= at - first * v < 2 * v else 0 for at in [*where, *rest]],
            )
            for first in range(0, len(vectors), 2)
        ]
        where = [at // (2 * v) * v + lane for lane, at in enumerate(where)]
    return code.shuffle(vectors[0], code.vec(0.0), [*(at % v for at in where), *rest])


def launch_pick_channels(x: Layout, y: Layout, channels: tuple[int, ...]) -> Launch:
    """x -> y, both blocked."""
    rows, tasks = split_rows(y.N, y.planes, y.H, y.W * (2 * y.lanes))
    values = {**x.values("x"), **y.values("y"), "width": y.W, **rows}
    return Launch(PickChannels(channels), values, tasks, x.N.sizes.const(0))
