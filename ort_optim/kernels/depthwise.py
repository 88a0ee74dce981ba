"""Depthwise convolution: every channel with its own filter, vectors over channels.

DepthwiseTemplate   the template; `depthwise` is its instance
DepthwisePacking    the weights' order: [Cb][1 + KH * KW][v], the bias first
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import split_rows
from ort_optim.kernels.depthwise_kernel import DepthwiseKernel
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout

_KEYS = ("th", "tw")
_ANY_LAYOUT = frozenset({"blocked", "nchw"})
_MOST_TAPS = 49
_FEW_TAPS = 12  # whose weights stay in registers
_WIDEST, _WIDEST_MANY = 8, 6
_STAGED_TASK_FLOATS = 1 << 15  # of scratch: 128 KiB, which stay in L2


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
        return _ANY_LAYOUT, _ANY_LAYOUT

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
        reads_nchw, writes_nchw = x.kind == "nchw", y.kind == "nchw"
        kernel = DepthwiseKernel(
            kernel=conv.kernel,
            strides=conv.strides,
            dilations=conv.dilations,
            pads=conv.pads[:2],
            th=tile["th"],
            tw=tile["tw"],
            OH=conv.OH,
            OW=conv.OW,
            x_kind=x.kind,
            y_kind=y.kind,
            tail=conv.Cin % isa.lanes if reads_nchw or writes_nchw else 0,
            epilogue=epilogue,
        )
        v, th, planes = isa.lanes, tile["th"], -(-conv.Cin // isa.lanes)
        values = {**x.values("x"), **y.values("y"), "OH": y.H, "OW": y.W}
        groups, scratch = y.H.ceildiv(th), y.N.sizes.const(0)
        if not reads_nchw and not writes_nchw:
            work = y.W * (th * v * (2 + conv.KH * conv.KW // 4))
            rows, tasks = split_rows(y.N, planes, groups, work)
            return Launch(kernel, values | rows, tasks, scratch)
        wide = x.W + conv.pads[1] + self.halo(conv, tile, x.H, x.W).right
        read, made = wide * (v * reads_nchw), y.W * (v * writes_nchw)  # floats of a row
        work = read * (th * conv.strides[0]) + made * th
        rows, tasks = split_rows(y.N, planes, groups, work, _STAGED_TASK_FLOATS)
        most = rows["rows_per_task"] * th
        scratch = read * ((most - 1) * conv.strides[0] + conv.extent[0]) + made * most
        if reads_nchw:
            values |= {"H": x.H, "W": x.W, "wide": wide}
        return Launch(kernel, values | rows, tasks, scratch * FLOAT_BYTES)

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
