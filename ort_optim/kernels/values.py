"""The values that generated code computes with, as Python objects with operators.

    Int     a 64-bit integer
    Bool    a condition
    Vec     a vector of float32
    Mask    a condition for each lane of a vector

Each operator appends its instruction to the `Code` that the value belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ort_optim.kernels import llvm_types as llvm

if TYPE_CHECKING:
    from ort_optim.kernels.builder import Code


class Int:
    """A 64-bit integer."""

    def __init__(self, code: Code, value: llvm.ir.Value) -> None:
        self.code = code
        self.ir = value

    @property
    def constant(self) -> int | None:
        """Its number where that is known while the code is written."""
        return self.ir.constant if isinstance(self.ir, llvm.ir.Constant) else None

    def __add__(self, other: Int | int) -> Int:
        other = self.code.integer(other)
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return self.code.integer(a + b)
        if a == 0:
            return other
        return self if b == 0 else Int(self.code, self.code.ir.add(self.ir, other.ir, ("nsw",)))

    def __radd__(self, other: int) -> Int:
        return self + other

    def __sub__(self, other: Int | int) -> Int:
        other = self.code.integer(other)
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return self.code.integer(a - b)
        return self if b == 0 else Int(self.code, self.code.ir.sub(self.ir, other.ir, ("nsw",)))

    def __rsub__(self, other: int) -> Int:
        return self.code.integer(other) - self

    def __mul__(self, other: Int | int) -> Int:
        other = self.code.integer(other)
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return self.code.integer(a * b)
        if 0 in (a, b):
            return self.code.integer(0)
        if a == 1:
            return other
        return self if b == 1 else Int(self.code, self.code.ir.mul(self.ir, other.ir, ("nsw",)))

    def __rmul__(self, other: int) -> Int:
        return self * other

    def __floordiv__(self, other: Int | int) -> Int:
        """Quotient of numbers that are not negative."""
        other = self.code.integer(other)
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return self.code.integer(a // b)
        return self if b == 1 else Int(self.code, self.code.ir.udiv(self.ir, other.ir))

    def __mod__(self, other: Int | int) -> Int:
        """Remainder of numbers that are not negative."""
        other = self.code.integer(other)
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return self.code.integer(a % b)
        return Int(self.code, self.code.ir.urem(self.ir, other.ir))

    def ceildiv(self, other: Int | int) -> Int:
        """Quotient rounded up, of numbers that are not negative."""
        return (self + (other - 1)) // other

    def _compare(self, operator: str, other: Int | int) -> Bool:
        other = self.code.integer(other)
        return Bool(self.code, self.code.ir.icmp_signed(operator, self.ir, other.ir))

    def __lt__(self, other: Int | int) -> Bool:
        return self._compare("<", other)

    def __le__(self, other: Int | int) -> Bool:
        return self._compare("<=", other)

    def __gt__(self, other: Int | int) -> Bool:
        return self._compare(">", other)

    def __ge__(self, other: Int | int) -> Bool:
        return self._compare(">=", other)

    def equals(self, other: Int | int) -> Bool:
        """Whether both are the same number."""
        return self._compare("==", other)

    def to_vec(self) -> Vec:
        """The number, as float32, in all lanes."""
        number = self.code.ir.sitofp(self.ir, llvm.F32)
        return Vec(self.code, self.code.broadcast(number))


class Bool:
    """A condition."""

    def __init__(self, code: Code, value: llvm.ir.Value) -> None:
        self.code = code
        self.ir = value

    def __and__(self, other: Bool) -> Bool:
        return Bool(self.code, self.code.ir.and_(self.ir, other.ir))

    def __or__(self, other: Bool) -> Bool:
        return Bool(self.code, self.code.ir.or_(self.ir, other.ir))

    def __invert__(self) -> Bool:
        return Bool(self.code, self.code.ir.not_(self.ir))

    def choose(self, yes: Int, no: Int) -> Int:
        """One integer or the other."""
        return Int(self.code, self.code.ir.select(self.ir, yes.ir, no.ir))


class Mask:
    """A condition for each lane."""

    def __init__(self, code: Code, value: llvm.ir.Value) -> None:
        self.code = code
        self.ir = value

    def choose(self, yes: Vec, no: Vec) -> Vec:
        """Lane by lane one or the other."""
        return Vec(self.code, self.code.ir.select(self.ir, yes.ir, no.ir))

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.code, self.code.ir.and_(self.ir, other.ir))


class Vec:
    """A vector of float32, one number per lane."""

    def __init__(self, code: Code, value: llvm.ir.Value) -> None:
        self.code = code
        self.ir = value

    def _operand(self, other: Vec | float) -> Vec:
        return other if isinstance(other, Vec) else self.code.vec(other)

    def __add__(self, other: Vec | float) -> Vec:
        return Vec(self.code, self.code.ir.fadd(self.ir, self._operand(other).ir))

    def __radd__(self, other: float) -> Vec:
        return self + other

    def __sub__(self, other: Vec | float) -> Vec:
        return Vec(self.code, self.code.ir.fsub(self.ir, self._operand(other).ir))

    def __rsub__(self, other: float) -> Vec:
        return self._operand(other) - self

    def __mul__(self, other: Vec | float) -> Vec:
        return Vec(self.code, self.code.ir.fmul(self.ir, self._operand(other).ir))

    def __rmul__(self, other: float) -> Vec:
        return self * other

    def __truediv__(self, other: Vec | float) -> Vec:
        return Vec(self.code, self.code.ir.fdiv(self.ir, self._operand(other).ir))

    def __rtruediv__(self, other: float) -> Vec:
        return self._operand(other) / self

    def __neg__(self) -> Vec:
        return Vec(self.code, self.code.ir.fneg(self.ir))

    def _compare(self, operator: str, other: Vec | float) -> Mask:
        return Mask(
            self.code, self.code.ir.fcmp_ordered(operator, self.ir, self._operand(other).ir)
        )

    def __lt__(self, other: Vec | float) -> Mask:
        return self._compare("<", other)

    def __gt__(self, other: Vec | float) -> Mask:
        return self._compare(">", other)

    def is_nan(self) -> Mask:
        """Which lanes hold no number."""
        return Mask(self.code, self.code.ir.fcmp_unordered("uno", self.ir, self.ir))

    def maximum(self, other: Vec | float) -> Vec:
        """The larger, lane by lane; where `self` is NaN, NaN."""
        other = self._operand(other)
        keep = Mask(self.code, self.code.ir.fcmp_unordered(">=", self.ir, other.ir))
        return keep.choose(self, other)

    def minimum(self, other: Vec | float) -> Vec:
        """The smaller, lane by lane; where `self` is NaN, NaN."""
        other = self._operand(other)
        keep = Mask(self.code, self.code.ir.fcmp_unordered("<=", self.ir, other.ir))
        return keep.choose(self, other)

    def absolute(self) -> Vec:
        """Lane by lane without its sign."""
        name = f"llvm.fabs.v{self.code.lanes}f32"
        return Vec(self.code, self.code.intrinsic(name, self.ir))

    def rounded(self) -> Vec:
        """Lane by lane to the nearest whole number, ties to even."""
        name = f"llvm.nearbyint.v{self.code.lanes}f32"
        return Vec(self.code, self.code.intrinsic(name, self.ir))

    def floor(self) -> Vec:
        """Lane by lane down to a whole number."""
        name = f"llvm.floor.v{self.code.lanes}f32"
        return Vec(self.code, self.code.intrinsic(name, self.ir))

    def power_of_two(self) -> Vec:
        """2 to the power of lanes that hold whole numbers in [-126, 127]."""
        code = self.code
        bias, mantissa_bits = (integer_lanes([each] * code.lanes) for each in (127, 23))
        biased = code.ir.add(code.ir.fptosi(self.ir, bias.type), bias)
        bits = code.ir.shl(biased, mantissa_bits)
        return Vec(code, code.ir.bitcast(bits, self.ir.type))

    def scaled(self, power: Vec) -> Vec:
        """Times 2 to the power of lanes that hold whole numbers in [-252, 254], rounded once."""
        code = self.code
        if code.lanes == 16 and "avx512f" in code.isa.features:
            name, all_lanes, rounding = "llvm.x86.avx512.mask.scalef.ps.512", -1, 4
            options = llvm.ir.IntType(16)(all_lanes), llvm.I32(rounding)
            return Vec(code, code.intrinsic(name, self.ir, power.ir, self.ir, *options))
        half = (power * 0.5).floor()
        return self * half.power_of_two() * (power - half).power_of_two()

    def square_root(self) -> Vec:
        """Lane by lane; NaN where negative."""
        name = f"llvm.sqrt.v{self.code.lanes}f32"
        return Vec(self.code, self.code.intrinsic(name, self.ir))

    def first_whole(self) -> Int:
        """Lane 0, which holds a whole number."""
        first = self.code.ir.extract_element(self.ir, llvm.I32(0))
        return Int(self.code, self.code.ir.fptosi(first, llvm.I64))

    def lane(self, index: int) -> Vec:
        """One lane, in all lanes."""
        return self.code.shuffle(self, self, [index] * self.code.lanes)


def integer_lanes(numbers: Sequence[int]) -> llvm.ir.Constant:
    """A constant vector of 32-bit integers, one per lane."""
    kind = llvm.ir.VectorType(llvm.I32, len(numbers))
    return llvm.ir.Constant(kind, [llvm.I32(each) for each in numbers])
