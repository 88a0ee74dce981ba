"""What `optimize --work` left to look at when a pass or a region failed: the smallest part that
still does."""

from __future__ import annotations

from pathlib import Path

from ort_optim.cluster.keeping.work_folder import WorkFolder, read_ours
from ort_optim.errors import InputError

LARGEST_BYTES = 64 << 10


def failing_part(folder: Path) -> str:
    """Lines on the failing part of a model, from the folder of its job; empty without one."""
    steps = WorkFolder(folder).steps
    try:
        told = read_ours(steps / "smallest.txt", LARGEST_BYTES).decode(errors="replace").strip()
    except InputError:
        if not (steps / "failures.json").is_file():
            return ""
        return (
            "a pass or a region failed; with the option `reduce` a restart also writes the "
            "smallest part of the model that still fails: batch restart JOB --option reduce=true"
        )
    return f"smallest failing part: {steps / 'smallest.onnx'}, inputs in smallest.npz\n{told}"
