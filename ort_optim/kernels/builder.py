"""The vector builder: LLVM IR that reads like the mathematics it stands for.

    code = Code("add", isa, pointers=("x", "y"), values=("count",))
    x, y = code.pointer("x"), code.pointer("y")
    with code.loop(code.value("count")) as i:
        y.at(i * code.lanes).store(x.at(i * code.lanes).load() + y.at(i * code.lanes).load())
    module = code.finish()

    Code                 one kernel being written: arguments, loops, variables, functions
    Argument, Compound   what a function of a kernel is called with

The numbers and vectors it computes with stand in `values.py`, places in memory in `memory.py`.
Constants fold while the code is written, so a size that is pinned costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeAlias

from ort_optim.kernels import llvm_types as llvm
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.memory import Address, Variable
from ort_optim.kernels.values import Bool, Int, Mask, Vec, integer_lanes

VALUE_BYTES = 8


class Code:
    """One kernel being written: `void name(ptr *pointers, i64 *values, i64 task, ptr scratch)`."""

    def __init__(self, name: str, isa: Isa, pointers: Sequence[str], values: Sequence[str]) -> None:
        self.name = name
        self.isa = isa
        self.pointers = tuple(pointers)
        self.values = tuple(values)
        self.module = llvm.ir.Module(name)
        self.module.triple = isa.triple
        self._vector = llvm.ir.VectorType(llvm.F32, isa.lanes)
        self._intrinsics: dict[str, llvm.ir.Function] = {}
        kinds = [llvm.POINTER, llvm.POINTER, llvm.I64, llvm.POINTER]
        function = llvm.ir.Function(self.module, llvm.ir.FunctionType(llvm.VOID, kinds), name)
        _forbid_library_calls(function)
        self._entry = function.append_basic_block("entry")
        self.ir = llvm.ir.IRBuilder(self._entry)
        arguments = function.args
        self._found_pointers = {
            each: Address(self, self._argument(arguments[0], i, llvm.POINTER))
            for i, each in enumerate(self.pointers)
        }
        self._found_values = {
            each: Int(self, self._argument(arguments[1], i, llvm.I64))
            for i, each in enumerate(self.values)
        }
        self.task = Int(self, arguments[2])
        self.scratch = Address(self, arguments[3])

    def _argument(self, array: llvm.ir.Value, index: int, kind: llvm.ir.Type) -> llvm.ir.Value:
        place = self.ir.gep(array, [llvm.I64(index * VALUE_BYTES)], source_etype=llvm.ir.IntType(8))
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

    def finish(self) -> llvm.ir.Module:
        """End the kernel; its module is complete."""
        self.ir.ret_void()
        return self.module

    # Numbers

    def integer(self, number: int | Int) -> Int:
        """An integer constant, or the integer itself."""
        return number if isinstance(number, Int) else Int(self, llvm.I64(number))

    def vec(self, number: float) -> Vec:
        """A vector whose lanes all hold a constant."""
        return Vec(self, llvm.ir.Constant(self._vector, [llvm.F32(number)] * self.lanes))

    def lane_numbers(self) -> Vec:
        """The vector 0, 1, 2, ..."""
        return Vec(self, llvm.ir.Constant(self._vector, [llvm.F32(i) for i in range(self.lanes)]))

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
        counter = self.ir.phi(llvm.I64)
        counter.add_incoming(first.ir, before)
        self.ir.cbranch(self.ir.icmp_signed("<", counter, last.ir), body, done)
        self.ir.position_at_end(body)
        yield Int(self, counter)
        counter.add_incoming(self.ir.add(counter, llvm.I64(step), flags=["nsw"]), self.ir.block)
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
        made = Variable(self, cell)
        made.set(value)
        return made

    def _entry_of_function(self) -> llvm.ir.Block:
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
        kinds = [llvm.POINTER if isinstance(each, Address) else llvm.I64 for each in passed]
        function = llvm.ir.Function(self.module, llvm.ir.FunctionType(llvm.VOID, kinds), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        _forbid_library_calls(function)
        for parameter in function.args:
            if parameter.type == llvm.POINTER:
                parameter.add_attribute("noalias")
        outer = self.ir
        self.ir = llvm.ir.IRBuilder(function.append_basic_block("entry"))
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

    def intrinsic(
        self, name: str, *arguments: llvm.ir.Value, result: llvm.ir.Type | None = None
    ) -> llvm.ir.Value:
        """A call of an LLVM intrinsic; its result has the type of the first argument if none is
        given."""
        if name not in self._intrinsics:
            kinds = [each.type for each in arguments]
            signature = llvm.ir.FunctionType(kinds[0] if result is None else result, kinds)
            self._intrinsics[name] = llvm.ir.Function(self.module, signature, name)
        return self.ir.call(self._intrinsics[name], arguments)

    # Vectors

    def fma(self, a: Vec, b: Vec, c: Vec) -> Vec:
        """a * b + c, rounded once where the target can."""
        if not self.isa.fma:
            return a * b + c
        name = f"llvm.fma.v{self.lanes}f32"
        return Vec(self, self.intrinsic(name, a.ir, b.ir, c.ir))

    def broadcast(self, number: llvm.ir.Value) -> llvm.ir.Value:
        """A vector whose lanes all hold a number."""
        nothing = llvm.ir.Constant(llvm.ir.VectorType(number.type, self.lanes), llvm.ir.Undefined)
        first = self.ir.insert_element(nothing, number, llvm.I32(0))
        return self.ir.shuffle_vector(first, nothing, integer_lanes([0] * self.lanes))

    def shuffle(self, a: Vec, b: Vec, lanes: Sequence[int]) -> Vec:
        """The chosen lanes of a (numbers below `self.lanes`) and b."""
        return Vec(self, self.ir.shuffle_vector(a.ir, b.ir, integer_lanes(lanes)))

    def lanes_below(self, count: Int) -> Mask:
        """A mask of the first `count` lanes."""
        numbers = integer_lanes(range(self.lanes))
        limits = self.broadcast(self.ir.trunc(count.ir, llvm.I32))
        return Mask(self, self.ir.icmp_signed("<", numbers, limits))

    def mask(self, lanes: Sequence[bool]) -> Mask:
        """A mask that is known."""
        kind = llvm.ir.VectorType(llvm.ir.IntType(1), self.lanes)
        return Mask(self, llvm.ir.Constant(kind, [llvm.ir.IntType(1)(each) for each in lanes]))

    def transpose(self, rows: Sequence[Vec]) -> list[Vec]:
        """`lanes` vectors, turned: row i of the result holds lane i of every row."""
        return [*self.transpose_half(rows, 0), *self.transpose_half(rows, 1)]

    def transpose_half(self, rows: Sequence[Vec], half: int) -> list[Vec]:
        """The first (0) or last (1) half of the rows that `transpose` gives, at half its cost."""
        lanes, count = self.lanes, self.lanes // 2
        kept = range(half * count, (half + 1) * count)
        both = [*kept, *(lanes + lane for lane in kept)]
        found = [self.shuffle(rows[i], rows[i + count], both) for i in range(count)]
        width = 1
        while width < count:  # exchange blocks of `width` between rows `width` apart
            low = [i if not i & width else lanes + i - width for i in range(lanes)]
            high = [i + width if not i & width else lanes + i for i in range(lanes)]
            for i in range(count):
                if not i & width:
                    a, b = found[i], found[i + width]
                    found[i], found[i + width] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            width *= 2
        return found


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


def _forbid_library_calls(function: llvm.ir.Function) -> None:
    """Keep LLVM from making memset or memcpy of loops: a kernel calls nothing outside."""
    set.add(function.attributes, '"no-builtins"')  # no attribute llvmlite knows by name
    function.attributes.add("nounwind")
