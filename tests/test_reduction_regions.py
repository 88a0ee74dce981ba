"""Regions whose outputs differ, or that can't be run: recorded as a pass would be, and shrunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim import pipeline, reduction, trial
from ort_optim.cluster.submitting.failing_part import failing_part
from ort_optim.errors import InputError
from ort_optim.reduction import has_failures, reduce_failure
from ort_optim.report import Report
from ort_optim.runtime.prepare import Prepared, prepare
from tests.pipeline.wrong_kernels import spoil_winograd
from tests.toolbox import ROOT, LastingEngine, ops

MODEL = ROOT / "models" / "digits_resnet.onnx"

Run = Callable[..., Report]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the steps of a job lie in its folder."""
    return tmp_path / "work" / "steps"


@pytest.fixture
def run(
    tmp_path: Path, work: Path, lasting_engine: LastingEngine, monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)
    monkeypatch.setattr(reduction, "Engine", lasting_engine.lend)

    def call(**options: Any) -> Report:
        return pipeline.optimize(MODEL, tmp_path / "out.onnx", work=work, timing=False, **options)

    return call


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd kernels are wrong, and no more exact templates are tried in their place."""
    spoil_winograd(monkeypatch)
    monkeypatch.setattr(trial, "ERROR_CLASSES", (2,))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our library refuses what it is given."""

    def spoilt(*arguments: Any, **options: Any) -> Prepared:
        prepared = prepare(*arguments, **options)
        if prepared.extension is None:
            return prepared
        return replace(prepared, extension=replace(prepared.extension, blob=b"nothing"))

    monkeypatch.setattr(trial, "prepare", spoilt)
    monkeypatch.setattr(reduction, "compile_regions", spoilt)


@pytest.mark.usefixtures("wrong")
def test_a_region_that_made_the_outputs_differ(tmp_path: Path, work: Path, run: Run) -> None:
    report = run()
    assert not report.tiling.kept
    assert "a restart also writes the smallest part" in failing_part(tmp_path)
    smallest = reduce_failure(work)
    assert ops(smallest) == ["Conv"]
    model = onnx.load(smallest)
    assert "a region makes the outputs differ on Conv (1 node)" in model.doc_string
    with np.load(work / "smallest.npz") as feeds:
        assert feeds.files == [value.name for value in model.graph.input]
    assert "a region makes the outputs differ" in failing_part(tmp_path)


@pytest.mark.usefixtures("refused")
def test_a_region_that_can_not_be_run(work: Path, run: Run) -> None:
    run()
    smallest = reduce_failure(work)
    assert set(ops(smallest)) <= {"Conv", "Relu", "MaxPool"}
    assert "a region makes a model that ONNX Runtime can't run" in onnx.load(smallest).doc_string


@pytest.mark.usefixtures("wrong")
def test_a_taken_over_trial_tells_its_failure_as_well(work: Path, run: Run) -> None:
    run()
    before = json.loads((work / "failures.json").read_text())
    assert "tile" in run().taken_over
    assert json.loads((work / "failures.json").read_text()) == before


@pytest.mark.usefixtures("wrong")
def test_weights_of_a_heavy_model_are_found(
    work: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_MODEL_BYTES", 1000)
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_TENSOR_BYTES", 100)
    run()
    smallest = reduce_failure(work)
    assert ops(smallest) == ["Conv"]
    assert onnx.load(smallest).graph.initializer[0].raw_data


@pytest.mark.usefixtures("wrong")
def test_a_model_that_is_no_longer_there_is_told(work: Path, run: Run) -> None:
    run()
    for each in work.glob("*.onnx"):
        each.unlink()
    with pytest.raises(InputError, match="is missing: run `optimize` again"):
        reduce_failure(work)


def test_regions_that_agree_are_no_failure(work: Path, run: Run) -> None:
    assert run().tiling.kept
    assert not has_failures(work)
