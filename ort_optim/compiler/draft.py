"""A region's plan while its kernels are not compiled yet.

Reference   a pointer argument
DraftStep   a kernel and all its arguments
Draft       steps, memory and outputs of a region
finish      a draft and its code files -> RegionPlan
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ort_optim.compiler.build import BuildError
from ort_optim.compiler.code import CodeFile
from ort_optim.compiler.plan import Pointer, RegionPlan, Step
from ort_optim.compiler.program import Compact, evaluate
from ort_optim.compiler.slots import Lifetime, assign_slots
from ort_optim.kernels.base import Kernel, Launch
from ort_optim.kernels.sizes import Size, Sizes

USUAL_SIZE = 256
"""What a dimension that is not known is taken for where memory is shared out."""


@dataclass(frozen=True)
class Reference:
    """An address: bytes from the start of an input, an output, packed weights or a tensor."""

    kind: Literal["input", "output", "packed", "arena"]
    index: int
    offset: Size


@dataclass(frozen=True)
class DraftStep:
    """A kernel with its pointers by name; `values` are those that the launch does not know."""

    launch: Launch
    pointers: Mapping[str, Reference]
    values: Mapping[str, Size]
    label: str

    @property
    def arguments(self) -> list[Size]:
        """The kernel's values in its order."""
        known = {**self.launch.values, **self.values}
        return [known[name] for name in self.launch.kernel.values]

    @property
    def addresses(self) -> list[Reference]:
        """The kernel's pointers in its order."""
        return [self.pointers[name] for name in self.launch.kernel.pointers]


@dataclass(frozen=True)
class Draft:
    """What a region does.

    Attributes:
        name: The region's.
        sizes: Its size program.
        ranks: Rank of each input.
        outputs: Sizes of the dimensions of each output.
        guards: Sizes that must be equal.
        packed_bytes: Bytes of each packed weight.
        pack_steps: What packs them.
        tensor_bytes: Bytes of each tensor in the arena.
        steps: In order.
    """

    name: str
    sizes: Sizes
    ranks: tuple[int, ...]
    outputs: tuple[tuple[Size, ...], ...]
    guards: tuple[tuple[Size, Size], ...]
    packed_bytes: tuple[int, ...]
    pack_steps: tuple[DraftStep, ...]
    tensor_bytes: tuple[Size, ...]
    steps: tuple[DraftStep, ...]

    @property
    def kernels(self) -> Iterator[Kernel]:
        """All kernels, some more than once."""
        for step in (*self.pack_steps, *self.steps):
            yield step.launch.kernel


def finish(draft: Draft, code: Mapping[Kernel, CodeFile | BuildError]) -> RegionPlan | str:
    """The plan of a region whose kernels are compiled, or why there is none."""
    images: dict[str, int] = {}
    entries: dict[Kernel, tuple[int, int]] = {}
    paths: list[Path] = []
    for kernel in draft.kernels:
        file = code[kernel]
        if isinstance(file, BuildError):
            return str(file)
        if str(file.path) not in images:
            images[str(file.path)] = len(paths)
            paths.append(file.path)
        entries[kernel] = images[str(file.path)], file.entry
    slots, slot_of = _slots(draft)
    guards = [
        (a.index, b.known) if b.known is not None else ((a - b).index, 0) for a, b in draft.guards
    ]
    program = Compact(draft.sizes.rows, _needed(draft, guards))

    def plan_step(step: DraftStep) -> Step:
        image, entry = entries[step.launch.kernel]
        pointers = [
            Pointer(
                each.kind,
                slot_of[each.index] if each.kind == "arena" else each.index,
                program[each.offset.index],
            )
            for each in step.addresses
        ]
        return Step(
            image=image,
            entry=entry,
            pointers=tuple(pointers),
            values=tuple(program[each.index] for each in step.arguments),
            tasks=program[step.launch.tasks.index],
            scratch_bytes=program[step.launch.scratch_bytes.index],
            label=step.label,
        )

    return RegionPlan(
        name=draft.name,
        ranks=draft.ranks,
        outputs=tuple(tuple(program[dim.index] for dim in dims) for dims in draft.outputs),
        program=program.rows,
        guards=tuple((program[index], value) for index, value in guards),
        packed_bytes=draft.packed_bytes,
        pack_steps=tuple(map(plan_step, draft.pack_steps)),
        slots=tuple(tuple(program[draft.tensor_bytes[i].index] for i in slot) for slot in slots),
        steps=tuple(map(plan_step, draft.steps)),
        images=tuple(paths),
    )


def _needed(draft: Draft, guards: list[tuple[int, int]]) -> Iterator[int]:
    """Rows of the program that the plan names."""
    for step in (*draft.pack_steps, *draft.steps):
        yield step.launch.tasks.index
        yield step.launch.scratch_bytes.index
        yield from (each.index for each in step.arguments)
        yield from (each.offset.index for each in step.addresses)
    for dims in draft.outputs:
        yield from (dim.index for dim in dims)
    yield from (each.index for each in draft.tensor_bytes)
    yield from (index for index, _ in guards)


def _slots(draft: Draft) -> tuple[list[list[int]], list[int]]:
    """The tensors in each slot, and the slot of each tensor."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, step in enumerate(draft.steps):
        for each in step.addresses:
            if each.kind == "arena":
                first.setdefault(each.index, number)
                last[each.index] = number
    usual = evaluate(draft.sizes.rows, lambda _, axis: 1 if axis == 0 else USUAL_SIZE, 1)
    lifetimes = [
        Lifetime(usual[size.index], first.get(i, 0), last.get(i, -1) + 1)
        for i, size in enumerate(draft.tensor_bytes)
    ]
    slot_of = assign_slots(lifetimes)
    slots: list[list[int]] = [[] for _ in range(max(slot_of, default=-1) + 1)]
    for tensor, slot in enumerate(slot_of):
        slots[slot].append(tensor)
    return slots, slot_of
