"""Fixtures for runs of the whole pipeline in one borrowed worker process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from ort_optim import pipeline
from ort_optim.engine import Engine
from ort_optim.report import Report
from tests.pipeline.models import Optimize, Run
from tests.toolbox import LastingEngine, assert_same_outputs


@pytest.fixture
def optimize(
    tmp_path: Path, lasting_engine: LastingEngine, monkeypatch: pytest.MonkeyPatch
) -> Optimize:
    """`optimize` on a model or path, to tmp_path/out.onnx unless told otherwise, untimed."""

    def call(source: onnx.ModelProto | Path, out: Path | None = None, **options: Any) -> Report:
        if isinstance(source, onnx.ModelProto):
            onnx.save(source, tmp_path / "in.onnx")
            source = tmp_path / "in.onnx"
        monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)
        options.setdefault("timing", False)
        return pipeline.optimize(source, out or tmp_path / "out.onnx", **options)

    return call


@pytest.fixture
def same(tmp_path: Path, engine: Engine) -> Callable[..., None]:
    """Asserts that in.onnx and out.onnx in tmp_path give the same outputs."""

    def check(**feeds: Any) -> None:
        assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)

    return check


@pytest.fixture
def run(tmp_path: Path, optimize: Optimize) -> Run:
    """See `Run`."""

    def call(source: onnx.ModelProto | Path, **options: Any) -> tuple[bytes, Report]:
        out = tmp_path / "out.onnx"
        out.unlink(missing_ok=True)
        options.setdefault("work", tmp_path / "work")
        report = optimize(source, out, **options)
        return out.read_bytes(), report

    return call
