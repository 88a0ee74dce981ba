"""Where generated code keeps values.

Address     a place in memory, counted in floats
Variable    a cell for a value that changes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ort_optim.kernels import llvm_types as llvm
from ort_optim.kernels.isa import FLOAT_BYTES
from ort_optim.kernels.values import Int, Mask, Vec

if TYPE_CHECKING:
    from ort_optim.kernels.builder import Code


class Address:
    """A place in memory, counted in floats."""

    def __init__(self, code: Code, pointer: llvm.ir.Value) -> None:
        self.code = code
        self.ir = pointer

    def at(self, floats: Int | int) -> Address:
        """The place so many floats on."""
        offset = self.code.integer(floats)
        if offset.constant == 0:
            return self
        moved = self.code.ir.gep(self.ir, [offset.ir], inbounds=True, source_etype=llvm.F32)
        return Address(self.code, moved)

    def load(self) -> Vec:
        """The vector that begins here."""
        vector = llvm.ir.VectorType(llvm.F32, self.code.lanes)
        return Vec(self.code, self.code.ir.load(self.ir, align=FLOAT_BYTES, typ=vector))

    def load_first(self, mask: Mask) -> Vec:
        """Lanes of the mask from memory, the others zero; nothing else is touched."""
        name, zeros = f"llvm.masked.load.v{self.code.lanes}f32.p0", self.code.vec(0.0).ir
        arguments = self.ir, llvm.I32(FLOAT_BYTES), mask.ir, zeros
        return Vec(self.code, self.code.intrinsic(name, *arguments, result=zeros.type))

    def fill(self) -> Vec:
        """The one number here, in all lanes."""
        number = self.code.ir.load(self.ir, align=FLOAT_BYTES, typ=llvm.F32)
        return Vec(self.code, self.code.broadcast(number))

    def load_whole(self) -> Int:
        """The one number here, which is whole."""
        number = self.code.ir.load(self.ir, align=FLOAT_BYTES, typ=llvm.F32)
        return Int(self.code, self.code.ir.fptosi(number, llvm.I64))

    def store(self, vector: Vec) -> None:
        """Write a vector from here on."""
        self.code.ir.store(vector.ir, self.ir, align=FLOAT_BYTES)

    def store_first(self, vector: Vec, mask: Mask) -> None:
        """Write the lanes of the mask; nothing else is touched."""
        name = f"llvm.masked.store.v{self.code.lanes}f32.p0"
        arguments = vector.ir, self.ir, llvm.I32(FLOAT_BYTES), mask.ir
        self.code.intrinsic(name, *arguments, result=llvm.VOID)

    def copy_float(self, source: Address) -> None:
        """Write the one number at `source` here."""
        number = self.code.ir.load(source.ir, align=FLOAT_BYTES, typ=llvm.F32)
        self.code.ir.store(number, self.ir, align=FLOAT_BYTES)

    def prefetch(self, level: int = 2) -> None:
        """Ask for the cache line here: 3 keeps it in L1, 2 in L2, 1 in L3."""
        for_reading, of_data = llvm.I32(0), llvm.I32(1)
        arguments = self.ir, for_reading, llvm.I32(level), of_data
        self.code.intrinsic("llvm.prefetch.p0", *arguments, result=llvm.VOID)


class Variable:
    """A cell for a value that changes, such as an accumulator."""

    def __init__(self, code: Code, cell: llvm.ir.Value) -> None:
        self.code = code
        self.cell = cell

    def get(self) -> Vec:
        """The vector it holds."""
        kind = self.cell.allocated_type
        return Vec(self.code, self.code.ir.load(self.cell, typ=kind))

    def get_int(self) -> Int:
        """The integer it holds."""
        return Int(self.code, self.code.ir.load(self.cell, typ=llvm.I64))

    def set(self, value: Vec | Int) -> None:
        """Hold another value."""
        self.code.ir.store(value.ir, self.cell)
