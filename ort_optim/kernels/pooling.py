"""Pooling of blocked tensors, vectors over channels.

Pool         MaxPool and AveragePool with any window
GlobalPool   the average or maximum of every channel

Windows are cut at the image's edge, so x needs no halo. Output pixels whose windows lie inside, as
far as columns go, are done in tiles of `_TILE`; rows of a window are a loop over those that exist.
Maxima are taken in ONNX Runtime's order, which decides what becomes of NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.tensors import Layout, Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int, Vec
from ort_optim.kernels.windows import meetings

PoolKind = Literal["max", "average"]
_SIZE_VALUES = ("x.H", "x.W", "OW")
_PLAIN = Epilogue()
_TILE = 4
_WIDEST = 16  # columns of a window that are unrolled
_SUMS = 8  # of a global pool, side by side


@dataclass(frozen=True)
class Pool:
    """y = epilogue(pool of x).

    Attributes:
        kind: What is made of a window.
        kernel, strides, dilations, pads: As ONNX defines them; pads are (top, left, bottom, right).
        count_pads: An average divides by the padding's pixels too.
        epilogue: What follows.
    """

    kind: PoolKind
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    count_pads: bool = False
    epilogue: Epilogue = _PLAIN

    @property
    def name(self) -> str:
        """As `Kernel`."""
        activations = "".join(f"_{each.kind}" for each in self.epilogue.operations)
        parts = [f"{self.kind}_pool", "{}x{}".format(*self.kernel), "s{}x{}".format(*self.strides)]
        parts += ["d{}x{}".format(*self.dilations)] * (self.dilations != (1, 1))
        parts += ["p{}x{}x{}x{}".format(*self.pads)] * any(self.pads)
        return "_".join(parts) + "_counted" * self.count_pads + activations

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values)
        return *tensors, *_SIZE_VALUES, *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        (KH, KW), (sh, sw), (dh, dw) = self.kernel, self.strides, self.dilations
        top, left, _, _ = self.pads
        H, W, width = (code.value(name) for name in _SIZE_VALUES)
        others = [tensor_place(code, "y"), *self.epilogue.operands(code)]
        x = tensor_place(code, "x")

        # Columns [low, high) have windows that lie inside.
        room = W - (KW - 1) * dw - 1 + left
        high = code.min((room < 0).choose(code.integer(0), code.max(room, 0) // sw + 1), width)
        low = code.min(code.integer(-(-left // sw)), high)
        if KW > _WIDEST:
            low = high = code.integer(0)

        with Rows(code).each() as (image, plane, row):
            start = row * sh - top
            line = _Line(
                x=x.at(image, plane),
                targets=[each.at(image, plane, row) for each in others],
                start=start,
                taps=_taps(code, start, H, KH, dh, self.pads[2]),
            )
            with code.loop((high - low) // _TILE) as tile:
                self._inside(code, line, low + tile * _TILE, _TILE)
            done = low + (high - low) // _TILE * _TILE
            with code.loop(high, done) as pixel:
                self._inside(code, line, pixel, 1)
            with code.loop(width - (high - low)) as index:
                pixel = (index < low).choose(index, index + (high - low))
                first = pixel * sw - left
                self._at_edge(code, line, pixel, first, _taps(code, first, W, KW, dw, self.pads[3]))
        return code

    def _inside(self, code: Code, line: _Line, pixel: Int, count: int) -> None:
        """Neighbouring windows that have all their columns."""
        (KW, sw, dw), dh = (self.kernel[1], self.strides[1], self.dilations[1]), self.dilations[0]
        found = [code.variable(self._nothing(code)) for _ in range(count)]
        x = line.x.at(pixel=pixel * sw - self.pads[1])
        with code.loop(line.taps.stop, line.taps.first) as kh:
            row = x.at(row=line.start + kh * dh)
            now = [each.get() for each in found]
            for column, meeting in meetings(count, KW, sw, dw):
                number = row.at(pixel=column).address.load()
                for i, _ in meeting:
                    now[i] = self._joined(now[i], number)
            for each, vector in zip(found, now, strict=True):
                each.set(vector)
        columns = code.integer(KW)
        for i, each in enumerate(found):
            self._store(code, line, pixel + i, each.get(), columns)

    def _at_edge(self, code: Code, line: _Line, pixel: Int, first: Int, columns: _Taps) -> None:
        """A window that has some of its columns."""
        found = code.variable(self._nothing(code))
        with code.loop(line.taps.stop, line.taps.first) as kh:
            row = line.x.at(row=line.start + kh * self.dilations[0])
            with code.loop(columns.stop, columns.first) as kw:
                number = row.at(pixel=first + kw * self.dilations[1]).address.load()
                found.set(self._joined(found.get(), number))
        counted = columns.counted if self.count_pads else columns.stop - columns.first
        self._store(code, line, pixel, found.get(), counted)

    def _store(self, code: Code, line: _Line, pixel: Int, found: Vec, columns: Int) -> None:
        if self.kind == "average":
            taps = line.taps
            rows = taps.counted if self.count_pads else taps.stop - taps.first
            found = found / (rows * columns).to_vec()
        y, *operands = [each.at(pixel=pixel) for each in line.targets]
        y.address.store(self.epilogue.apply(code, found, operands))

    def _nothing(self, code: Code) -> Vec:
        return code.vec(-math.inf if self.kind == "max" else 0.0)

    def _joined(self, found: Vec, number: Vec) -> Vec:
        return number.maximum(found) if self.kind == "max" else found + number


@dataclass(frozen=True)
class _Taps:
    """Along one axis the taps [first, stop) of a window that are in the image, and how many are in
    the image or its padding."""

    first: Int
    stop: Int
    counted: Int


@dataclass(frozen=True)
class _Line:
    """A row of output pixels: its plane of x, row of x at the first tap, and places of y and the
    epilogue's operands."""

    x: Place
    targets: list[Place]
    start: Int
    taps: _Taps


def _taps(code: Code, start: Int, size: Int, taps: int, dilation: int, after: int) -> _Taps:
    def before(end: Int) -> Int:
        return code.min(code.max(end - start, 0).ceildiv(dilation), taps)

    return _Taps(before(code.integer(0)), before(size), before(size + after))


@dataclass(frozen=True)
class GlobalPool:
    """y [N][Cb][1][1][v] = epilogue(average or maximum of all pixels of x)."""

    kind: PoolKind
    epilogue: Epilogue = _PLAIN

    @property
    def name(self) -> str:
        """As `Kernel`."""
        activations = "".join(f"_{each.kind}" for each in self.epilogue.operations)
        return f"global_{self.kind}_pool{activations}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values)
        return *tensors, "x.H", "x.W", *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        x, y = tensor_place(code, "x"), tensor_place(code, "y")
        others = self.epilogue.operands(code)
        H, W = code.value("x.H"), code.value("x.W")
        average = self.kind == "average"
        nothing = code.vec(0.0 if average else -math.inf)

        def join(found: Vec, number: Vec) -> Vec:
            return found + number if average else number.maximum(found)

        with Rows(code).each_plane() as (image, plane, _, _):
            sums = [code.variable(nothing) for _ in range(_SUMS)]
            with code.loop(H) as row:
                line = x.at(image, plane, row)
                with code.loop(W // _SUMS) as group:
                    for i, each in enumerate(sums):
                        pixel = line.at(pixel=group * _SUMS + i)
                        each.set(join(each.get(), pixel.address.load()))
                with code.loop(W, W // _SUMS * _SUMS) as last:
                    sums[0].set(join(sums[0].get(), line.at(pixel=last).address.load()))
            found = [each.get() for each in sums]
            while len(found) > 1:
                found = [join(a, b) for a, b in zip(found[::2], found[1::2], strict=True)]
            total = found[0] / (H * W).to_vec() if average else found[0]
            operands = [each.at(image, plane) for each in others]
            to = y.at(image, plane).address
            to.store(self.epilogue.apply(code, total, operands))
        return code


def launch_pool(pool: Pool, x: Layout, y: Layout) -> Launch:
    """x -> y; with `ceil_mode` y has the rows and columns that ONNX gives it."""
    window = max(2, pool.kernel[0] * pool.kernel[1] // 2)
    rows, tasks = split_rows(y.N, y.planes, y.H, y.W * (window * y.lanes))
    sizes = {"x.H": x.H, "x.W": x.W, "OW": y.W}
    values = {**x.values("x"), **y.values("y"), **sizes, **rows}
    return Launch(pool, values, tasks, x.N.sizes.const(0))


def launch_global_pool(pool: GlobalPool, x: Layout, y: Layout) -> Launch:
    """x -> y of one pixel. Averages of no pixels are NaN, as they are in ONNX Runtime."""
    one = x.N.sizes.const(1)
    rows, tasks = split_rows(x.N, x.planes, one, (x.H * x.W).max(one) * x.lanes)
    values = {**x.values("x"), **y.values("y"), "x.H": x.H, "x.W": x.W, **rows}
    return Launch(pool, values, tasks, x.N.sizes.const(0))
