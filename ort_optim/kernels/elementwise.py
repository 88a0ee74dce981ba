"""What stands between layers: functions of blocked tensors, and constants for epilogues.

Elementwise     y = epilogue(x), with any operands
PackChannels    a constant with one number per channel, as epilogues read it
"""

from __future__ import annotations

from dataclasses import dataclass

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.chunks import ROW_VALUES, Rows, split_rows
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.tensors import Layout, Place, tensor_place, tensor_values

_QUOTIENTS = frozenset({"div", "number_div"})  # of zeros in lanes beyond C


@dataclass(frozen=True)
class Elementwise:
    """y = epilogue(x), all blocked; y may be x or an operand itself.

    Attributes:
        epilogue: What is done.
        tail: Channels in the last plane if lanes beyond have to be cleared, else 0.
    """

    epilogue: Epilogue
    tail: int = 0

    @property
    def name(self) -> str:
        """As `Kernel`."""
        activations = "".join(f"_{each.kind}" for each in self.epilogue.operations)
        return f"elementwise{activations}" + f"_tail{self.tail}" * (self.tail > 0)

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "y", *self.epilogue.pointers

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        tensors = (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values)
        return *tensors, "width", *ROW_VALUES

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        tensors = [
            tensor_place(code, "x"),
            tensor_place(code, "y"),
            *self.epilogue.operands(code),
        ]
        lanes = code.mask([lane < self.tail for lane in range(code.lanes)])

        def line(places: list[Place], *, cut: bool) -> None:
            with code.loop(code.value("width")) as pixel:
                x, y, *operands = [each.at(pixel=pixel) for each in places]
                found = self.epilogue.apply(code, x.address.load(), operands)
                y.address.store(lanes.choose(found, code.vec(0.0)) if cut else found)

        with Rows(code).each() as (image, plane, row):
            places = [each.at(image, plane, row) for each in tensors]
            if self.tail:
                is_last = plane.equals(code.value("planes") - 1)
                with code.either(is_last) as (last, whole):
                    with last:
                        line(places, cut=True)
                    with whole:
                        line(places, cut=False)
            else:
                line(places, cut=False)
        return code


@dataclass(frozen=True)
class PackChannels:
    """x (C) -> packed [Cb][v]; lanes beyond C hold 1, which every operation bears."""

    channels: int

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return f"pack_channels_{self.channels}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "x", "packed"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`: none."""
        return ()

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        x, packed, v = code.pointer("x"), code.pointer("packed"), code.lanes
        with code.loop(-(-self.channels // v)) as plane:
            mask = code.lanes_below(code.integer(self.channels) - plane * v)
            numbers = x.at(plane * v).load_first(mask)
            packed.at(plane * v).store(mask.choose(numbers, code.vec(1.0)))
        return code


def launch_elementwise(epilogue: Epilogue, x: Layout, y: Layout) -> Launch:
    """y = epilogue(x), both blocked and of one shape."""
    divides = any(each.kind in _QUOTIENTS for each in epilogue.operations)
    kernel = Elementwise(epilogue, x.C % x.lanes if divides else 0)
    tensors = 2 + len(epilogue.pointers)
    rows, tasks = split_rows(x.N, x.planes, x.H, x.W * (tensors * x.lanes))
    values = {**x.values("x"), **y.values("y"), "width": x.W, **rows}
    return Launch(kernel, values, tasks, x.N.sizes.const(0))


def launch_pack_channels(isa: Isa, channels: int, sizes: Sizes) -> tuple[Launch, int]:
    """How a constant with one number per channel is packed, and into how many bytes."""
    launch = Launch(PackChannels(channels), {}, sizes.const(1), sizes.const(0))
    return launch, -(-channels // isa.lanes) * isa.lanes * FLOAT_BYTES
