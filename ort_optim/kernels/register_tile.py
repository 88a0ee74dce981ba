"""The inner loop of pointwise, direct and first-layer convolution: a tile of sums in registers.

Letters, here and in `panels.py`:

    mr              pixels of a tile
    nv, v           vectors of output channels of a tile, and channels in a vector
    taps            positions of the kernel, KH * KW
    step            one input channel at one tap: mr numbers of x times nv vectors of w

A tile is rows x cols pixels. Each step fills a register with one number of x per pixel and
multiplies it with nv vectors of weights, which lie in the order in which they are read:
[channels][taps][nv * v] behind nv * v numbers of bias.

    RegisterTile, Steps     its shape, and how it reads x
    Sums, accumulate        what it holds, and the loop that adds to it
    store_blocked, store_nchw
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from ort_optim.kernels.builder import Code
from ort_optim.kernels.memory import Address, Variable
from ort_optim.kernels.tensors import Place
from ort_optim.kernels.values import Int, Vec

CHAINS = 8
"""Sums that must grow side by side to hide a multiply-add's latency: 2 a cycle, 4 cycles each. A
tile with fewer sums splits them over consecutive steps."""

Reading = Literal["blocks", "channels", "lanes", "dots"]
"""How steps follow each other. blocks: [Cin / v][KH][KW][v], from a blocked x. channels:
[Cin][KH][KW], one channel at a time, from any x and from any channel on. lanes: [KH][KW][Cin], lane
l reading the channel of its own group: the channels of several groups lie in one vector. dots:
[Cin / v][KH][KW], v channels of x at a time, for the one or few output channels that would leave
most lanes of a vector idle: sums are vectors over input channels, added up at the end."""


@dataclass(frozen=True)
class RegisterTile:
    """Sums held in registers: rows x cols pixels, `vectors` vectors of output channels."""

    rows: int
    cols: int
    vectors: int

    @property
    def name(self) -> str:
        """Its symbol in the module."""
        return f"tile{self.rows}x{self.cols}x{self.vectors}"


@dataclass(frozen=True)
class Steps:
    """What a tile sums over, and how far apart x's numbers lie.

    Attributes:
        reading: The order of steps.
        channels: Input channels of one sum.
        dilations: Rows and pixels between taps.
        strides: Rows and pixels of x between neighbours in y.
    """

    reading: Reading
    channels: int
    dilations: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)


class Sums:
    """The accumulators of a tile, and how far its weights are read, while its code is written."""

    def __init__(
        self, code: Code, tile: RegisterTile, unroll: int, bias: Address | None, w: Address
    ) -> None:
        self.code = code
        self.tile = tile
        self.w = w
        self.pixels = [(r, i) for r in range(tile.rows) for i in range(tile.cols)]
        chains = len(self.pixels) * tile.vectors
        self.ways = min(unroll, -(-CHAINS // chains))
        zero = code.vec(0.0)
        start = [
            zero if bias is None else bias.at(j * code.lanes).load() for j in range(tile.vectors)
        ]
        self.cells: dict[tuple[int, int, int, int], Variable] = {
            (r, i, j, way): code.variable(zero if way else start[j])
            for r, i in self.pixels
            for j in range(tile.vectors)
            for way in range(self.ways)
        }
        self.position = code.variable(code.integer(0))

    def add(self, number: Callable[[int, int, int], Vec], steps: int, *, by_pixel: bool) -> None:
        """Some steps: `number(step, row, col)` fills a vector from x, and the next weights are
        read. `by_pixel`: all steps of a pixel before the next pixel."""
        code, tile = self.code, self.tile
        position = self.position.get_int()
        w = self.w.at(position)
        now = {key: cell.get() for key, cell in self.cells.items()}
        order: Iterator[tuple[int, int, int]]
        if by_pixel:
            order = ((s, r, i) for r, i in self.pixels for s in range(steps))
        else:
            order = ((s, r, i) for s in range(steps) for r, i in self.pixels)
        weights: dict[int, list[Vec]] = {}
        for s, r, i in order:
            if s not in weights:
                first = w.at(s * tile.vectors * code.lanes)
                weights[s] = [first.at(j * code.lanes).load() for j in range(tile.vectors)]
            x = number(s, r, i)
            for j in range(tile.vectors):
                key = (r, i, j, s % self.ways)
                now[key] = code.fma(x, weights[s][j], now[key])
        for key, cell in self.cells.items():
            cell.set(now[key])
        self.position.set(position + steps * tile.vectors * code.lanes)

    def total(self, r: int, i: int, j: int) -> Vec:
        """The finished sum of a pixel."""
        found = self.cells[r, i, j, 0].get()
        for way in range(1, self.ways):
            found = found + self.cells[r, i, j, way].get()
        return found


def unrolled(channels: int, lanes: int, chains: int) -> int:
    """How many steps are written out: a divisor of the channels in every block, as small as gives
    `CHAINS` sums side by side, at most 4.

    A tile large enough has one. Two or four are slower (1x1 64->64 @56: 237, 235, 231 GFLOP/s with
    6x4 sums, AVX-512), and take LLVM as much longer.
    """
    counts = [channels] if channels <= lanes else [lanes, channels % lanes]
    fit = [u for u in (1, 2, 3, 4) if all(count % u == 0 for count in counts)]
    return next((u for u in fit if u * chains >= CHAINS), fit[-1])


def accumulate(
    code: Code,
    tile: RegisterTile,
    steps: Steps,
    x: Place,
    w: Address,
    taps: tuple[Int, Int],
    channels: tuple[Int, Int],
) -> Sums:
    """Write the sums of a tile over all its steps.

    Args:
        x: What the tile's first pixel reads at its first tap.
        w: The packed weights of its channels, bias in front.
        taps: How many, (vertical, horizontal).
        channels: Where x is read by "channels", the first one and how many.
    """
    v = code.lanes
    bias, w = w, w.at(tile.vectors * v)
    if steps.reading == "channels":
        return _by_channels(code, tile, steps, x, (bias, w), taps, channels)
    if steps.reading == "lanes":
        return _by_lanes(code, tile, steps, x, (bias, w), taps)
    if steps.reading == "dots":
        return _by_dots(code, tile, steps, x, w, taps)
    unroll = unrolled(steps.channels, v, tile.rows * tile.cols * tile.vectors)
    sums = Sums(code, tile, unroll, bias, w)
    blocks = -(-steps.channels // v)
    last_count = steps.channels - (blocks - 1) * v
    with _loop(code, code.integer(blocks)) as block:
        plane = x.address.at(block * x.plane * (1 if x.pixel > 1 else v))
        in_block = code.integer(min(steps.channels, v) // unroll)
        if blocks > 1 and last_count != v:
            in_block = (block < blocks - 1).choose(in_block, code.integer(last_count // unroll))
        with _taps(code, steps, replace(x, address=plane), taps) as tap, _loop(code, in_block) as k:
            channel = code.integer(1) if x.pixel > 1 else x.plane
            here = replace(tap, address=tap.address.at(k * unroll * channel))
            sums.add(_filler(steps, here, channel), unroll, by_pixel=False)
    return sums


def _filler(steps: Steps, x: Place, distance: Int) -> Callable[[int, int, int], Vec]:
    """Fills a vector with the number of a pixel `step` times a distance on."""

    def fill(step: int, row: int, col: int) -> Vec:
        start = x.address.at(x.row * (row * steps.strides[0])).at(distance * step)
        return start.at(col * steps.strides[1] * x.pixel).fill()

    return fill


def _by_channels(
    code: Code,
    tile: RegisterTile,
    steps: Steps,
    x: Place,
    weights: tuple[Address, Address],
    taps: tuple[Int, Int],
    channels: tuple[Int, Int],
) -> Sums:
    """One channel at a time; the taps of a row are written out where their weights fit in registers
    beside the sums, for then each number of x is read once for all the sums it enters.

    Where they do not fit, writing them out is worse than a loop: LLVM keeps what is read again, and
    7 taps of 14x2 sums at stride 2 hold 33 numbers, and spill (143 of 235 GFLOP/s, AVX-512; with
    the addresses hidden from LLVM 221).
    """
    width = taps[1].constant or 1
    if (tile.rows * tile.cols + width) * tile.vectors + 2 > code.isa.registers:
        width = 1
    sums = Sums(code, tile, min(width, 4), *weights)
    with _loop(code, channels[1]) as i:
        c = channels[0] + i
        plane = c * x.plane
        if x.pixel > 1:
            plane = (c // code.lanes) * x.plane + c % code.lanes
        at_channel = x.address.at(plane)
        with _loop(code, taps[0]) as kh:
            row = at_channel.at(kh * (x.row * steps.dilations[0]))
            with _loop(code, taps[1] // width) as kw:
                across = x.pixel * steps.dilations[1]
                here = row.at(kw * across)

                def number(
                    step: int, r: int, col: int, here: Address = here, across: int = across
                ) -> Vec:
                    moved = here.at(x.row * (r * steps.strides[0]))
                    return moved.at(col * steps.strides[1] * x.pixel + step * across).fill()

                sums.add(number, width, by_pixel=True)
    return sums


def _by_lanes(
    code: Code,
    tile: RegisterTile,
    steps: Steps,
    x: Place,
    weights: tuple[Address, Address],
    taps: tuple[Int, Int],
) -> Sums:
    """Groups of `channels` inputs and as many outputs, v / channels groups in a vector."""
    size = steps.channels
    chunk = min(size, 4)
    sums = Sums(code, tile, chunk, *weights)
    with _taps(code, steps, x, taps) as tap:
        for start in range(0, size, chunk):

            def number(step: int, r: int, col: int, start: int = start) -> Vec:
                row = tap.address.at(x.row * (r * steps.strides[0]))
                found = row.at(col * steps.strides[1] * x.pixel).load()
                lanes = [lane // size * size + start + step for lane in range(code.lanes)]
                return code.shuffle(found, found, lanes)

            sums.add(number, min(chunk, size - start), by_pixel=True)
    return sums


def _by_dots(
    code: Code,
    tile: RegisterTile,
    steps: Steps,
    x: Place,
    w: Address,
    taps: tuple[Int, Int],
) -> Sums:
    """v channels of x at a time; a tile's vectors are its output channels. Without bias."""
    sums = Sums(code, tile, 1, None, w)
    with _loop(code, code.integer(-(-steps.channels // code.lanes))) as block:
        plane = replace(x, address=x.address.at(block * x.plane))
        with _taps(code, steps, plane, taps) as tap:

            def number(step: int, r: int, col: int) -> Vec:
                row = tap.address.at(x.row * (r * steps.strides[0]))
                return row.at(col * steps.strides[1] * x.pixel).load()

            sums.add(number, 1, by_pixel=False)
    return sums


def added_up(code: Code, vectors: Sequence[Vec]) -> Vec:
    """Lane i of the result is the sum of all lanes of vector i, zero where there is none.

    Neighbours are merged: one holds the even lanes' sums, the other the odd ones'; then in steps of
    two, four, ... until one vector is left.
    """
    found: list[Vec | None] = [*vectors, *[None] * (code.lanes - len(vectors))]
    width = 1
    while width < code.lanes:
        lanes = range(code.lanes)
        low = [code.lanes + i - width if i & width else i for i in lanes]
        high = [code.lanes + i if i & width else i + width for i in lanes]
        merged: list[Vec | None] = []
        for a, b in zip(found[::2], found[1::2], strict=True):
            if a is None:
                merged.append(None)
            else:
                other = code.vec(0.0) if b is None else b
                merged.append(code.shuffle(a, other, low) + code.shuffle(a, other, high))
        found, width = merged, width * 2
    assert found[0] is not None
    return found[0]


@contextmanager
def _loop(code: Code, count: Int) -> Iterator[Int]:
    """A loop, or nothing around a body that runs exactly once."""
    if count.constant == 1:
        yield code.integer(0)
    else:
        with code.loop(count) as i:
            yield i


@contextmanager
def _taps(code: Code, steps: Steps, x: Place, taps: tuple[Int, Int]) -> Iterator[Place]:
    with _loop(code, taps[0]) as kh, _loop(code, taps[1]) as kw:
        row = x.address.at(kh * (x.row * steps.dilations[0]))
        yield replace(x, address=row.at(kw * (x.pixel * steps.dilations[1])))


def store_blocked(
    tile: RegisterTile,
    finished: Callable[[int, int, int], Vec],
    y: Place,
) -> None:
    """Write a tile to a blocked tensor; `finished(row, col, vector)` is what is written."""
    for r in range(tile.rows):
        for j in range(tile.vectors):
            row = y.address.at(y.plane * j).at(y.row * r)
            for i in range(tile.cols):
                row.at(i * y.pixel).store(finished(r, i, j))


def store_nchw(
    code: Code,
    tile: RegisterTile,
    finished: Callable[[int, int, int], Vec],
    y: Place,
    channels: int,
) -> None:
    """Write a tile of up to a vector of channels to an NCHW tensor, turned so that pixels lie side
    by side."""
    v = code.lanes
    for r in range(tile.rows):
        for start in range(0, tile.cols, v):
            count = min(v, tile.cols - start)
            found: Sequence[Vec] = [finished(r, start + i, 0) for i in range(count)]
            turned = code.transpose([*found, *[found[-1]] * (v - count)])
            for lane in range(channels):
                place = y.address.at(y.plane * lane).at(y.row * r).at(start)
                if count == v:
                    place.store(turned[lane])
                else:
                    place.store_first(turned[lane], code.lanes_below(code.integer(count)))
