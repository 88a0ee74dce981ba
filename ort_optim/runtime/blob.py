"""Writes region plans in the form that the native library reads: 64-bit little-endian words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from struct import pack

from ort_optim.compiler.plan import Pointer, RegionPlan, Row, Step

MAGIC = int.from_bytes(b"RTOPTIM1", "little")
OPERATIONS = (
    "const",
    "dim",
    "threads",
    "add",
    "sub",
    "mul",
    "floordiv",
    "ceildiv",
    "min",
    "max",
)
BUFFERS = ("input", "output", "packed", "arena")


def encode(plans: Sequence[RegionPlan], *, threads: int, time_steps: bool = False) -> bytes:
    """The plans of one model for a session with `threads` intra-op threads.

    `time_steps` lets the library measure every step, for some tens of nanoseconds each. Raises
    ValueError for numbers that do not fit 64 bits.
    """
    images = list(dict.fromkeys(image for plan in plans for image in plan.images))
    words = [
        _words(threads, time_steps, len(images)),
        *(_text(str(image)) for image in images),
        _words(len(plans)),
        *(_region(plan, {image: i for i, image in enumerate(images)}) for plan in plans),
    ]
    body = b"".join(words)
    return _words(MAGIC, len(body) + 16) + body


def _region(plan: RegionPlan, images: dict[Path, int]) -> bytes:
    own_images = [images[image] for image in plan.images]
    return b"".join(
        (
            _text(plan.name),
            _list(plan.ranks),
            _words(len(plan.program), *chain.from_iterable(map(_row, plan.program))),
            _words(len(plan.outputs)),
            *(_list(dims) for dims in plan.outputs),
            _words(len(plan.guards), *chain.from_iterable(plan.guards)),
            _list(plan.packed_bytes),
            _words(len(plan.slots)),
            *(_list(sizes) for sizes in plan.slots),
            _words(len(plan.pack_steps)),
            *(_step(step, own_images) for step in plan.pack_steps),
            _words(len(plan.steps)),
            *(_step(step, own_images) for step in plan.steps),
        )
    )


def _row(row: Row) -> tuple[int, int, int]:
    operation, a, b = row
    return OPERATIONS.index(operation), a, b


def _step(step: Step, images: Sequence[int]) -> bytes:
    return b"".join(
        (
            _text(step.label),
            _words(images[step.image], step.entry, step.tasks, step.scratch_bytes),
            _words(len(step.pointers), *chain.from_iterable(map(_pointer, step.pointers))),
            _list(step.values),
        )
    )


def _pointer(pointer: Pointer) -> tuple[int, int, int]:
    return BUFFERS.index(pointer.kind), pointer.index, pointer.offset


def _text(text: str) -> bytes:
    """Length in bytes, then the bytes, filled up with zeros to whole words."""
    data = text.encode()
    return _words(len(data)) + data + bytes(-len(data) % 8)


def _list(numbers: Sequence[int]) -> bytes:
    return _words(len(numbers), *numbers)


def _words(*numbers: int) -> bytes:
    return pack(f"<{len(numbers)}q", *numbers)
