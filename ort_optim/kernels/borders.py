"""Where a region begins and ends: NCHW to blocked and back, and zeros around images.

Import      NCHW -> blocked; halo and lanes beyond C become zero
Export      blocked -> NCHW
ClearHalo   zeros around the images of a blocked tensor
turn_in, turn_out   a row of pixels, for kernels that read or write NCHW themselves

Both conversions turn squares of v pixels by v channels in registers. The last square of a row
overlaps the one before it, so that only rows shorter than v pixels need care. Where a blocked
tensor has no halo, all pixels of a plane are one row, cut into pieces of `PIECE_PIXELS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.isa import FLOAT_BYTES, SET_BYTES, Isa
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.tensors import Layout, Place, tensor_place, tensor_values
from ort_optim.kernels.values import Bool, Int

PIECE_PIXELS = 512
HALO_VALUES = ("top", "left", "bottom", "right")


@dataclass(frozen=True)
class Import:
    """x NCHW -> y blocked, its halo cleared.

    Attributes:
        tail: Channels in the last plane where that is not full, else 0.
        halo: Whether y has one.
    """

    tail: int
    halo: bool

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return f"import_tail{self.tail}" + ("_halo" if self.halo else "")

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        halo = HALO_VALUES if self.halo else ()
        return *tensor_values("x"), *tensor_values("y"), "pixels", "width", *halo, *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v = code.lanes
        x, y = tensor_place(code, "x", 1), tensor_place(code, "y")
        width, pixels, rows = (code.value(each) for each in ("width", "pixels", "rows"))

        with Rows(code).each_plane() as (image, plane, first, stop):
            source, target = x.at(image, plane * v), y.at(image, plane)
            is_last = plane.equals(code.value("planes") - 1)
            with code.loop(stop, first) as row:
                count = code.min(width, pixels - row * width)
                turn_in(code, source.at(row=row), target.at(row=row), count, self.tail, is_last)
            if self.halo:
                _clear_halo(code, target, first, stop, rows, width)
        return code


@dataclass(frozen=True)
class Export:
    """x blocked -> y NCHW.

    Attributes:
        tail: Channels in the last plane where that is not full, else 0.
    """

    tail: int

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return f"export_tail{self.tail}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return *tensor_values("x"), *tensor_values("y"), "pixels", "width", *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v = code.lanes
        x, y = tensor_place(code, "x"), tensor_place(code, "y", 1)
        width, pixels = code.value("width"), code.value("pixels")

        with Rows(code).each() as (image, plane, row):
            source, target = x.at(image, plane, row), y.at(image, plane * v, row)
            count = code.min(width, pixels - row * width)
            is_last = plane.equals(code.value("planes") - 1)
            turn_out(code, source, target, count, self.tail, is_last)
        return code


@dataclass(frozen=True)
class ClearHalo:
    """Zeros in the halo of the blocked tensor x."""

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return "clear_halo"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("x",)

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return *tensor_values("x"), "width", *HALO_VALUES, *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        x = tensor_place(code, "x")
        rows, width = code.value("rows"), code.value("width")
        with Rows(code).each_plane() as (image, plane, first, stop):
            _clear_halo(code, x.at(image, plane), first, stop, rows, width)
        return code


def launch_import(isa: Isa, x: Layout, y: Layout) -> Launch:
    """x NCHW -> y blocked of the same N, C, H, W."""
    halo = _has_halo(y)
    kernel = Import(y.C % isa.lanes, halo)
    return _conversion(kernel, x, y, _halo_values(y) if halo else {}, join_rows=not halo)


def launch_export(isa: Isa, x: Layout, y: Layout) -> Launch:
    """x blocked -> y NCHW of the same N, C, H, W."""
    return _conversion(Export(x.C % isa.lanes), x, y, {}, join_rows=not _has_halo(x))


def launch_clear_halo(isa: Isa, x: Layout) -> Launch:
    """Zeros in the halo of the blocked x."""
    halo = x.halo
    border = (halo.left + halo.right) * x.lanes
    rows, tasks = split_rows(x.N, x.planes, x.H.max(1), border.max(x.lanes))
    rows["rows"] = x.H
    values = {**x.values("x"), "width": x.W, **_halo_values(x), **rows}
    return Launch(ClearHalo(), values, tasks, x.N.sizes.const(0))


def _conversion(
    kernel: Import | Export, x: Layout, y: Layout, more: dict[str, Size], *, join_rows: bool
) -> Launch:
    blocked = y if y.kind == "blocked" else x
    v, sizes = blocked.lanes, x.N.sizes
    values = {**x.values("x"), **y.values("y"), **more}
    pixels = x.H * x.W
    if join_rows:
        width = sizes.const(PIECE_PIXELS)
        count = pixels.ceildiv(width)
        for name, each in (("x", x), ("y", y)):
            values[f"{name}.row"] = width * each.lanes
    else:
        width, count = x.W, x.H
    rows, tasks = split_rows(x.N, blocked.planes, count, width * v)
    values |= {"pixels": pixels, "width": width, **rows}
    return Launch(kernel, values, tasks, sizes.const(0))


def _has_halo(layout: Layout) -> bool:
    halo = layout.halo
    return any(side.known != 0 for side in (halo.top, halo.left, halo.bottom, halo.right))


def _halo_values(layout: Layout) -> dict[str, Size]:
    halo = layout.halo
    sides = (halo.top, halo.left, halo.bottom, halo.right)
    return dict(zip(HALO_VALUES, sides, strict=True))


def turn_in(code: Code, x: Place, y: Place, count: Int, tail: int, is_last: Bool) -> None:
    """`count` pixels of the NCHW x to the blocked y, one plane of it.

    `tail` is the number of channels in the last plane where that is not full, else 0; `is_last`
    tells whether this is that plane. Lanes beyond become zero.
    """
    for channels in _channel_counts(code, tail, is_last):
        with code.either(count < code.lanes) as (short, long):
            with short:
                _turn_in_short(code, x, y, count, channels)
            with long, _squares(code, count) as start:
                _turn_in(code, x.at(pixel=start), y.at(pixel=start), channels)


def turn_out(code: Code, x: Place, y: Place, count: Int, tail: int, is_last: Bool) -> None:
    """`count` pixels of a plane of the blocked x to the NCHW y; `tail` as in `turn_in`.

    Where planes of y are a multiple of 4 KiB apart, stores to all of them fall into one set of L1,
    which holds 8 to 12 lines, and some are gone again before they are filled. There one half of the
    channels is written first: 64 channels of 32x32 take 6 us so, and 16 all at once; elsewhere
    halves cost 3% of a convolution.
    """
    for channels in _channel_counts(code, tail, is_last):
        with code.either(count < code.lanes) as (short, long):
            with short:
                _turn_out_short(code, x, y, count, channels)
            with (
                long,
                code.either((y.plane % (SET_BYTES // FLOAT_BYTES)).equals(0)) as (crowded, apart),
            ):
                with crowded:
                    for half in (0, 1):
                        with _squares(code, count) as start:
                            _turn_half_out(
                                code, x.at(pixel=start), y.at(pixel=start), half, channels
                            )
                with apart, _squares(code, count) as start:
                    _turn_out(code, x.at(pixel=start), y.at(pixel=start), channels)


def _channel_counts(code: Code, tail: int, is_last: Bool) -> Iterator[int]:
    """The numbers of channels that a plane may have; what follows is written for each."""
    if not tail:
        yield code.lanes
        return
    with code.when(is_last):
        yield tail
    with code.when(~is_last):
        yield code.lanes


@contextmanager
def _squares(code: Code, count: Int) -> Iterator[Int]:
    """Where squares begin that cover `count` pixels, at least v; the last may overlap."""
    v = code.lanes
    with code.loop(count.ceildiv(v)) as index:
        yield code.min(index * v, count - v)


def _turn_in(code: Code, x: Place, y: Place, channels: int) -> None:
    rows = [x.at(plane=c).address.load() for c in range(channels)]
    rows += [code.vec(0.0)] * (code.lanes - channels)
    for i, pixel in enumerate(code.transpose(rows)):
        y.at(pixel=i).address.store(pixel)


def _turn_in_short(code: Code, x: Place, y: Place, count: Int, channels: int) -> None:
    mask = code.lanes_below(count)
    rows = [x.at(plane=c).address.load_first(mask) for c in range(channels)]
    rows += [code.vec(0.0)] * (code.lanes - channels)
    # Pixels past the end go where the last one goes, which is written after them.
    for i, pixel in reversed(list(enumerate(code.transpose(rows)))):
        y.at(pixel=code.min(count - 1, i)).address.store(pixel)


def _turn_out(code: Code, x: Place, y: Place, channels: int) -> None:
    rows = code.transpose([x.at(pixel=i).address.load() for i in range(code.lanes)])
    for c in range(channels):
        y.at(plane=c).address.store(rows[c])


def _turn_half_out(code: Code, x: Place, y: Place, half: int, channels: int) -> None:
    first = half * code.lanes // 2
    pixels = [x.at(pixel=i).address.load() for i in range(code.lanes)]
    for c, row in enumerate(code.transpose_half(pixels, half), first):
        if c < channels:
            y.at(plane=c).address.store(row)


def _turn_out_short(code: Code, x: Place, y: Place, count: Int, channels: int) -> None:
    mask = code.lanes_below(count)
    pixels = [x.at(pixel=code.min(count - 1, i)).address.load() for i in range(code.lanes)]
    rows = code.transpose(pixels)
    for c in range(channels):
        y.at(plane=c).address.store_first(rows[c], mask)


def _clear_halo(code: Code, x: Place, first: Int, stop: Int, rows: Int, width: Int) -> None:
    """Zeros left and right of rows [first, stop) of one plane, and above and below all rows."""
    top, left, bottom, right = (code.value(each) for each in HALO_VALUES)

    def clear(row: Int, start: Int, end: Int) -> None:
        with code.loop(end, start) as pixel:
            x.at(row=row, pixel=pixel).address.store(code.vec(0.0))

    zero = code.integer(0)
    with code.loop(stop, first) as row:
        clear(row, zero - left, zero)
        clear(row, width, width + right)
    above = first.equals(0).choose(top, zero)
    with code.loop(zero, zero - above) as row:
        clear(row, zero - left, width + right)
    below = stop.equals(rows).choose(bottom, zero)
    with code.loop(rows + below, rows) as row:
        clear(row, zero - left, width + right)
