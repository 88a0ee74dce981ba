"""`PadCopy`: a blocked tensor with more (or fewer) rows and columns around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.tensors import Layout, Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int

PadMode = Literal["constant", "edge", "reflect"]


@dataclass(frozen=True)
class PadCopy:
    """y = Pad(x) as ONNX defines it, over height and width; negative padding cuts.

    Attributes:
        mode: What stands in the padding.
        number: The number of a constant padding.
        tail: Channels in the last plane where that is not full, else 0.
    """

    mode: PadMode
    number: float = 0.0
    tail: int = 0

    @property
    def name(self) -> str:
        """As `Kernel`."""
        if self.mode != "constant" or not self.number:
            return f"pad_{self.mode}"
        number = f"{self.number:g}".replace("-", "m").replace(".", "p").replace("+", "")
        return f"pad_{number}_tail{self.tail}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        sizes = ("x.H", "x.W", "y.W", "top", "left")
        return *tensor_values("x"), *tensor_values("y"), *sizes, *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        x, y = tensor_place(code, "x"), tensor_place(code, "y")
        height, width, wide, top, left = (
            code.value(name) for name in ("x.H", "x.W", "y.W", "top", "left")
        )
        begin = code.min(code.max(left, 0), wide)
        end = code.max(code.min(left + width, wide), begin)
        lanes = code.lanes_below(code.integer(self.tail))
        with Rows(code).each() as (image, plane, row):
            source_row = row - top
            target = y.at(image, plane, row)
            if self.mode == "constant":
                number = code.variable(code.vec(self.number))
                if self.number and self.tail:
                    with code.when(plane.equals(code.value("planes") - 1)):
                        number.set(lanes.choose(code.vec(self.number), code.vec(0.0)))
                inside = (source_row >= 0) & (source_row < height)
                source = x.at(image, plane, source_row)
                first, stop = inside.choose(begin, wide), inside.choose(end, wide)
            else:
                source = x.at(image, plane, self._nearest(code, source_row, height))
                first, stop = begin, end
            with code.loop(stop, first) as pixel:
                _move(source.at(pixel=pixel - left), target.at(pixel=pixel))
            for low, high in ((code.integer(0), first), (stop, wide)):
                with code.loop(high, low) as pixel:
                    to = target.at(pixel=pixel)
                    if self.mode == "constant":
                        to.address.store(number.get())
                    else:
                        _move(source.at(pixel=self._nearest(code, pixel - left, width)), to)
        return code

    def _nearest(self, code: Code, index: Int, size: Int) -> Int:
        """Which row or column of x stands at a place that may be outside."""
        last = size - 1
        if self.mode == "reflect":
            index = code.max(index, 0 - index)
            index = code.min(index, last + last - index)
        # Also where padding is too wide to be reflected once: nothing else is read.
        return code.max(code.min(index, last), 0)


def launch_pad(
    x: Layout,
    y: Layout,
    top: Size,
    left: Size,
    mode: PadMode = "constant",
    number: float = 0.0,
) -> Launch:
    """x -> y, both blocked, pixel (0, 0) of x at pixel (top, left) of y."""
    sizes = x.N.sizes
    rows, tasks = split_rows(y.N, y.planes, y.H, y.W * (2 * y.lanes))
    if mode != "constant":
        tasks = tasks * (x.H * x.W).min(1)  # there is nothing to repeat in an empty image
    own = {"x.H": x.H, "x.W": x.W, "y.W": y.W, "top": top, "left": left}
    values = {**x.values("x"), **y.values("y"), **own, **rows}
    tail = x.C % x.lanes if mode == "constant" and number else 0
    return Launch(PadCopy(mode, number, tail), values, tasks, sizes.const(0))


def _move(x: Place, y: Place) -> None:
    y.address.store(x.address.load())
