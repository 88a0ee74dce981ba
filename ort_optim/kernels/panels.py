"""Convolution by panels of output channels: what pointwise, direct and first layers run.

    Panels          how output channels are cut into panels, and where each one's weights lie
    PanelConv       the kernel: for each panel, tile after tile of pixels
    panel_launch    the kernel with its sizes, cut into tasks

y[n, o, oh, ow] = b[o] + sum over c, kh, kw of w[o, c, kh, kw] * x[n, c, oh*s + kh*d - pad, ...]

A task is (image, block of pixels, block of panels). The pixels of a block are few enough that what
they read of x stays in L2 while panel after panel goes over them; a panel's weights come from
memory once per block. Where neither side has a halo and neighbours are neighbours on both sides,
all pixels of an image are one row ("flat"), else rows are cut into tiles one by one.

A row of `cols` pixels is cut into ceil(cols / mr) tiles whose widths differ by one at most, so that
no tile is much smaller than mr; where sizes are known, code is written for the widths that occur.

A transposed convolution is strides[0] * strides[1] plain ones, one for each phase (row % stride,
column % stride) of the output, each with those taps that meet it, turned around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce

from ort_optim.kernels.base import Launch, Tile
from ort_optim.kernels.builder import Address, Argument, Code, Int, Isa, Vec
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.register_tile import (
    Reading,
    RegisterTile,
    Steps,
    accumulate,
    store_blocked,
    store_nchw,
)
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.staging import stage_rows, staged_bytes
from ort_optim.kernels.tensors import Layout, Place, tensor_place, tensor_values

SPLIT_VALUES = ("H", "W", "blocks", "panel_blocks")
TASK_MACS = 2_000_000  # about 20 us: smaller tasks cost more to hand out than they bring
TASKS_PER_THREAD = 4


@dataclass(frozen=True)
class Panels:
    """Output channels in panels of nv vectors, group by group, the last of a group narrower.

    Groups whose channels fill whole vectors on both sides have panels of their own; all others
    share vectors, and count as one group here.

    Attributes:
        conv: The convolution, of which N, H and W do not matter.
        nv, v: Vectors in a panel and channels in a vector.
        single: Whether steps take one channel at a time.
    """

    conv: ConvSpec
    nv: int
    v: int
    single: bool = False

    @property
    def reading(self) -> Reading:
        """How steps follow each other."""
        conv, v = self.conv, self.v
        if not self.shared:
            return "channels" if self.single else "blocks"
        if conv.group_Cin == conv.group_Cout and v % conv.group_Cin == 0:
            return "lanes"
        return "channels"

    @property
    def groups(self) -> int:
        """Groups with panels of their own."""
        conv, v = self.conv, self.v
        return conv.group if conv.group_Cin % v == 0 and conv.group_Cout % v == 0 else 1

    @property
    def shared(self) -> bool:
        """Whether groups share vectors."""
        return self.conv.group > self.groups

    @property
    def vectors(self) -> int:
        """Vectors of output channels in a group."""
        return -(-self.conv.Cout // self.groups // self.v)

    @property
    def per_group(self) -> int:
        """Panels of a group."""
        return -(-self.vectors // self.nv)

    @property
    def tail(self) -> int:
        """Vectors in the last panel of a group where that is not full, else 0."""
        return self.vectors % self.nv

    @property
    def channels(self) -> int:
        """Input channels an output channel is summed over, zeros of other groups included."""
        conv = self.conv
        if self.reading != "channels" or not self.shared:
            return conv.group_Cin
        width, size = self.nv * self.v, conv.group_Cout
        return conv.group_Cin * max(
            (min(first + width, conv.Cout) - 1) // size - first // size + 1
            for first in range(0, conv.Cout, width)
        )

    @property
    def phases(self) -> int:
        """Phases of the output."""
        return self.conv.strides[0] * self.conv.strides[1] if self.conv.transposed else 1

    @property
    def depth(self) -> int:
        """Vectors of a panel's weights for one of its nv vectors: bias and steps of all phases."""
        return self.phases + self.channels * self.conv.KH * self.conv.KW

    @property
    def group_floats(self) -> int:
        """Packed weights of a group."""
        return self.vectors * self.depth * self.v

    @property
    def floats(self) -> int:
        """All packed weights."""
        return self.groups * self.group_floats

    def first_channel(self, panel: Int) -> tuple[Int, Int]:
        """Where a panel that reads x channel by channel begins, and how many channels it reads."""
        conv, width = self.conv, self.nv * self.v
        code = panel.code
        if conv.group == 1:
            return code.integer(0), code.integer(conv.Cin)
        first = panel * width
        last = code.min(first + width, conv.Cout) - 1
        group = first // conv.group_Cout
        count = last // conv.group_Cout - group + 1
        return group * conv.group_Cin, count * conv.group_Cin


def phase_taps(conv: ConvSpec, axis: int, phase: Int) -> tuple[Int, Int, Int]:
    """Of one axis of a transposed convolution: the first tap that meets a phase, how many do, and
    where x is read by the last of them for the phase's first output."""
    stride, pad, dilation = conv.strides[axis], conv.pads[axis], conv.dilations[axis]
    first = (phase + pad) % stride
    count = (conv.kernel[axis] - 1 + stride - first) // stride
    return first, count, (phase + pad - first) // stride - (count - 1) * dilation


def erased(conv: ConvSpec) -> ConvSpec:
    """The convolution without sizes: what code depends on."""
    return replace(conv, N=None, H=None, W=None, output_padding=(0, 0))


def widths_of(cols: int | None, mr: int) -> frozenset[int]:
    """The widths of tiles in a row of `cols` pixels; all up to mr where that is not known."""
    if cols is None:
        return frozenset(range(1, mr + 1))
    tiles = max(1, -(-cols // mr))
    return frozenset({cols // tiles, -(-cols // tiles)} - {0})


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
        single: As in `Panels`.
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
    single: bool
    epilogue: Epilogue

    @property
    def name(self) -> str:
        """As `Kernel`."""
        conv = self.conv
        parts = [self.template, f"{conv.KH}x{conv.KW}" * (self.template != "pointwise")]
        parts += [f"{conv.Cin}x{conv.Cout}", f"t{self.mr}x{self.nv}"]
        parts += ["s{}x{}".format(*conv.strides) * (conv.strides != (1, 1))]
        parts += ["d{}x{}".format(*conv.dilations) * (conv.dilations != (1, 1))]
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
        staged = ("x.H", "x.W") if self.staged else ()
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
        self.panels = Panels(conv, kernel.nv, isa.lanes, kernel.single)
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
            x = stage_rows(code, conv, x, pixels.rows)
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
            w = code.pointer("w").at(group * panels.group_floats)
            w = w.at(panel * (panels.nv * panels.depth * code.lanes))
            job = _Job(
                x.at(plane=vector if panels.reading == "lanes" else group * group_planes),
                w,
                y.at(plane=vector * (code.lanes if kernel.y_kind == "nchw" else 1)),
                tuple(each.at(plane=vector) for each in operands),
                panels.first_channel(panel),
                code.integer(conv.Cout) - vector * code.lanes,
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
        code, conv = self.code, self.conv
        if not conv.transposed:
            taps = code.integer(conv.KH), code.integer(conv.KW)
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
        tiles = code.max(cols.ceildiv(kernel.mr), 1)
        base = cols // tiles
        extra = cols - base * tiles
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
            job.left,
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
        left: Int,
        *operands: Place,
    ) -> None:
        """What a tile does, as a function of its own."""
        code, kernel = self.code, self.kernel
        sums = accumulate(code, tile, self.steps, x, w, (height, width), (first, count))

        def finished(r: int, i: int, j: int) -> Vec:
            at = [each.at(plane=j, row=r, pixel=i) for each in operands]
            return kernel.epilogue.apply(code, sums.total(r, i, j), at)

        if kernel.y_kind == "nchw":
            store_nchw(code, tile, finished, y, left if self.conv.Cout % code.lanes else None)
        else:
            store_blocked(tile, finished, y)


@dataclass(frozen=True)
class _Pixels:
    """A block of pixels: rows, and tiles in each of them, as [first, stop)."""

    rows: tuple[Int, Int]
    tiles: tuple[Int, Int]


@dataclass(frozen=True)
class _Job:
    """What a panel works on: places for its first pixel; the input channels (first, count) of a
    panel that reads single ones; and how many output channels there are from its first one on."""

    x: Place
    w: Address
    y: Place
    operands: tuple[Place, ...]
    channels: tuple[Int, Int]
    left: Int


def _every(place: Place, strides: tuple[int, int]) -> Place:
    """Every stride-th row and pixel."""
    return replace(place, row=place.row * strides[0], pixel=place.pixel * strides[1])


def _part(place: Place, strides: tuple[int, int], row: Int, pixel: Int) -> Place:
    """A place of `_every`, moved by less than a stride."""
    across = place.pixel // strides[1]
    return replace(
        place, address=place.address.at(place.row // strides[0] * row).at(pixel * across)
    )


def panel_launch(
    template: str,
    conv: ConvSpec,
    tile: Tile,
    isa: Isa,
    epilogue: Epilogue,
    x: Layout,
    y: Layout,
    *,
    single: bool = False,
) -> Launch:
    """The convolution x -> y by panels, cut into tasks.

    A block has about tile["px"] pixels. Where there are several workers, blocks are cut into blocks
    of panels, then made smaller, until there are `TASKS_PER_THREAD` tasks for each worker or tasks
    become smaller than `TASK_MACS`.
    """
    mr, nv = tile["mr"], tile["nv"]
    panels = Panels(conv, nv, isa.lanes, single)
    staged = x.kind == "nchw" and any(conv.pads)
    flat = _is_flat(conv, x, y)
    height, width = (y.H, y.W)
    if conv.transposed:
        height, width = height.ceildiv(conv.strides[0]), width.ceildiv(conv.strides[1])
    known = [width] if not conv.transposed else [width, y.W // conv.strides[1]]
    if flat:
        known = [width * height]
    if flat and any(each.operand == "tensor" for each in epilogue.operations):
        known.append(width)
    widths = frozenset[int]().union(*(widths_of(each.known, mr) for each in known))
    kernel = PanelConv(
        template,
        erased(conv),
        mr,
        nv,
        tuple(sorted(widths)),
        flat,
        x.kind,
        y.kind,
        staged,
        single,
        epilogue,
    )
    cols = width * height if flat else width
    units = cols.ceildiv(mr) if flat else height
    unit_pixels = x.N.sizes.const(mr) if flat else width
    enough = ((x.N.sizes.threads() - 1) * TASKS_PER_THREAD).max(1)
    macs = panels.channels * conv.KH * conv.KW * panels.groups * panels.vectors * isa.lanes
    work = x.N * height * width * macs // TASK_MACS
    target = enough.min(work).max(1)
    images = x.N.max(1)
    per_block = (unit_pixels.max(1).sizes.const(tile["px"]) // unit_pixels.max(1)).max(1)
    blocks = units.ceildiv(per_block).max(1)
    panel_blocks = target.ceildiv(images * blocks).min(panels.groups * panels.per_group)
    if staged:
        panel_blocks = x.N.sizes.const(1)
    blocks = blocks.max(target.ceildiv(images * panel_blocks)).min(units.max(1))
    values = {
        **x.values("x"),
        **y.values("y"),
        "H": y.H,
        "W": y.W,
        "blocks": blocks,
        "panel_blocks": panel_blocks,
    }
    scratch = x.N.sizes.const(0)
    if staged:
        values |= {"x.H": x.H, "x.W": x.W}
        scratch = staged_bytes(conv, units.ceildiv(blocks), x.W, isa.lanes)
    return Launch(kernel, values, x.N * blocks * panel_blocks, scratch)


def _is_flat(conv: ConvSpec, x: Layout, y: Layout) -> bool:
    """Whether pixel i of x, row by row, is what pixel i of y is made of, all at one distance."""
    plain = conv.kernel == (1, 1) and conv.strides == (1, 1) and not any(conv.pads)
    return plain and all(
        side.known == 0 for layout in (x, y) for side in (layout.halo.left, layout.halo.right)
    )
