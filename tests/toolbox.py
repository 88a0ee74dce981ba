"""What the tests of the whole program share: calling it as a user does, and small models for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ort_optim.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
Snapshot = Mapping[str, bytes]


def snapshot(folder: Path) -> Snapshot:
    """All files below a folder, links by what they lead to."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def environment(**changes: str) -> dict[str, str]:
    """For a Python process that imports this very package and the tests from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def run_program(
    *arguments: str | Path, cwd: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`python -m ort_optim` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ort_optim", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def outputs_of(
    engine: Engine, path: Path, feeds: Mapping[str, Any], *, optimize: bool = False
) -> dict[str, Any]:
    """What ONNX Runtime computes from a model file, external data included."""
    handle = engine.open(path, optimize=optimize)
    try:
        return engine.run(handle, feeds)
    finally:
        engine.close(handle)


def assert_same_outputs(
    engine: Engine, before: Path, after: Path, feeds: Mapping[str, Any], rtol: float = 1e-4
) -> None:
    """Two model files give the same outputs: names, types, shapes and values."""
    wanted = outputs_of(engine, before, feeds)
    got = outputs_of(engine, after, feeds)
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        assert_same_value(got[name], value, rtol, name)


def assert_same_value(got: Any, wanted: Any, rtol: float, name: str) -> None:
    """Equal in type and shape, floats within `rtol` of the largest value."""
    if isinstance(wanted, list):
        assert len(got) == len(wanted), name
        for got_one, wanted_one in zip(got, wanted, strict=True):
            assert_same_value(got_one, wanted_one, rtol, name)
    elif isinstance(wanted, np.ndarray) and wanted.dtype.kind in "fV":
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
        wide = wanted.astype(np.float64)
        finite = np.abs(wide[np.isfinite(wide)])
        atol = rtol * float(np.max(finite, initial=1e-30))
        np.testing.assert_allclose(got.astype(np.float64), wide, rtol=rtol, atol=atol, err_msg=name)
    elif isinstance(wanted, np.ndarray):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
        np.testing.assert_array_equal(got, wanted, err_msg=name)
    else:
        assert got == wanted, name


def ops(path: Path) -> list[str]:
    """The operators of a model file's main graph, in order."""
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def save_with_data(
    model: onnx.ModelProto, path: Path, *, location: str, size_threshold: int = 0
) -> None:
    """Save a model with its initializers in an external file of this name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(
        copy,
        path,
        save_as_external_data=True,
        location=location,
        size_threshold=size_threshold,
        convert_attribute=False,
    )


def arguments_of(*values: str | Path) -> Sequence[str]:
    """Command-line arguments as text."""
    return [str(value) for value in values]


class LastingEngine(Engine):
    """An engine that many runs of `optimize` borrow, so that not each starts a process."""

    def lend(self, **_: object) -> LastingEngine:
        """Stands for `Engine(...)`."""
        return self

    def __exit__(self, *_: object) -> None:
        """The lender shuts down."""
