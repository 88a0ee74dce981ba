"""New names that nothing in a model has yet."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """The names a model has; makes new ones in constant time each."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._last: dict[str, int] = {}

    def add(self, name: str) -> None:
        """A name that the model has."""
        self._taken.add(name)

    def fresh(self, hint: str) -> str:
        """`hint` itself if it is free, else `hint` with a number."""
        if hint not in self._taken:
            self.add(hint)
            return hint
        return self.numbered(hint)

    def numbered(self, stem: str) -> str:
        """`stem` with the first number from 1 on that makes a new name."""
        number = self._last.get(stem, 0) + 1
        while f"{stem}_{number}" in self._taken:
            number += 1
        self._last[stem] = number
        self.add(f"{stem}_{number}")
        return f"{stem}_{number}"
