"""`work=DIR` and weights: what is kept of them, and that they come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.passes.harness import model_of
from tests.pipeline.models import Run, old_net, weighty
from tests.toolbox import save_with_data


def test_external_data_stays_where_it_is(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "in.onnx"
    save_with_data(weighty(60_000), path, location="w.bin")
    out, _ = run(path, work=None)
    run(path)
    again, report = run(path)
    assert again == out
    assert {"inputs", "rewrite"} <= set(report.taken_over)
    assert sum(p.stat().st_size for p in (tmp_path / "work").glob("*.onnx")) < 60_000


def test_the_weights_of_heavy_models_come_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_MODEL_BYTES", 1000)
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_TENSOR_BYTES", 100)
    for model in (weighty(), old_net(9)):
        out, _ = run(model, work=None)
        run(model)
        again, report = run(model)
        assert again == out
        assert {"inputs", "rewrite"} <= set(report.taken_over)


def test_weights_that_the_original_has_are_not_kept_again(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a` stays as it is, `b` takes up a factor."""
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_MODEL_BYTES", 1000)
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_TENSOR_BYTES", 100)
    rng = np.random.default_rng(0)
    model = model_of(
        "g (float[1, 40] x) => (float[1, 10] y) { h = MatMul(x, a)\n r = Relu(h)\n"
        "i = Identity(r)\n c = MatMul(i, b)\n y = Mul(c, two) }",
        weights={
            "a": rng.standard_normal((40, 200)).astype(np.float32),
            "b": rng.standard_normal((200, 10)).astype(np.float32),
            "two": np.float32(2),
        },
    )
    out, _ = run(model, work=None)
    for _ in range(2):
        again, report = run(model)
        assert again == out
        (kept,) = (tmp_path / "work").glob("*.onnx")
        assert 200 * 10 * 4 < kept.stat().st_size < 40 * 200 * 4
    assert report.taken_over == ("inputs", "rewrite")


def test_a_model_too_large_for_one_file_is_not_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = run(weighty(), work=None)
    monkeypatch.setattr("ort_optim.checkpoints.models.MOST_BYTES", 100)
    for _ in range(2):
        again, report = run(weighty())
        assert again == out
        assert "rewrite" not in report.taken_over
        assert any("step rewrite is not kept" in warning for warning in report.warnings)
