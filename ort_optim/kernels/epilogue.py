"""What happens to a number between the sum that made it and its place in memory.

Operation   one step: an activation, or an addition or product with another tensor
Epilogue    operations in order, and the arguments they add to a kernel
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ort_optim.kernels import functions
from ort_optim.kernels.builder import Code
from ort_optim.kernels.tensors import Place, tensor_place, tensor_values
from ort_optim.kernels.values import Vec

Operand = Literal["", "tensor", "channel", "constant"]
"""What else an operation reads: nothing; a tensor as large as y; a tensor [N][Cb][1][1][v] with one
number per image and channel; or a packed constant [Cb][v] with one number per channel."""


@dataclass(frozen=True)
class Operation:
    """One operation on a vector of channels of one pixel.

    Attributes:
        kind: A key of `functions.UNARY` (relu, sigmoid, ...) or of `functions.BINARY` (add, ...).
        numbers: Its constants, such as the bounds of a clip.
        operand: What else it reads.
        swapped: The operand comes first, as in b - y.
    """

    kind: str
    numbers: tuple[float, ...] = ()
    operand: Operand = ""
    swapped: bool = False


@dataclass(frozen=True)
class Epilogue:
    """Operations in order. The operand of operation i is the tensor argument `e{i}`."""

    operations: tuple[Operation, ...] = ()

    @property
    def pointers(self) -> tuple[str, ...]:
        """Names of the pointer arguments that a kernel with this epilogue has."""
        return tuple(f"e{i}" for i, each in enumerate(self.operations) if each.operand)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that go with them."""
        return tuple(
            value
            for i, each in enumerate(self.operations)
            if each.operand in ("tensor", "channel")
            for value in tensor_values(f"e{i}")
        )

    def operands(self, code: Code) -> list[Place]:
        """The places of its operands for pixel (0, 0) of plane 0 of image 0."""
        found = []
        for i, each in enumerate(self.operations):
            if each.operand == "constant":
                zero = code.integer(0)
                found.append(Place(code.pointer(f"e{i}"), zero, code.integer(code.lanes), zero, 0))
            elif each.operand == "channel":
                place = tensor_place(code, f"e{i}", pixel=0)
                found.append(Place(place.address, place.batch, place.plane, code.integer(0), 0))
            elif each.operand:
                found.append(tensor_place(code, f"e{i}"))
        return found

    def apply(self, code: Code, vector: Vec, operands: Sequence[Place]) -> Vec:
        """The vector after all operations; `operands` stand at its plane, row and pixel."""
        waiting = iter(operands)
        for each in self.operations:
            if each.operand:
                other = next(waiting).address.load()
                a, b = (other, vector) if each.swapped else (vector, other)
                vector = functions.BINARY[each.kind](code, a, b)
            else:
                vector = functions.UNARY[each.kind](code, vector, *each.numbers)
        return vector
