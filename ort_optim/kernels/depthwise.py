"""Depthwise convolution: every channel with its own filter, vectors over channels.

DepthwiseTemplate   the template; `depthwise` is its instance
DepthwiseKernel     the code of one step
DepthwisePacking    the weights' order: [Cb][1 + KH * KW][v], the bias first

A register tile is `th` rows by `tw` pixels of one plane. Going down the rows of x that it needs,
every pixel is loaded once and multiplied into all sums it belongs to. The last tile of a row
overlaps the one before it; rows left below the last full tile are done one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.memory import Address
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout, Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int
from ort_optim.kernels.windows import meetings

_KEYS = ("th", "tw")
_BLOCKED = frozenset({"blocked"})
_MOST_TAPS = 49
_FEW_TAPS = 12  # whose weights stay in registers
_WIDEST, _WIDEST_MANY = 8, 6
_OWN_VALUES = ("OH", "OW")


@dataclass(frozen=True)
class DepthwiseKernel:
    """y = epilogue(depthwise convolution of x), both blocked, x with a halo.

    Attributes:
        kernel, strides, dilations, pads: As in `ConvSpec`; of the pads top and left.
        th, tw: The register tile.
        OH, OW: Height and width of y, each None where not known.
        epilogue: What follows the convolution.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    th: int
    tw: int
    OH: int | None
    OW: int | None
    epilogue: Epilogue

    @property
    def name(self) -> str:
        """As `Kernel`."""
        activations = "".join(f"_{each.kind}" for each in self.epilogue.operations)
        parts = ["depthwise", "{}x{}".format(*self.kernel)]
        parts += ["s{}x{}".format(*self.strides)] * (self.strides != (1, 1))
        parts += ["d{}x{}".format(*self.dilations)] * (self.dilations != (1, 1))
        parts += ["p{}x{}".format(*self.pads), f"t{self.th}x{self.tw}"]
        parts += [f"{letter}{size}" for letter, size in (("h", self.OH), ("w", self.OW)) if size]
        return "_".join(parts) + activations

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "w", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values)
        return *tensors, *_OWN_VALUES, *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        x, y = tensor_place(code, "x"), tensor_place(code, "y")
        x = x.at(row=-self.pads[0], pixel=-self.pads[1])
        w = code.pointer("w")
        others = self.epilogue.operands(code)
        height = code.value("OH") if self.OH is None else code.integer(self.OH)
        width = code.value("OW") if self.OW is None else code.integer(self.OW)

        def written(th: int, tw: int) -> Callable[[Int, Int, Int], None]:
            """Code for `th` rows in tiles of `tw` pixels, to be called with image, plane, row."""

            def body(x: Place, w: Address, count: Int, *targets: Place) -> None:
                with code.loop(count.ceildiv(tw)) as index:
                    first = code.min(index * tw, count - tw)
                    moved = [each.at(pixel=first) for each in targets]
                    self._tile(code, x.at(pixel=first * self.strides[1]), w, moved, th, tw)

            function = code.function(f"rows_{th}x{tw}", [x, w, width, y, *others], body)

            def call(image: Int, plane: Int, row: Int) -> None:
                targets = [each.at(image, plane, row) for each in (y, *others)]
                source = x.at(image, plane, row * self.strides[0])
                weights = w.at(plane * (self._packed_vectors * code.lanes))
                function(source, weights, width, *targets)

            return call

        tall = written(self.th, self.tw)
        ends_low = self.th > 1 and (self.OH is None or self.OH % self.th > 0)
        may_be_narrow = self.tw > 1 and (self.OW is None or self.tw > self.OW)
        low = written(1, self.tw) if ends_low else None
        narrow = written(1, 1) if may_be_narrow else None
        with Rows(code).each() as (image, plane, group):
            first = group * self.th
            stop = code.min(first + self.th, height)
            is_narrow = width < self.tw
            if narrow:
                with code.when(is_narrow), code.loop(stop, first) as row:
                    narrow(image, plane, row)
            is_full = first + self.th <= height
            with code.when(~is_narrow & is_full):
                tall(image, plane, first)
            if low:
                with code.when(~is_narrow & ~is_full), code.loop(stop, first) as row:
                    low(image, plane, row)
        return code

    @property
    def _packed_vectors(self) -> int:
        """Vectors of packed weights in a plane."""
        return 1 + self.kernel[0] * self.kernel[1]

    def _tile(
        self, code: Code, x: Place, w: Address, targets: Sequence[Place], th: int, tw: int
    ) -> None:
        v, (KH, KW) = code.lanes, self.kernel
        weights = [[w.at((1 + i * KW + j) * v).load() for j in range(KW)] for i in range(KH)]
        sums = [[w.load()] * tw for _ in range(th)]
        for row, taps_down in meetings(th, KH, self.strides[0], self.dilations[0]):
            for pixel, taps_across in meetings(tw, KW, self.strides[1], self.dilations[1]):
                number = x.at(row=row, pixel=pixel).address.load()
                for (i, kh), (j, kw) in product(taps_down, taps_across):
                    sums[i][j] = code.fma(number, weights[kh][kw], sums[i][j])
        for i, j in product(range(th), range(tw)):
            y, *operands = [each.at(row=i, pixel=j) for each in targets]
            y.address.store(self.epilogue.apply(code, sums[i][j], operands))


@dataclass(frozen=True)
class DepthwisePacking:
    """w (C, 1, KH, KW) and bias (C) -> [Cb][1 + KH * KW][v], zero for channels beyond C."""

    channels: int
    taps: int
    bias: bool

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return f"depthwise_pack_c{self.channels}_{self.taps}" + "_bias" * self.bias

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("w", "b", "packed") if self.bias else ("w", "packed")

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`: none."""
        return ()

    def vectors(self, lanes: int) -> int:
        """How many it writes."""
        return -(-self.channels // lanes) * (1 + self.taps)

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v = code.lanes
        first = code.task * v
        packed = code.pointer("packed").at(code.task * ((1 + self.taps) * v))
        with code.loop(1 + self.taps) as vector:
            packed.at(vector * v).store(code.vec(0.0))
        with code.loop(code.min(code.integer(self.channels) - first, v)) as lane:
            if self.bias:
                packed.at(lane).copy_float(code.pointer("b").at(first + lane))
            source = code.pointer("w").at((first + lane) * self.taps)
            with code.loop(self.taps) as tap:
                packed.at((tap + 1) * v + lane).copy_float(source.at(tap))
        return code


@dataclass(frozen=True)
class DepthwiseTemplate:
    """One output channel for each input channel.

    Tile sizes: `th` rows by `tw` pixels of one plane in registers.
    """

    name: str = "depthwise"
    error_class: int = 0

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed:
            return "transposed"
        if not conv.is_depthwise:
            return f"group {conv.group} is not the {conv.Cin} input channels"
        if conv.multiplier != 1:
            return f"{conv.multiplier} output channels for each input channel"
        if conv.KH * conv.KW > _MOST_TAPS:
            return f"kernel {conv.KH}x{conv.KW} has more than {_MOST_TAPS} taps"
        return None

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """As `ConvTemplate`: with the least waste at the end of a row first."""
        few = conv.KH * conv.KW <= _FEW_TAPS
        most = min(_WIDEST if few else _WIDEST_MANY, conv.OW or _WIDEST)
        widths = sorted(range(max(1, most - 4), most + 1), key=lambda tw: _row_cost(conv.OW, tw))
        heights = (1,) if few and isa.registers < 32 else (2, 1)
        for tw, th in product(widths, heights if conv.OH != 1 else (1,)):
            tile = Tile((("th", th), ("tw", tw)))
            if self.check(conv, tile, isa) is None:
                yield tile

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if tuple(name for name, _ in tile.sizes) != _KEYS:
            return f"tile sizes are {', '.join(_KEYS)}"
        if min(tile["th"], tile["tw"]) < 1:
            return "a tile size is below 1"
        if tile["th"] * tile["tw"] + 2 > isa.registers:
            return f"{tile['th'] * tile['tw']} sums for {isa.registers} vector registers"
        return None

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        """As `ConvTemplate`."""
        rows = (tile["th"] - 1) * conv.strides[0] + conv.extent[0]
        width = None if conv.W is None else conv.W + conv.pads[1] + conv.pads[3]
        packing = DepthwisePacking(conv.Cin, conv.KH * conv.KW, True)
        row_bytes = (width or tile["tw"]) * isa.lanes * FLOAT_BYTES
        return Demand(
            registers=tile["th"] * tile["tw"] + 2,
            l1_bytes=tile["tw"] * rows * isa.lanes * FLOAT_BYTES,
            l2_bytes=rows * row_bytes,
            packed_bytes=packing.vectors(isa.lanes) * isa.lanes * FLOAT_BYTES,
            tasks=None
            if conv.OH is None
            else -(-conv.Cin // isa.lanes) * -(-conv.OH // tile["th"]),
        )

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        return _BLOCKED, _BLOCKED

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """As `ConvTemplate`: the padding, as far as it is read."""
        const = H.sizes.const
        ends = []
        for axis, size in enumerate((H, W)):
            before, after = conv.pads[axis], conv.pads[axis + 2]
            stride, extent = conv.strides[axis], conv.extent[axis]
            last = (size + (before + after - extent)).max(0) // stride * stride
            ends.append((last + (extent - before) - size).max(0))
        return Halo(const(conv.pads[0]), const(conv.pads[1]), ends[0], ends[1])

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        """As `ConvTemplate`."""
        kernel = DepthwisePacking(conv.Cin, conv.KH * conv.KW, bias)
        tasks = sizes.const(-(-conv.Cin // isa.lanes))
        launch = Launch(kernel, {}, tasks, sizes.const(0))
        return Packing(launch, kernel.vectors(isa.lanes) * isa.lanes * FLOAT_BYTES)

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        """As `ConvTemplate`."""
        kernel = DepthwiseKernel(
            kernel=conv.kernel,
            strides=conv.strides,
            dilations=conv.dilations,
            pads=conv.pads[:2],
            th=tile["th"],
            tw=tile["tw"],
            OH=conv.OH,
            OW=conv.OW,
            epilogue=epilogue,
        )
        work = y.W * (tile["th"] * isa.lanes * (2 + conv.KH * conv.KW // 4))
        rows, tasks = split_rows(y.N, y.planes, y.H.ceildiv(tile["th"]), work)
        values = {**x.values("x"), **y.values("y"), "OH": y.H, "OW": y.W, **rows}
        return Launch(kernel, values, tasks, y.N.sizes.const(0))

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        """As `ConvTemplate`."""
        top, left, bottom, right = conv.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        (N, C), (sh, sw), (dh, dw) = x.shape[:2], conv.strides, conv.dilations
        OH, OW = (
            max(0, (padded.shape[2 + axis] - conv.extent[axis]) // conv.strides[axis] + 1)
            for axis in (0, 1)
        )
        y = np.zeros((N, C, OH, OW), np.float32)
        if b is not None:
            y += b[:, None, None]
        for kh, kw in product(range(conv.KH), range(conv.KW)):
            rows = slice(kh * dh, kh * dh + (OH - 1) * sh + 1, sh)
            columns = slice(kw * dw, kw * dw + (OW - 1) * sw + 1, sw)
            if OH and OW:
                y += padded[:, :, rows, columns] * w[:, 0, kh, kw, None, None]
        return y


def _row_cost(OW: int | None, tw: int) -> float:  # noqa: N803
    """What a row costs in tiles of tw pixels, where each costs 1.5 pixels more."""
    return (-(-OW // tw) if OW else 64 / tw) * (tw + 1.5)


depthwise = DepthwiseTemplate()
