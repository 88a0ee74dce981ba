"""Which tensors share memory because they do not live at the same time.

Lifetime      a tensor's size and the steps it lives through
assign_slots  a slot for each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lifetime:
    """Bytes, an estimate where they are not known yet, and steps [first, stop)."""

    bytes: int
    first: int
    stop: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both live during some step."""
        return self.first < other.stop and other.first < self.stop


def assign_slots(tensors: Sequence[Lifetime]) -> list[int]:
    """The slot of each tensor; a slot's tensors never live at the same time.

    Largest first, each into the first slot where there is room: a slot is as large as the first
    tensor put there, so this wastes only what smaller ones leave over.
    """
    slots: list[list[Lifetime]] = []
    found = [0] * len(tensors)
    for index in sorted(range(len(tensors)), key=lambda i: (-tensors[i].bytes, tensors[i].first)):
        tensor = tensors[index]
        room = (n for n, slot in enumerate(slots) if not any(map(tensor.meets, slot)))
        found[index] = next(room, len(slots))
        if found[index] == len(slots):
            slots.append([])
        slots[found[index]].append(tensor)
    return found
