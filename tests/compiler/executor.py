"""Runs a plan as the native library does, one step after another, in Python."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ort_optim.compiler.plan import Pointer, RegionPlan, Step
from ort_optim.compiler.program import evaluate
from tests.kernels.harness import _FUNCTION, _libc, aligned

Array = NDArray[np.float32]

GUARD_FLOATS = 64
JUNK = np.float32(7.5e8)  # what memory holds before it is written
UNTOUCHED = np.float32(-1.25e30)


class GuardError(AssertionError):
    """A guard does not hold, or something was written that may not be."""


class Executor:
    """One session of a region: code mapped and weights packed."""

    def __init__(self, plan: RegionPlan, inputs: Sequence[Array | None], threads: int = 1) -> None:
        """`inputs` are the constant ones, None for the others."""
        self.plan = plan
        self.threads = threads
        self.constants = list(inputs)
        self._code = [_map(path) for path in plan.images]
        dims = [
            (1,) * rank if x is None else x.shape
            for rank, x in zip(plan.ranks, inputs, strict=True)
        ]
        self._packed = [_Guarded(size) for size in plan.packed_bytes]
        values = evaluate(plan.program, lambda i, axis: dims[i][axis], threads)
        for step in plan.pack_steps:
            self._run(step, values, list(inputs), [], [])
        for each in self._packed:
            each.check("packed weights")

    def run(self, *activations: Array) -> list[Array]:
        """The outputs; `activations` are the inputs that are not constant, in order."""
        waiting = iter(activations)
        inputs = [next(waiting) if x is None else x for x in self.constants]
        plan = self.plan
        assert [x.ndim for x in inputs] == list(plan.ranks)
        values = evaluate(plan.program, lambda i, axis: inputs[i].shape[axis], self.threads)
        for index, wanted in plan.guards:
            if values[index] != wanted:
                raise GuardError(f"size {index} is {values[index]}, not {wanted}")
        slots = [_Guarded(max((values[i] for i in slot), default=0)) for slot in plan.slots]
        shapes = [tuple(values[i] for i in dims) for dims in plan.outputs]
        outputs = [_Guarded(4 * int(np.prod(shape))) for shape in shapes]
        before = [x.copy() for x in inputs]
        for step in plan.steps:
            self._run(step, values, inputs, outputs, slots)
            for kind, many in (("output", outputs), ("slot", slots), ("packed", self._packed)):
                for number, each in enumerate(many):
                    each.check(f"{step.label}: {kind} {number}")
        for x, y in zip(inputs, before, strict=True):
            assert np.array_equal(x, y, equal_nan=True), "an input was written to"
        return [
            each.floats.reshape(shape).copy() for each, shape in zip(outputs, shapes, strict=True)
        ]

    def _run(
        self,
        step: Step,
        values: Sequence[int],
        inputs: Sequence[Array | None],
        outputs: Sequence[_Guarded],
        slots: Sequence[_Guarded],
    ) -> None:
        def address(pointer: Pointer) -> int:
            if pointer.kind == "input":
                given = inputs[pointer.index]
                assert given is not None
                assert given.flags.c_contiguous
                base = given.ctypes.data
            else:
                lists = {"output": outputs, "arena": slots, "packed": self._packed}
                base = lists[pointer.kind][pointer.index].floats.ctypes.data
            return int(base) + values[pointer.offset]

        pointers = (ctypes.c_void_p * max(1, len(step.pointers)))(*map(address, step.pointers))
        numbers = (ctypes.c_int64 * max(1, len(step.values)))(*[values[i] for i in step.values])
        scratch = _Guarded(values[step.scratch_bytes])
        function = _FUNCTION(self._code[step.image] + step.entry)
        for task in range(values[step.tasks]):
            function(
                ctypes.addressof(pointers),
                ctypes.addressof(numbers),
                task,
                scratch.floats.ctypes.data,
            )
        scratch.check(f"{step.label}: scratch")


class _Guarded:
    """Memory with a zone on both sides that nobody may write to."""

    def __init__(self, size_bytes: int) -> None:
        assert 0 <= size_bytes < 1 << 32
        count = -(-size_bytes // 64) * 16
        self._all = aligned(count + 2 * GUARD_FLOATS, float(UNTOUCHED))
        self.floats = self._all[GUARD_FLOATS : GUARD_FLOATS + size_bytes // 4]
        self.floats[:] = JUNK

    def check(self, what: str) -> None:
        end = GUARD_FLOATS + len(self.floats)
        sound = (self._all[:GUARD_FLOATS] == UNTOUCHED).all() and (
            self._all[end:] == UNTOUCHED
        ).all()
        if not sound:
            raise GuardError(f"{what}: written outside")


def _map(path: Path) -> int:
    size = path.stat().st_size
    with path.open("rb") as file:
        access = mmap.PROT_READ | mmap.PROT_EXEC
        base = _libc.mmap(None, size, access, mmap.MAP_PRIVATE, file.fileno(), 0)
    assert base not in (None, ctypes.c_void_p(-1).value)
    return int(base)
