"""Which inputs a few neighbouring windows read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product


def meetings(
    outputs: int, taps: int, stride: int, dilation: int
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Along one axis each input that is read, with the (output, tap) pairs that read it."""
    found: dict[int, list[tuple[int, int]]] = {}
    for output, tap in product(range(outputs), range(taps)):
        found.setdefault(output * stride + tap * dilation, []).append((output, tap))
    yield from sorted(found.items())
