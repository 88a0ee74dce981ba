"""How work that goes row by row over a blocked tensor is cut into tasks.

    Rows         as arguments of a kernel: which rows of which planes a task does
    split_rows   the numbers for them

A task is a part of one plane's rows, or, where planes are small, some whole planes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ort_optim.kernels.builder import Code
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.values import Int

ROW_VALUES = ("rows", "planes", "all_planes", "rows_per_task", "planes_per_task", "row_tasks")
"""Names of the values that a kernel which uses `Rows` has."""

SMALLEST_TASK_FLOATS = 1 << 12
LARGEST_TASK_FLOATS = 1 << 16
TASKS_PER_THREAD = 4


@dataclass(frozen=True)
class Rows:
    """The part of a tensor that one task does."""

    code: Code

    @contextmanager
    def each_plane(self) -> Iterator[tuple[Int, Int, Int, Int]]:
        """Go over its planes: (image, plane, first row, row after the last)."""
        code = self.code
        rows, planes, all_planes, rows_per_task, planes_per_task, row_tasks = (
            code.value(name) for name in ROW_VALUES
        )
        first_plane = code.task // row_tasks * planes_per_task
        first_row = code.task % row_tasks * rows_per_task
        stop_plane = code.min(first_plane + planes_per_task, all_planes)
        stop_row = code.min(first_row + rows_per_task, rows)
        with code.loop(stop_plane, first_plane) as index:
            yield index // planes, index % planes, first_row, stop_row

    @contextmanager
    def each(self) -> Iterator[tuple[Int, Int, Int]]:
        """Go over its rows: (image, plane, row)."""
        with (
            self.each_plane() as (image, plane, first, stop),
            self.code.loop(stop, first) as row,
        ):
            yield image, plane, row


def split_rows(
    N: Size,  # noqa: N803
    planes: int,
    rows: Size,
    floats_per_row: Size,
    largest: int = LARGEST_TASK_FLOATS,
) -> tuple[dict[str, Size], Size]:
    """The values of `Rows` for N images of so many planes and rows, and the number of tasks.

    `floats_per_row` says how much work a row is, `largest` how much a task may be: where that
    allows, there are a few tasks for every thread.
    """
    sizes = N.sizes
    all_planes = N * planes
    total = all_planes * rows * floats_per_row
    target = total.ceildiv(sizes.threads() * TASKS_PER_THREAD)
    target = target.max(min(SMALLEST_TASK_FLOATS, largest)).min(largest)
    rows_per_task = target.ceildiv(floats_per_row.max(1)).min(rows).max(1)
    planes_per_task = (target // (rows * floats_per_row).max(1)).max(1)
    row_tasks = rows.ceildiv(rows_per_task)
    values = (rows, sizes.const(planes), all_planes, rows_per_task, planes_per_task)
    found = dict(zip(ROW_VALUES, (*values, row_tasks.max(1)), strict=True))
    tasks = all_planes.ceildiv(planes_per_task) * row_tasks
    return found, tasks.min(total)  # none where there is nothing
