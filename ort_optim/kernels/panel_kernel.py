"""Convolution by panels of output channels: what pointwise, direct and first layers run.

y[n, o, oh, ow] = b[o] + sum over c, kh, kw of w[o, c, kh, kw] * x[n, c, oh*s + kh*d - pad, ...]

A task is (image, block of pixels, block of panels). The pixels of a block are few enough that what
they read of x stays in L2 while panel after panel goes over them; a panel's weights come from
memory once per block. Where y goes out as NCHW, tiles of up to a vector of channels are turned in
registers; with more, what a panel makes of a block stays in scratch and is turned from there, since
lines of so many planes would be open at once, and where a plane is a multiple of 4 KiB all fall
into the same few sets of the caches (1x1 64->64 on 64x64 then takes 511 us, with an export 225).

Where neither side has a halo and neighbours are neighbours on both sides, all pixels of an image
are one row ("flat"), else rows are cut into tiles one by one.

A row of `cols` pixels is cut into ceil(cols / mr) tiles whose widths differ by one at most, so that
no tile is much smaller than mr; where sizes are known, code is written for the widths that occur.

A transposed convolution is strides[0] * strides[1] plain ones, one for each phase (row % stride,
column % stride) of the output, each with those taps that meet it, turned around.

    PanelConv               the kernel
    _Writer                 its code: a task, a panel (_Job) over a block (_Pixels), a tile
    _Made                   what a panel makes in scratch
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce

from ort_optim.kernels.borders import turn_out
from ort_optim.kernels.builder import Argument, Code
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.memory import Address
from ort_optim.kernels.panels import Panels, phase_taps
from ort_optim.kernels.register_tile import (
    RegisterTile,
    Steps,
    accumulate,
    added_up,
    store_blocked,
    store_nchw,
)
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.staging import stage_rows
from ort_optim.kernels.tensors import Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int, Vec

SPLIT_VALUES = ("H", "W", "blocks", "panel_blocks")


@dataclass(frozen=True)
class PanelConv:
    """A convolution from x to y.

    Attributes:
        template: Whose kernel it is.
        conv: Without sizes.
        mr, nv: Tile size.
        widths: Widths of tiles that occur.
        flat: Whether all pixels are one row; decided at run time where operands may have halos.
        x_kind, y_kind: "blocked" or "nchw".
        staged: Whether rows of an NCHW x are copied between zeros first.
        turned: Whether an NCHW y is made in scratch first.
        single, dots: As in `Panels`.
        epilogue: What happens before the store.
    """

    template: str
    conv: ConvSpec
    mr: int
    nv: int
    widths: tuple[int, ...]
    flat: bool
    x_kind: str
    y_kind: str
    staged: bool
    turned: bool
    single: bool
    dots: bool
    epilogue: Epilogue

    @property
    def name(self) -> str:
        """As `Kernel`."""
        conv = self.conv
        parts = [self.template, f"{conv.KH}x{conv.KW}" * (self.template != "pointwise")]
        parts += [f"{conv.Cin}x{conv.Cout}", f"t{self.mr}x{self.nv}"]
        parts += ["s{}x{}".format(*conv.strides) * (conv.strides != (1, 1))]
        parts += ["d{}x{}".format(*conv.dilations) * (conv.dilations != (1, 1))]
        parts += ["dots" * self.dots]
        parts += [f"g{conv.group}" * (conv.group > 1), "flat" * self.flat]
        parts += ["from_nchw" * (self.x_kind == "nchw"), "to_nchw" * (self.y_kind == "nchw")]
        parts += [each.kind for each in self.epilogue.operations]
        return "_".join(filter(None, parts))

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "w", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = *tensor_values("x"), *tensor_values("y")
        staged = ("x.H", "x.W", "made") if self.staged else ()
        return *tensors, *SPLIT_VALUES, *staged, *self.epilogue.values

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        return _Writer(self, isa).write()


class _Writer:
    """One PanelConv while its code is written."""

    def __init__(self, kernel: PanelConv, isa: Isa) -> None:
        self.kernel = kernel
        self.conv = conv = kernel.conv
        self.code = Code(kernel.name, isa, kernel.pointers, kernel.values)
        self.panels = Panels(conv, kernel.nv, isa.lanes, kernel.single, kernel.dots)
        self.steps = Steps(
            self.panels.reading,
            conv.group_Cin,
            conv.dilations,
            (1, 1) if conv.transposed else conv.strides,
        )
        self.tiles: dict[RegisterTile, Callable[..., None]] = {}

    def write(self) -> Code:
        code, kernel, panels, conv = self.code, self.kernel, self.panels, self.conv
        rest = code.task // code.value("panel_blocks")
        image, block = rest // code.value("blocks"), rest % code.value("blocks")
        pixels, cols = self._pixels(block)
        x = tensor_place(code, "x", 1 if kernel.x_kind == "nchw" else None).at(image=image)
        if kernel.staged:
            x = stage_rows(code, conv, x, pixels.rows, code.scratch.at(code.value("made")))
        elif not conv.transposed:
            x = x.at(row=-conv.pads[0], pixel=-conv.pads[1])
        y = tensor_place(code, "y", 1 if kernel.y_kind == "nchw" else None).at(image=image)
        operands = [each.at(image=image) for each in kernel.epilogue.operands(code)]
        if conv.transposed:
            y, *operands = (_every(each, conv.strides) for each in (y, *operands))
        group_planes = conv.group_Cin // code.lanes
        total = panels.groups * panels.per_group
        each_task = code.integer(total).ceildiv(code.value("panel_blocks"))
        first = code.task % code.value("panel_blocks") * each_task
        with code.loop(code.min(first + each_task, total), first) as number:
            group, panel = number // panels.per_group, number % panels.per_group
            vector = group * panels.vectors + panel * panels.nv
            planes = vector * (code.lanes if kernel.y_kind == "nchw" else 1)
            w = code.pointer("w").at(group * panels.group_floats)
            w = w.at(panel * (panels.nv * panels.depth * code.lanes))
            job = _Job(
                x.at(plane=vector if panels.reading == "lanes" else group * group_planes),
                w,
                y.at(plane=planes),
                tuple(each.at(plane=vector) for each in operands),
                panels.first_channel(panel),
                vector,
            )
            if panels.tail and panels.per_group > 1:
                with code.either(panel.equals(panels.per_group - 1)) as (yes, no):
                    with yes:
                        self._panel(panels.tail, job, pixels, cols)
                    with no:
                        self._panel(panels.nv, job, pixels, cols)
            else:
                self._panel(panels.tail or panels.nv, job, pixels, cols)
        return code

    def _pixels(self, block: Int) -> tuple[_Pixels, tuple[Int, Int]]:
        """The pixels of a block, and (rows, cols) of the output, or of its first phase."""
        code, conv = self.code, self.conv
        flat = self._flat()
        height, width = code.value("H"), code.value("W")
        if conv.transposed:
            height, width = height.ceildiv(conv.strides[0]), width.ceildiv(conv.strides[1])
        rows, cols = flat(code.integer(1), height), flat(height * width, width)
        units = flat(cols.ceildiv(self.kernel.mr), rows)
        per_block = units.ceildiv(code.value("blocks"))
        start = block * per_block
        stop = code.min(start + per_block, units)
        pixels = _Pixels(
            (flat(code.integer(0), start), flat(code.integer(1), stop)),
            (flat(start, code.integer(0)), flat(stop, cols)),
        )
        return pixels, (rows, cols)

    def _flat(self) -> Callable[[Int, Int], Int]:
        """Chooses between what holds for one row of all pixels and what holds for rows."""
        code, kernel = self.code, self.kernel
        if not kernel.flat:
            return lambda yes, no: no
        conditions = [
            code.value(f"e{i}.row").equals(code.value("W") * code.lanes)
            for i, each in enumerate(kernel.epilogue.operations)
            if each.operand == "tensor"
        ]
        if not conditions:
            return lambda yes, no: yes
        return reduce(lambda a, b: a & b, conditions).choose

    def _panel(self, vectors: int, job: _Job, pixels: _Pixels, size: tuple[Int, Int]) -> None:
        """One panel over a block of pixels, phase by phase."""
        code, conv, kernel = self.code, self.conv, self.kernel
        if not conv.transposed:
            taps = code.integer(conv.KH), code.integer(conv.KW)
            if kernel.turned:
                made = self._made(pixels, size[1])
                self._sweep(vectors, replace(job, y=made.place), pixels, size[1], taps)
                self._turn_out(vectors, job, made)
            else:
                self._sweep(vectors, job, pixels, size[1], taps)
            return
        position = code.variable(code.integer(0))
        with code.loop(conv.strides[0]) as top, code.loop(conv.strides[1]) as left:
            axes = [phase_taps(conv, axis, phase) for axis, phase in enumerate((top, left))]
            (_, height, row), (_, width, pixel) = axes
            rows = (code.value("H") - top).ceildiv(conv.strides[0])
            cols = (code.value("W") - left).ceildiv(conv.strides[1])
            here = replace(
                job,
                x=job.x.at(row=row, pixel=pixel),
                w=job.w.at(position.get_int()),
                y=_part(job.y, conv.strides, top, left),
                operands=tuple(_part(each, conv.strides, top, left) for each in job.operands),
            )
            block = _Pixels((pixels.rows[0], code.min(pixels.rows[1], rows)), pixels.tiles)
            self._sweep(vectors, here, block, cols, (height, width))
            depth = height * width * self.panels.channels + 1
            position.set(position.get_int() + depth * (vectors * code.lanes))

    def _sweep(
        self, vectors: int, job: _Job, pixels: _Pixels, cols: Int, taps: tuple[Int, Int]
    ) -> None:
        """Tile after tile: `extra` tiles of base + 1 pixels, then tiles of base pixels."""
        code, kernel = self.code, self.kernel
        tiles, base, extra = self._cut(cols)
        zero = code.integer(0)
        for width in kernel.widths:
            narrow = base.equals(width)
            with code.when(narrow | (base + 1).equals(width)):
                shift = narrow.choose(extra, zero)
                start = code.max(shift, pixels.tiles[0])
                stop = code.min(narrow.choose(tiles, extra), pixels.tiles[1])
                shape = RegisterTile(1, width, vectors)
                with (
                    code.loop(pixels.rows[1], pixels.rows[0]) as row,
                    code.loop(stop, start) as tile,
                ):
                    self._tile(shape, job, row, tile * width + shift, taps)

    def _cut(self, cols: Int) -> tuple[Int, Int, Int]:
        """Tiles in a row of so many pixels, the width of most, and how many are wider by one."""
        tiles = self.code.max(cols.ceildiv(self.kernel.mr), 1)
        base = cols // tiles
        return tiles, base, cols - base * tiles

    def _made(self, pixels: _Pixels, cols: Int) -> _Made:
        """Scratch for what a panel makes of a block. Its pixels are one run in y, too: they are all
        of some rows, or a part of one."""
        code, lanes, scratch = self.code, self.code.lanes, self.code.scratch
        tiles, base, extra = self._cut(cols)
        first, stop = (code.min(tile, tiles) for tile in pixels.tiles)
        start = first * base + code.min(first, extra)
        width = stop * base + code.min(stop, extra) - start
        count, row = (pixels.rows[1] - pixels.rows[0]) * width, width * lanes
        place = Place(scratch, code.integer(0), count * lanes, row, lanes)
        begin = pixels.rows[0], start
        return _Made(place.at(row=begin[0] * -1, pixel=start * -1), scratch, begin, count)

    def _turn_out(self, vectors: int, job: _Job, made: _Made) -> None:
        """What a panel made, from scratch to y."""
        code, conv = self.code, self.conv
        last, v = code.integer(-(-conv.Cout // code.lanes) - 1), code.lanes
        y = job.y.at(row=made.begin[0], pixel=made.begin[1])
        with code.loop(vectors) as plane:
            source = replace(made.place, address=made.scratch).at(plane=plane)
            is_last = (job.vector + plane).equals(last)
            turn_out(code, source, y.at(plane=plane * v), made.count, conv.Cout % v, is_last)

    def _tile(
        self, tile: RegisterTile, job: _Job, row: Int, pixel: Int, taps: tuple[Int, Int]
    ) -> None:
        strides = self.steps.strides
        arguments: tuple[Argument, ...] = (
            job.x.at(row=row * strides[0], pixel=pixel * strides[1]),
            job.w,
            job.y.at(row=row, pixel=pixel),
            *job.channels,
            *taps,
            *(each.at(row=row, pixel=pixel) for each in job.operands),
        )
        if tile not in self.tiles:
            self.tiles[tile] = self.code.function(tile.name, arguments, partial(self._body, tile))
        self.tiles[tile](*arguments)

    def _body(
        self,
        tile: RegisterTile,
        x: Place,
        w: Address,
        y: Place,
        first: Int,
        count: Int,
        height: Int,
        width: Int,
        *operands: Place,
    ) -> None:
        """What a tile does, as a function of its own."""
        code, kernel = self.code, self.kernel
        sums = accumulate(code, tile, self.steps, x, w, (height, width), (first, count))

        def finished(r: int, i: int, j: int) -> Vec:
            at = [each.at(plane=j, row=r, pixel=i) for each in operands]
            if not kernel.dots:
                return kernel.epilogue.apply(code, sums.total(r, i, j), at)
            parts = [sums.total(r, i, output) for output in range(tile.vectors)]
            return kernel.epilogue.apply(code, added_up(code, parts) + w.load(), at)

        stored = replace(tile, vectors=1) if kernel.dots else tile
        if kernel.y_kind == "nchw" and not kernel.turned:
            store_nchw(code, stored, finished, y, self.conv.Cout)
        else:
            store_blocked(stored, finished, y)


@dataclass(frozen=True)
class _Pixels:
    """A block of pixels: rows, and tiles in each of them, as [first, stop)."""

    rows: tuple[Int, Int]
    tiles: tuple[Int, Int]


@dataclass(frozen=True)
class _Job:
    """What a panel works on: places for its first pixel; the input channels (first, count) of a
    panel that reads single ones; and its first vector of output channels."""

    x: Place
    w: Address
    y: Place
    operands: tuple[Place, ...]
    channels: tuple[Int, Int]
    vector: Int


@dataclass(frozen=True)
class _Made:
    """What a panel makes of a block before it is turned: `place` as if all of y were there, where
    its scratch begins, its first (row, pixel) in y, and how many pixels it has."""

    place: Place
    scratch: Address
    begin: tuple[Int, Int]
    count: Int


def _every(place: Place, strides: tuple[int, int]) -> Place:
    """Every stride-th row and pixel."""
    return replace(place, row=place.row * strides[0], pixel=place.pixel * strides[1])


def _part(place: Place, strides: tuple[int, int], row: Int, pixel: Int) -> Place:
    """A place of `_every`, moved by less than a stride."""
    across = place.pixel // strides[1]
    return replace(
        place, address=place.address.at(place.row // strides[0] * row).at(pixel * across)
    )
