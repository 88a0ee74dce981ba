"""`Resample`: Resize of height and width, nearest and linear, as ONNX Runtime computes it.

Where an output row or column lies in the input is computed in float32 with ONNX Runtime's own
sequence of operations, so that the same neighbours are taken. The columns are the same for all
rows: a task writes them to its scratch once.

    scratch [3][OW]: left neighbour, right neighbour, weight of the right one (nearest: the first)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.memory import Address
from ort_optim.kernels.tensors import Layout, tensor_place, tensor_values
from ort_optim.kernels.values import Int, Vec

ResampleMode = Literal["nearest", "linear"]
_SIZE_VALUES = ("x.H", "x.W", "OH", "OW")


@dataclass(frozen=True)
class Resample:
    """y = epilogue(Resize(x)).

    Attributes:
        mode: How numbers between pixels are found.
        coordinates: ONNX's `coordinate_transformation_mode`: half_pixel, pytorch_half_pixel,
            align_corners or asymmetric.
        rounding: ONNX's `nearest_mode`: round_prefer_floor, round_prefer_ceil, floor or ceil.
        scales: Vertical and horizontal; None where they are output size / input size.
        epilogue: What follows.
    """

    mode: ResampleMode
    coordinates: str
    rounding: str
    scales: tuple[float, float] | None
    epilogue: Epilogue

    @property
    def name(self) -> str:
        """As `Kernel`."""
        activations = "".join(f"_{each.kind}" for each in self.epilogue.operations)
        parts = ["resample", self.mode, self.coordinates]
        parts += [self.rounding] * (self.mode == "nearest")
        if self.scales is not None:
            parts += [f"{scale:g}".replace(".", "p").replace("-", "m") for scale in self.scales]
        return "_".join(parts).replace("+", "") + activations

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values)
        return *tensors, *_SIZE_VALUES, *ROW_VALUES

    @property
    def tables(self) -> int:
        """Numbers in scratch for each output column."""
        return 1 if self.mode == "nearest" else 3

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v = code.lanes
        x = tensor_place(code, "x")
        others = [tensor_place(code, "y"), *self.epilogue.operands(code)]
        H, W, OH, OW = (code.value(name) for name in _SIZE_VALUES)
        vertical, horizontal = self.scales or (None, None)
        stride = OW.ceildiv(v) * v
        columns = [code.scratch.at(stride * i) for i in range(self.tables)]
        with code.loop(OW.ceildiv(v)) as index:
            where = (index * v).to_vec() + code.lane_numbers()
            found = self._neighbours(code, where, W, OW, horizontal)
            for table, numbers in zip(columns, found, strict=True):
                table.at(index * v).store(numbers)

        with Rows(code).each() as (image, plane, row):
            found = self._neighbours(code, row.to_vec(), H, OH, vertical)
            source = x.at(image, plane)
            targets = [each.at(image, plane, row) for each in others]
            rows = [source.at(row=each.first_whole()).address for each in found[:2]]
            down = found[2] if self.mode == "linear" else None
            with code.loop(OW) as pixel:
                number = self._number(code, rows, down, [each.at(pixel) for each in columns])
                y, *operands = [each.at(pixel=pixel) for each in targets]
                y.address.store(self.epilogue.apply(code, number, operands))
        return code

    def _number(
        self, code: Code, rows: list[Address], down: Vec | None, column: list[Address]
    ) -> Vec:
        if down is None:
            return rows[0].at(column[0].load_whole() * code.lanes).load()
        left, right = (each.load_whole() * code.lanes for each in column[:2])
        across = column[2].fill()
        above, below = (
            code.fma(row.at(right).load(), across, row.at(left).load() * (1.0 - across))
            for row in rows
        )
        return code.fma(below, down, above * (1.0 - down))

    def _neighbours(
        self, code: Code, index: Vec, size: Int, outputs: Int, scale: float | None
    ) -> list[Vec]:
        """Along one axis the neighbours of output indices, and the weight of the second."""
        last = (size - 1).to_vec()
        place = self._place(index, size, outputs, scale)
        if self.mode == "nearest":
            return [self._rounded(place).minimum(last).maximum(0.0)]
        place = place.minimum(last).maximum(0.0)
        first = place.floor()
        second = (first + 1.0).minimum(last)
        # At the end ONNX Runtime takes half of the same pixel twice, which bears infinity.
        return [first, second, (first < second).choose(place - first, code.vec(0.5))]

    def _place(self, index: Vec, size: Int, outputs: Int, scale: float | None) -> Vec:
        """Where an output pixel lies in the input."""
        inputs, count = size.to_vec(), outputs.to_vec()
        if self.coordinates == "align_corners":
            found = index * (inputs - 1.0) / (count - 1.0)
            return (count > 1.0).choose(found, index * 0.0)
        ratio = count / inputs if scale is None else index.code.vec(scale)
        if self.coordinates == "asymmetric":
            return index / ratio
        found = (index + 0.5) / ratio - 0.5
        if self.coordinates == "pytorch_half_pixel":
            return (count > 1.0).choose(found, index * 0.0)
        return found

    def _rounded(self, place: Vec) -> Vec:
        below = place.floor()
        rest = place - below  # exact
        if self.rounding == "floor":
            return below
        if self.rounding == "ceil":
            up = rest > 0.0
        elif self.rounding == "round_prefer_floor":
            up = rest > 0.5
        else:
            return (rest < 0.5).choose(below, below + 1.0)
        return up.choose(below + 1.0, below)


def launch_resample(
    mode: ResampleMode,
    coordinates: str,
    rounding: str,
    scales: tuple[float, float] | None,
    epilogue: Epilogue,
    x: Layout,
    y: Layout,
) -> Launch:
    """y = epilogue(Resize(x)), both blocked; the arguments are those of `Resample`."""
    if mode == "linear":
        rounding = ""
    kernel = Resample(mode, coordinates, rounding, scales, epilogue)
    rows, tasks = split_rows(y.N, y.planes, y.H, y.W * (3 * y.lanes))
    sizes = {"x.H": x.H, "x.W": x.W, "OH": y.H, "OW": y.W}
    values = {**x.values("x"), **y.values("y"), **sizes, **rows}
    scratch = y.W.ceildiv(y.lanes) * (y.lanes * kernel.tables * FLOAT_BYTES)
    empty = (x.H * x.W).min(1)  # there is nothing to take numbers from in an empty image
    return Launch(kernel, values, tasks * empty, scratch)
