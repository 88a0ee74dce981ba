"""Numbers that are known only when a region runs, such as a height, and arithmetic on them.

    sizes = Sizes()
    H = sizes.dim(0, 2)                 # axis 2 of the region's first input
    rows = (H + 2 - 3) // 2 + 1         # a row of the program for each operation

What is known already is folded, and equal expressions are one row.
"""

from __future__ import annotations

from collections.abc import Callable

Row = tuple[str, int, int]


class Sizes:
    """The size program of one region, as it grows.

    `threads`, where given, is the number of workers that is known already, as in benchmarks.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.rows: list[Row] = []
        self._threads = threads
        self._found: dict[Row, int] = {}

    def const(self, number: int) -> Size:
        """A number that is known."""
        return self._row("const", number, 0)

    def dim(self, tensor: int, axis: int) -> Size:
        """A dimension of an input of the region."""
        return self._row("dim", tensor, axis)

    def threads(self) -> Size:
        """How many workers the session has."""
        return self._row("threads", 0, 0) if self._threads is None else self.const(self._threads)

    def of(self, number: int | Size) -> Size:
        """A number as a size."""
        return number if isinstance(number, Size) else self.const(number)

    def _row(self, operation: str, a: int, b: int) -> Size:
        row = (operation, a, b)
        if row not in self._found:
            self._found[row] = len(self.rows)
            self.rows.append(row)
        return Size(self, self._found[row])

    def apply(self, operation: str, a: Size, b: Size) -> Size:
        """An operation on two sizes, folded if both are known."""
        x, y = a.known, b.known
        if x is not None and y is not None:
            return self.const(_OPERATIONS[operation](x, y))
        return self._row(operation, a.index, b.index)


class Size:
    """One row of a size program. Quotients are of numbers that are not negative, or round down."""

    def __init__(self, sizes: Sizes, index: int) -> None:
        self.sizes = sizes
        self.index = index

    @property
    def known(self) -> int | None:
        """Its number, if that does not depend on how the region is run."""
        operation, number, _ = self.sizes.rows[self.index]
        return number if operation == "const" else None

    def __add__(self, other: int | Size) -> Size:
        other = self.sizes.of(other)
        if self.known == 0:
            return other
        return self if other.known == 0 else self.sizes.apply("add", self, other)

    def __radd__(self, other: int) -> Size:
        return self + other

    def __sub__(self, other: int | Size) -> Size:
        other = self.sizes.of(other)
        return self if other.known == 0 else self.sizes.apply("sub", self, other)

    def __rsub__(self, other: int) -> Size:
        return self.sizes.of(other) - self

    def __mul__(self, other: int | Size) -> Size:
        other = self.sizes.of(other)
        if self.known == 1:
            return other
        return self if other.known == 1 else self.sizes.apply("mul", self, other)

    def __rmul__(self, other: int) -> Size:
        return self * other

    def __floordiv__(self, other: int | Size) -> Size:
        other = self.sizes.of(other)
        return self if other.known == 1 else self.sizes.apply("floordiv", self, other)

    def ceildiv(self, other: int | Size) -> Size:
        """The quotient, rounded up."""
        other = self.sizes.of(other)
        return self if other.known == 1 else self.sizes.apply("ceildiv", self, other)

    def min(self, other: int | Size) -> Size:
        """The smaller of both."""
        return self.sizes.apply("min", self, self.sizes.of(other))

    def max(self, other: int | Size) -> Size:
        """The larger of both."""
        return self.sizes.apply("max", self, self.sizes.of(other))


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "min": min,
    "max": max,
}
