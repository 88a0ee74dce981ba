"""Size programs as the native library runs them.

evaluate  all rows, for the dimensions of the inputs
Compact   the rows that are needed, renumbered
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ort_optim.compiler.plan import Row

LEAVES = ("const", "dim", "threads")

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0,
    "ceildiv": lambda a, b: -(-a // b) if b else 0,
    "min": min,
    "max": max,
}


def evaluate(rows: Sequence[Row], dim: Callable[[int, int], int], threads: int) -> list[int]:
    """The value of each row; `dim(input, axis)` is a dimension."""
    values: list[int] = []
    for operation, a, b in rows:
        if operation == "const":
            values.append(a)
        elif operation == "dim":
            values.append(dim(a, b))
        elif operation == "threads":
            values.append(threads)
        else:
            values.append(_OPERATIONS[operation](values[a], values[b]))
    return values


class Compact:
    """The rows that some sizes need."""

    def __init__(self, rows: Sequence[Row], needed: Iterable[int]) -> None:
        waiting = list(needed)
        kept: set[int] = set()
        while waiting:
            index = waiting.pop()
            if index not in kept:
                kept.add(index)
                operation, a, b = rows[index]
                if operation not in LEAVES:
                    waiting += (a, b)
        self._places = {index: place for place, index in enumerate(sorted(kept))}
        self.rows: tuple[Row, ...] = tuple(self._renumbered(rows[i]) for i in sorted(kept))

    def __getitem__(self, index: int) -> int:
        """The new number of a row."""
        return self._places[index]

    def _renumbered(self, row: Row) -> Row:
        operation, a, b = row
        return row if operation in LEAVES else (operation, self._places[a], self._places[b])
