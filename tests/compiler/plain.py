"""The plainest convolution: a template that takes everything, compiles in no time, and is slow.

Tests of plans use it: what they test is where tensors lie, not how a convolution is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.builder import Code
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout, Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int


@dataclass(frozen=True)
class PlainKernel:
    """One plane of y for each task; x has a halo where it is blocked, else borders are skipped."""

    conv: ConvSpec
    epilogue: Epilogue
    x_kind: str
    y_kind: str

    @property
    def name(self) -> str:
        return f"plain_{self.conv.Cin}x{self.conv.Cout}"

    @property
    def pointers(self) -> tuple[str, ...]:
        return ("x", "w", "y", *self.epilogue.pointers)

    @property
    def values(self) -> tuple[str, ...]:
        own = ("H", "W", "OH", "OW", "planes")
        return (*tensor_values("x"), *tensor_values("y"), *own, *self.epilogue.values)

    def write(self, isa: Isa) -> Code:
        code, conv, v = Code(self.name, isa, self.pointers, self.values), self.conv, isa.lanes
        x = tensor_place(code, "x", None if self.x_kind == "blocked" else 1)
        y = tensor_place(code, "y", None if self.y_kind == "blocked" else 1)
        H, W, OH, OW, planes = (code.value(n) for n in ("H", "W", "OH", "OW", "planes"))
        image, plane = code.task // planes, code.task % planes
        taps = conv.KH * conv.KW
        weights = code.pointer("w").at(plane * ((1 + conv.Cin * taps) * v))
        top, left = conv.pads[0], conv.pads[1]
        (sh, sw), (dh, dw) = conv.strides, conv.dilations
        operands = self.epilogue.operands(code)
        with code.loop(OH) as row, code.loop(OW) as pixel:
            total = code.variable(weights.load())

            def add(place: Place, channel: Int, ky: Int, kx: Int, total=total) -> None:
                number = place.address.fill()
                factor = weights.at(((channel * taps) + ky * conv.KW + kx) * v + v).load()
                total.set(total.get() + number * factor)

            with code.loop(conv.Cin) as c, code.loop(conv.KH) as ky, code.loop(conv.KW) as kx:
                iy, ix = row * sh + ky * dh - top, pixel * sw + kx * dw - left
                if self.x_kind == "blocked":
                    add(x.at(image, c // v, iy, ix, c % v), c, ky, kx)
                else:
                    with code.when((iy >= 0) & (iy < H) & (ix >= 0) & (ix < W)):
                        add(x.at(image, c, iy, ix), c, ky, kx)
            at = [each.at(image, plane, row, pixel) for each in operands]
            result = self.epilogue.apply(code, total.get(), at)
            if self.y_kind == "blocked":
                y.at(image, plane, row, pixel).address.store(result)
            else:
                first = code.lanes_below(code.integer(1))
                for lane in range(v):
                    channel = plane * v + lane
                    with code.when(channel < conv.Cout):
                        place = y.at(image, channel, row, pixel)
                        place.address.store_first(result.lane(lane), first)
        return code


@dataclass(frozen=True)
class PlainPacking:
    """(Cout, Cin/group, KH, KW) -> [Cb][1 + Cin * KH * KW][v], the bias first, zeros elsewhere."""

    conv: ConvSpec
    bias: bool

    @property
    def name(self) -> str:
        return f"plain_pack_{self.conv.Cin}x{self.conv.Cout}"

    @property
    def pointers(self) -> tuple[str, ...]:
        return ("w", "b", "packed") if self.bias else ("w", "packed")

    @property
    def values(self) -> tuple[str, ...]:
        return ()

    def vectors(self, v: int) -> int:
        return -(-self.conv.Cout // v) * (1 + self.conv.Cin * self.conv.KH * self.conv.KW)

    def write(self, isa: Isa) -> Code:
        code, conv, v = Code(self.name, isa, self.pointers, self.values), self.conv, isa.lanes
        one = code.lanes_below(code.integer(1))
        taps = conv.KH * conv.KW
        block = (1 + conv.Cin * taps) * v
        with code.loop(self.vectors(v)) as i:
            code.pointer("packed").at(i * v).store(code.vec(0.0))
        with code.loop(conv.Cout) as c:
            target = code.pointer("packed").at(c // v * block + c % v)
            if self.bias:
                target.store_first(code.pointer("b").at(c).fill(), one)
            begin = c // conv.group_Cout * conv.group_Cin
            with code.loop(conv.group_Cin) as i, code.loop(taps) as tap:
                number = code.pointer("w").at((c * conv.group_Cin + i) * taps + tap).fill()
                target.at(((begin + i) * taps + tap) * v + v).store_first(number, one)
        return code


@dataclass(frozen=True)
class Plain:
    """The template; `nchw` says whether it reads and writes that."""

    nchw: bool = True
    name: str = "plain"
    error_class: int = 0

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        return "transposed" if conv.transposed else None

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        yield Tile()

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        return Demand(4, 0, 0, 0, None)

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        return None

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        kinds = frozenset({"blocked", "nchw"} if self.nchw else {"blocked"})
        return kinds, kinds

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        return Halo(*(H.sizes.const(each) for each in conv.pads))

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        kernel = PlainPacking(conv, bias)
        size = kernel.vectors(isa.lanes) * isa.lanes * FLOAT_BYTES
        return Packing(Launch(kernel, {}, sizes.const(1), sizes.const(0)), size)

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        planes = -(-conv.Cout // isa.lanes)
        sizes = x.N.sizes
        own = {"H": x.H, "W": x.W, "OH": y.H, "OW": y.W, "planes": sizes.const(planes)}
        values = {**x.values("x"), **y.values("y"), **own}
        kernel = PlainKernel(conv, epilogue, x.kind, y.kind)
        return Launch(kernel, values, x.N * planes, sizes.const(0))

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        raise NotImplementedError
