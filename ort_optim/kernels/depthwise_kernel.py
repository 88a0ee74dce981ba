"""The code of depthwise convolution.

A register tile is `th` rows by `tw` pixels of one plane. Going down the rows of x that it needs,
every pixel is loaded once and multiplied into all sums it belongs to. The last tile of a row
overlaps the one before it; rows left below the last full tile are done one by one.

Where x comes as NCHW, a task turns what it reads into scratch, between zeros; where y goes out as
NCHW, it is made in scratch and turned from there. So neither passes through memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ort_optim.kernels.borders import turn_in, turn_out
from ort_optim.kernels.builder import Argument, Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.memory import Address
from ort_optim.kernels.tensors import Place, tensor_place, tensor_values
from ort_optim.kernels.values import Bool, Int
from ort_optim.kernels.windows import meetings

OWN_VALUES = ("OH", "OW")
STAGED_VALUES = ("H", "W", "wide")


@dataclass(frozen=True)
class DepthwiseKernel:
    """y = epilogue(depthwise convolution of x), each blocked, x with a halo, or NCHW.

    Attributes:
        kernel, strides, dilations, pads: As in `ConvSpec`; of the pads top and left.
        th, tw: The register tile.
        OH, OW: Height and width of y, each None where not known.
        x_kind, y_kind: "blocked" or "nchw".
        tail: Channels in the last plane where one of them is NCHW and it is not full, else 0.
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
    x_kind: str
    y_kind: str
    tail: int
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
        parts += ["from_nchw"] * (self.x_kind == "nchw") + ["to_nchw"] * (self.y_kind == "nchw")
        parts += [f"c{self.tail}"] * (self.tail > 0)
        return "_".join(parts) + activations

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "w", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values)
        staged = STAGED_VALUES if self.x_kind == "nchw" else ()
        return *tensors, *OWN_VALUES, *staged, *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v, w = code.lanes, code.pointer("w")
        x = tensor_place(code, "x", 1 if self.x_kind == "nchw" else None)
        y = tensor_place(code, "y", 1 if self.y_kind == "nchw" else None)
        others = self.epilogue.operands(code)
        height = code.value("OH") if self.OH is None else code.integer(self.OH)
        width = code.value("OW") if self.OW is None else code.integer(self.OW)

        # Places in scratch: y's rows first, then x's, each row as long as x is read.
        made = Place(code.scratch, code.integer(0), code.integer(0), width * v, v)
        wide = code.value("wide") if self.x_kind == "nchw" else code.integer(0)
        held = Place(code.scratch, code.integer(0), code.integer(0), wide * v, v)

        def written(th: int, tw: int) -> Callable[[Place, Address, Sequence[Place], Int], None]:
            """Code for `th` rows in tiles of `tw` pixels, to be called with the places of x, of the
            weights and of the targets, and the row."""

            def body(x: Place, w: Address, count: Int, *targets: Place) -> None:
                with code.loop(count.ceildiv(tw)) as index:
                    first = code.min(index * tw, count - tw)
                    moved = [each.at(pixel=first) for each in targets]
                    self._tile(code, x.at(pixel=first * self.strides[1]), w, moved, th, tw)

            source = held if self.x_kind == "nchw" else x
            target = made if self.y_kind == "nchw" else y
            shown: list[Argument] = [source, w, width, target, *others]
            function = code.function(f"rows_{th}x{tw}", shown, body)

            def call(x: Place, w: Address, targets: Sequence[Place], row: Int) -> None:
                rows = [each.at(row=row) for each in targets]
                function(x.at(row=row * self.strides[0]), w, width, *rows)

            return call

        tall = written(self.th, self.tw)
        ends_low = self.th > 1 and (self.OH is None or self.OH % self.th > 0)
        may_be_narrow = self.tw > 1 and (self.OW is None or self.tw > self.OW)
        low = written(1, self.tw) if ends_low else None
        narrow = written(1, 1) if may_be_narrow else None
        with Rows(code).each_plane() as (image, plane, first_group, stop_group):
            rows = first_group * self.th, code.min(stop_group * self.th, height)
            is_last = plane.equals(code.value("planes") - 1)
            weights = w.at(plane * (self._packed_vectors * v))
            if self.y_kind == "nchw":
                target = made.at(row=rows[0] * -1)
                held = replace(held, address=code.scratch.at((rows[1] - rows[0]) * made.row))
            else:
                target = y.at(image, plane)
            if self.x_kind == "nchw":
                source = self._stage(code, x.at(image, plane * v), held, rows, is_last)
            else:
                source = x.at(image, plane).at(row=-self.pads[0], pixel=-self.pads[1])
            targets = [target, *(each.at(image, plane) for each in others)]
            with code.loop(stop_group, first_group) as group:
                first = group * self.th
                stop = code.min(first + self.th, height)
                is_narrow = width < self.tw
                if narrow:
                    with code.when(is_narrow), code.loop(stop, first) as row:
                        narrow(source, weights, targets, row)
                is_full = first + self.th <= height
                with code.when(~is_narrow & is_full):
                    tall(source, weights, targets, first)
                if low:
                    with code.when(~is_narrow & ~is_full), code.loop(stop, first) as row:
                        low(source, weights, targets, row)
            if self.y_kind == "nchw":
                count = (rows[1] - rows[0]) * width  # one run of pixels: rows follow each other
                turn_out(code, made, y.at(image, plane * v, rows[0]), count, self.tail, is_last)
        return code

    def _stage(
        self, code: Code, x: Place, held: Place, rows: tuple[Int, Int], is_last: Bool
    ) -> Place:
        """Turn what output rows [first, stop) read of a plane of the NCHW x, zeros around it.

        The result is what output pixel (0, 0) reads at its first tap, were all rows there.
        """
        height, width, wide = (code.value(name) for name in STAGED_VALUES)
        begin = rows[0] * self.strides[0] - self.pads[0]
        extent = (self.kernel[0] - 1) * self.dilations[0] + 1
        left = self.pads[1]

        def clear(to: Place, start: Int | int, stop: Int | int) -> None:
            with code.loop(stop, start) as pixel:
                to.at(pixel=pixel).address.store(code.vec(0.0))

        with code.loop((rows[1] - rows[0] - 1) * self.strides[0] + extent) as i:
            to, row = held.at(row=i), begin + i
            with code.either((row >= 0) & (row < height)) as (inside, outside):
                with inside:
                    clear(to, 0, left)
                    count = code.min(width, wide - left)
                    turn_in(code, x.at(row=row), to.at(pixel=left), count, self.tail, is_last)
                    clear(to, left + width, wide)
                with outside:
                    clear(to, 0, wide)
        return held.at(row=rows[0] * -self.strides[0])

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
