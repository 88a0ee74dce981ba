"""The vector builder: LLVM IR that reads like the mathematics it stands for.

    code = Code("add", isa, pointers=("x", "y"), values=("count",))
    x, y = code.pointer("x"), code.pointer("y")
    with code.loop(code.value("count")) as i:
        y.at(i * code.lanes).store(x.at(i * code.lanes).load() + y.at(i * code.lanes).load())
    module = code.finish()

    Code       one kernel being written: arguments, loops, variables
    Int, Vec   numbers and vectors of float32, with operators
    Address    a place in memory, counted in floats

Constants fold while the code is written, so a size that is pinned costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ort_optim.kernels.isa import FLOAT_BYTES, Isa

if TYPE_CHECKING:
    from llvmlite import ir

    I32: ir.IntType
    I64: ir.IntType
    F32: ir.FloatType
    POINTER: ir.PointerType
VALUE_BYTES = 8


def _import_llvmlite() -> None:
    """Once code is written; kernels whose code is in the cache are told apart without."""
    global ir, I32, I64, F32, POINTER
    if "ir" not in globals():
        ir = import_module("llvmlite.ir")
        I32, I64 = ir.IntType(32), ir.IntType(64)
        F32, POINTER = ir.FloatType(), ir.PointerType()


class Code:
    """One kernel being written: `void name(ptr *pointers, i64 *values, i64 task, ptr scratch)`."""

    def __init__(self, name: str, isa: Isa, pointers: Sequence[str], values: Sequence[str]) -> None:
        _import_llvmlite()
        self.name = name
        self.isa = isa
        self.pointers = tuple(pointers)
        self.values = tuple(values)
        self.module = ir.Module(name)
        self.module.triple = isa.triple
        self._vector = ir.VectorType(F32, isa.lanes)
        self._intrinsics: dict[str, ir.Function] = {}
        signature = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, POINTER])
        function = ir.Function(self.module, signature, name)
        _forbid_library_calls(function)
        self._entry = function.append_basic_block("entry")
        self.ir = ir.IRBuilder(self._entry)
        arguments = function.args
        self._found_pointers = {
            each: Address(self, self._argument(arguments[0], i, POINTER))
            for i, each in enumerate(self.pointers)
        }
        self._found_values = {
            each: Int(self, self._argument(arguments[1], i, I64))
            for i, each in enumerate(self.values)
        }
        self.task = Int(self, arguments[2])
        self.scratch = Address(self, arguments[3])

    def _argument(self, array: ir.Value, index: int, kind: ir.Type) -> ir.Value:
        place = self.ir.gep(array, [I64(index * VALUE_BYTES)], source_etype=ir.IntType(8))
        return self.ir.load(place, typ=kind)

    @property
    def lanes(self) -> int:
        """float32 numbers in a vector."""
        return self.isa.lanes

    def pointer(self, name: str) -> Address:
        """A pointer argument."""
        return self._found_pointers[name]

    def value(self, name: str) -> Int:
        """An integer argument."""
        return self._found_values[name]

    def finish(self) -> ir.Module:
        """End the kernel; its module is complete."""
        self.ir.ret_void()
        return self.module

    # Numbers

    def integer(self, number: int | Int) -> Int:
        """An integer constant, or the integer itself."""
        return number if isinstance(number, Int) else Int(self, I64(number))

    def vec(self, number: float) -> Vec:
        """A vector whose lanes all hold a constant."""
        return Vec(self, ir.Constant(self._vector, [F32(number)] * self.lanes))

    def lane_numbers(self) -> Vec:
        """The vector 0, 1, 2, ..."""
        return Vec(self, ir.Constant(self._vector, [F32(i) for i in range(self.lanes)]))

    def min(self, a: Int, b: Int | int) -> Int:
        """The smaller integer."""
        b = self.integer(b)
        if (x := a.constant) is not None and (y := b.constant) is not None:
            return self.integer(min(x, y))
        return (a < b).choose(a, b)

    def max(self, a: Int, b: Int | int) -> Int:
        """The larger integer."""
        b = self.integer(b)
        if (x := a.constant) is not None and (y := b.constant) is not None:
            return self.integer(max(x, y))
        return (a > b).choose(a, b)

    # Control

    @contextmanager
    def loop(self, stop: Int | int, start: Int | int = 0, step: int = 1) -> Iterator[Int]:
        """Repeat for start, start + step, ... below stop; perhaps never."""
        first, last = self.integer(start), self.integer(stop)
        before = self.ir.block
        head = self.ir.append_basic_block("loop")
        body = self.ir.append_basic_block("body")
        done = self.ir.append_basic_block("done")
        self.ir.branch(head)
        self.ir.position_at_end(head)
        counter = self.ir.phi(I64)
        counter.add_incoming(first.ir, before)
        self.ir.cbranch(self.ir.icmp_signed("<", counter, last.ir), body, done)
        self.ir.position_at_end(body)
        yield Int(self, counter)
        counter.add_incoming(self.ir.add(counter, I64(step), flags=["nsw"]), self.ir.block)
        self.ir.branch(head)
        self.ir.position_at_end(done)

    @contextmanager
    def when(self, condition: Bool) -> Iterator[None]:
        """Do what follows where the condition holds."""
        with self.ir.if_then(condition.ir):
            yield

    @contextmanager
    def either(self, condition: Bool) -> Iterator[tuple[Branch, Branch]]:
        """Two branches: `with code.either(c) as (yes, no):` then `with yes:` and `with no:`."""
        with self.ir.if_else(condition.ir) as branches:
            yield branches

    def variable(self, value: Vec | Int) -> Variable:
        """A cell that holds a value across loops; LLVM keeps it in a register."""
        with self.ir.goto_block(self._entry_of_function()):
            first = self.ir.block
            if first.instructions:
                self.ir.position_before(first.instructions[0])
            cell = self.ir.alloca(value.ir.type)
        made = Variable(self, cell, type(value))
        made.set(value)
        return made

    def _entry_of_function(self) -> ir.Block:
        return self.ir.function.entry_basic_block

    def function(
        self, name: str, arguments: Sequence[Argument], body: Callable[..., None]
    ) -> Callable[..., None]:
        """A function of this module, not inlined: `body` is written once, with its parameters.

        `arguments` show the kinds of the parameters: addresses, integers, or things made of them.
        The result is called with actual ones. Integers that are constant here are constant in the
        body, whatever it is called with. Pointers are taken not to alias.
        """
        shown = [part for each in arguments for part in _parts(each)]
        passed = [each for each in shown if _is_passed(each)]
        kinds = [POINTER if isinstance(each, Address) else I64 for each in passed]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        _forbid_library_calls(function)
        for parameter in function.args:
            if parameter.type is POINTER:
                parameter.add_attribute("noalias")
        outer = self.ir
        self.ir = ir.IRBuilder(function.append_basic_block("entry"))
        found = iter(function.args)
        parameters = iter(
            [type(each)(self, next(found)) if _is_passed(each) else each for each in shown]
        )
        body(*(_rebuilt(each, parameters) for each in arguments))
        self.ir.ret_void()
        self.ir = outer

        def call(*actual: Argument | int) -> None:
            given = [
                part
                for each in actual
                for part in _parts(self.integer(each) if isinstance(each, int) else each)
            ]
            values = [a.ir for a, each in zip(given, shown, strict=True) if _is_passed(each)]
            self.ir.call(function, values)

        return call

    def intrinsic(self, name: str, *arguments: ir.Value) -> ir.Value:
        """A call of an LLVM intrinsic whose result has the type of its first argument."""
        if name not in self._intrinsics:
            kinds = [each.type for each in arguments]
            self._intrinsics[name] = ir.Function(
                self.module, ir.FunctionType(kinds[0], kinds), name
            )
        return self.ir.call(self._intrinsics[name], arguments)

    # Vectors

    def fma(self, a: Vec, b: Vec, c: Vec) -> Vec:
        """a * b + c, rounded once where the target can."""
        if not self.isa.fma:
            return a * b + c
        name = f"llvm.fma.v{self.lanes}f32"
        return Vec(self, self.intrinsic(name, a.ir, b.ir, c.ir))

    def shuffle(self, a: Vec, b: Vec, lanes: Sequence[int]) -> Vec:
        """The chosen lanes of a (numbers below `self.lanes`) and b."""
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [I32(i) for i in lanes])
        return Vec(self, self.ir.shuffle_vector(a.ir, b.ir, mask))

    def lanes_below(self, count: Int) -> Mask:
        """A mask of the first `count` lanes."""
        kind = ir.VectorType(I32, self.lanes)
        numbers = ir.Constant(kind, [I32(i) for i in range(self.lanes)])
        limit = self.ir.trunc(count.ir, I32)
        filled = self.ir.insert_element(ir.Constant(kind, ir.Undefined), limit, I32(0))
        zeros = ir.Constant(kind, [I32(0)] * self.lanes)
        limits = self.ir.shuffle_vector(filled, ir.Constant(kind, ir.Undefined), zeros)
        return Mask(self, self.ir.icmp_signed("<", numbers, limits))

    def mask(self, lanes: Sequence[bool]) -> Mask:
        """A mask that is known."""
        kind = ir.VectorType(ir.IntType(1), self.lanes)
        return Mask(self, ir.Constant(kind, [ir.IntType(1)(each) for each in lanes]))

    def transpose(self, rows: Sequence[Vec]) -> list[Vec]:
        """`lanes` vectors, turned: row i of the result holds lane i of every row."""
        lanes, rows = self.lanes, list(rows)
        width = 1
        while width < lanes:  # exchange blocks of `width` between rows `width` apart
            low = [i if not i & width else lanes + i - width for i in range(lanes)]
            high = [i + width if not i & width else lanes + i for i in range(lanes)]
            for i in range(lanes):
                if not i & width:
                    a, b = rows[i], rows[i + width]
                    rows[i], rows[i + width] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            width *= 2
        return rows


Branch: TypeAlias = AbstractContextManager[object]


class Compound(Protocol):
    """Something made of addresses and integers that can be handed to a function."""

    def parts(self) -> list[Address | Int]:
        """What it is made of."""

    def rebuilt(self, parts: Iterator[Address | Int]) -> Compound:
        """The same made of other parts, of which it takes as many as it has."""


Argument: TypeAlias = "Address | Int | Compound"


def _parts(argument: Argument) -> list[Address | Int]:
    return [argument] if isinstance(argument, (Address, Int)) else argument.parts()


def _rebuilt(argument: Argument, parts: Iterator[Address | Int]) -> Argument:
    return next(parts) if isinstance(argument, (Address, Int)) else argument.rebuilt(parts)


def _is_passed(part: Address | Int) -> bool:
    return isinstance(part, Address) or part.constant is None


def _forbid_library_calls(function: ir.Function) -> None:
    """Keep LLVM from making memset or memcpy of loops: a kernel calls nothing outside."""
    set.add(function.attributes, '"no-builtins"')  # no attribute llvmlite knows by name
    function.attributes.add("nounwind")


class Int:
    """A 64-bit integer."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code = code
        self.ir = value

    @property
    def constant(self) -> int | None:
        """Its number where that is known while the code is written."""
        return self.ir.constant if isinstance(self.ir, ir.Constant) else None

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
        number = self.code.ir.sitofp(self.ir, F32)
        return _filled(self.code, number)


class Bool:
    """A condition."""

    def __init__(self, code: Code, value: ir.Value) -> None:
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

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code = code
        self.ir = value

    def choose(self, yes: Vec, no: Vec) -> Vec:
        """Lane by lane one or the other."""
        return Vec(self.code, self.code.ir.select(self.ir, yes.ir, no.ir))

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.code, self.code.ir.and_(self.ir, other.ir))


class Vec:
    """A vector of float32, one number per lane."""

    def __init__(self, code: Code, value: ir.Value) -> None:
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
        code, whole = self.code, ir.VectorType(I32, self.code.lanes)
        exponent = code.ir.fptosi(self.ir, whole)
        biased = code.ir.add(exponent, ir.Constant(whole, [I32(127)] * code.lanes))
        bits = code.ir.shl(biased, ir.Constant(whole, [I32(23)] * code.lanes))
        return Vec(code, code.ir.bitcast(bits, self.ir.type))

    def scaled(self, power: Vec) -> Vec:
        """Times 2 to the power of lanes that hold whole numbers in [-252, 254], rounded once."""
        code = self.code
        if code.lanes == 16 and "avx512f" in code.isa.features:
            name, all_lanes, rounding = "llvm.x86.avx512.mask.scalef.ps.512", -1, 4
            lanes = ir.IntType(16)(all_lanes)
            return Vec(code, code.intrinsic(name, self.ir, power.ir, self.ir, lanes, I32(rounding)))
        half = (power * 0.5).floor()
        return self * half.power_of_two() * (power - half).power_of_two()

    def square_root(self) -> Vec:
        """Lane by lane; NaN where negative."""
        name = f"llvm.sqrt.v{self.code.lanes}f32"
        return Vec(self.code, self.code.intrinsic(name, self.ir))

    def first_whole(self) -> Int:
        """Lane 0, which holds a whole number."""
        first = self.code.ir.extract_element(self.ir, I32(0))
        return Int(self.code, self.code.ir.fptosi(first, I64))

    def lane(self, index: int) -> Vec:
        """One lane, in all lanes."""
        return self.code.shuffle(self, self, [index] * self.code.lanes)


class Address:
    """A place in memory, counted in floats."""

    def __init__(self, code: Code, pointer: ir.Value) -> None:
        self.code = code
        self.ir = pointer

    def at(self, floats: Int | int) -> Address:
        """The place so many floats on."""
        offset = self.code.integer(floats)
        if offset.constant == 0:
            return self
        moved = self.code.ir.gep(self.ir, [offset.ir], inbounds=True, source_etype=F32)
        return Address(self.code, moved)

    def load(self) -> Vec:
        """The vector that begins here."""
        vector = ir.VectorType(F32, self.code.lanes)
        return Vec(self.code, self.code.ir.load(self.ir, align=FLOAT_BYTES, typ=vector))

    def load_first(self, mask: Mask) -> Vec:
        """Lanes of the mask from memory, the others zero; nothing else is touched."""
        code, name = self.code, f"llvm.masked.load.v{self.code.lanes}f32.p0"
        vector = ir.VectorType(F32, code.lanes)
        if name not in code._intrinsics:
            kinds = [POINTER, I32, mask.ir.type, vector]
            code._intrinsics[name] = ir.Function(code.module, ir.FunctionType(vector, kinds), name)
        zeros = ir.Constant(vector, [F32(0.0)] * code.lanes)
        arguments = [self.ir, I32(FLOAT_BYTES), mask.ir, zeros]
        return Vec(code, code.ir.call(code._intrinsics[name], arguments))

    def fill(self) -> Vec:
        """The one number here, in all lanes."""
        return _filled(self.code, self.code.ir.load(self.ir, align=FLOAT_BYTES, typ=F32))

    def load_whole(self) -> Int:
        """The one number here, which is whole."""
        number = self.code.ir.load(self.ir, align=FLOAT_BYTES, typ=F32)
        return Int(self.code, self.code.ir.fptosi(number, I64))

    def store(self, vector: Vec) -> None:
        """Write a vector from here on."""
        self.code.ir.store(vector.ir, self.ir, align=FLOAT_BYTES)

    def store_first(self, vector: Vec, mask: Mask) -> None:
        """Write the lanes of the mask; nothing else is touched."""
        code, name = self.code, f"llvm.masked.store.v{self.code.lanes}f32.p0"
        if name not in code._intrinsics:
            kinds = [vector.ir.type, POINTER, I32, mask.ir.type]
            code._intrinsics[name] = ir.Function(
                code.module, ir.FunctionType(ir.VoidType(), kinds), name
            )
        arguments = [vector.ir, self.ir, I32(FLOAT_BYTES), mask.ir]
        code.ir.call(code._intrinsics[name], arguments)

    def copy_float(self, source: Address) -> None:
        """Write the one number at `source` here."""
        number = self.code.ir.load(source.ir, align=FLOAT_BYTES, typ=F32)
        self.code.ir.store(number, self.ir, align=FLOAT_BYTES)

    def prefetch(self, level: int = 2) -> None:
        """Ask for the cache line here: 3 keeps it in L1, 2 in L2, 1 in L3."""
        code, name = self.code, "llvm.prefetch.p0"
        if name not in code._intrinsics:
            kinds = [POINTER, I32, I32, I32]
            code._intrinsics[name] = ir.Function(
                code.module, ir.FunctionType(ir.VoidType(), kinds), name
            )
        code.ir.call(code._intrinsics[name], [self.ir, I32(0), I32(level), I32(1)])


class Variable:
    """A cell for a value that changes, such as an accumulator."""

    def __init__(self, code: Code, cell: ir.Value, kind: type[Vec] | type[Int]) -> None:
        self.code = code
        self.cell = cell
        self.kind = kind

    def get(self) -> Vec:
        """The vector it holds."""
        kind = self.cell.allocated_type
        return Vec(self.code, self.code.ir.load(self.cell, typ=kind))

    def get_int(self) -> Int:
        """The integer it holds."""
        return Int(self.code, self.code.ir.load(self.cell, typ=I64))

    def set(self, value: Vec | Int) -> None:
        """Hold another value."""
        self.code.ir.store(value.ir, self.cell)


def _filled(code: Code, number: ir.Value) -> Vec:
    vector = ir.VectorType(F32, code.lanes)
    first = code.ir.insert_element(ir.Constant(vector, ir.Undefined), number, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, code.lanes), [I32(0)] * code.lanes)
    return Vec(code, code.ir.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros))
