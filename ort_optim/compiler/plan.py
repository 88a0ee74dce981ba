"""What the native library executes for one region: sizes, buffers and steps, all plain data.

A size is an index into the region's `program`, whose rows are computed in order when the region
runs, each from the input shapes and the rows before it. Pointers and steps name sizes, never
numbers, so one plan serves every batch, height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Size = int
"""Index of a row of `RegionPlan.program`."""

Row = tuple[str, int, int]
"""`(operation, a, b)`: ("const", value, 0), ("dim", input, axis), ("threads", 0, 0), or an
operation on two earlier rows: add, sub, mul, floordiv, ceildiv, min, max."""


@dataclass(frozen=True)
class Pointer:
    """An address handed to a kernel.

    Attributes:
        kind: Which list of buffers it points into.
        index: Which buffer: an input or output of the region, a packed weight, an arena slot.
        offset: Size, in bytes from the start of the buffer.
    """

    kind: Literal["input", "output", "packed", "arena"]
    index: int
    offset: Size


@dataclass(frozen=True)
class Step:
    """One kernel called for every task of a layer.

    Attributes:
        image: Which of the plan's images holds the code.
        entry: Byte offset of the function in that image.
        pointers, values: What the kernel finds in its two argument arrays.
        tasks: Size, the number of calls.
        scratch_bytes: Size, private memory of each worker.
        label: Layer and kernel, for people.
    """

    image: int
    entry: int
    pointers: tuple[Pointer, ...]
    values: tuple[Size, ...]
    tasks: Size
    scratch_bytes: Size
    label: str


@dataclass(frozen=True)
class RegionPlan:
    """A region, ready to run.

    Attributes:
        name: The function it stands for, in domain `ort_optim`.
        ranks: Rank of each input. All inputs and outputs are float32 tensors.
        outputs: For each output the sizes of its dimensions.
        program: Rows that compute all sizes.
        guards: (size, value) pairs that must hold for the code to be right.
        packed_bytes: Bytes of each packed weight.
        pack_steps: Run once per session, on constant inputs only.
        slots: For each arena slot the sizes of the tensors it holds one after another, in bytes.
        steps: In order; each is complete before the next begins.
        images: Files of machine code.
    """

    name: str
    ranks: tuple[int, ...]
    outputs: tuple[tuple[Size, ...], ...]
    program: tuple[Row, ...]
    guards: tuple[tuple[Size, int], ...]
    packed_bytes: tuple[int, ...]
    pack_steps: tuple[Step, ...]
    slots: tuple[tuple[Size, ...], ...]
    steps: tuple[Step, ...]
    images: tuple[Path, ...]
