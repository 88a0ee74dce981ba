"""Regions as the last stage of `optimize`: kept where they pay, verified, and reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import ort_optim
from ort_optim.errors import InputError
from ort_optim.graph.functions import inline_functions
from ort_optim.trial import Trial
from tests.pipeline.wrong_kernels import spoil_winograd
from tests.toolbox import ROOT

MODEL = ROOT / "models" / "digits_resnet.onnx"


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ort_optim.Report]:
    path = tmp_path_factory.mktemp("tiled") / "out.onnx"
    return path, ort_optim.optimize(MODEL, path, timing=False)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def test_a_network_of_convolutions_becomes_one_region(
    tiled: tuple[Path, ort_optim.Report],
) -> None:
    path, report = tiled
    assert report.tiling.kept
    assert report.tiling.regions == 1
    assert all(layer.region and layer.template for layer in report.tiling.layers)
    assert report.verification.status == "passed"
    onnx.checker.check_model(str(path), full_check=True)


def test_without_our_library_it_gives_what_it_gives_inlined(
    tiled: tuple[Path, ort_optim.Report], tmp_path: Path
) -> None:
    path, _ = tiled
    plain = inline_functions(onnx.load(path), {"ort_optim"})
    onnx.save(plain, tmp_path / "plain.onnx")
    x = np.random.default_rng(0).random((1, 1, 32, 32), np.float32)
    np.testing.assert_array_equal(run(path, x), run(tmp_path / "plain.onnx", x))


def test_the_session_runs_the_region_and_agrees(tiled: tuple[Path, ort_optim.Report]) -> None:
    path, _ = tiled
    session = ort_optim.InferenceSession(path)
    x = np.random.default_rng(0).random((1, 1, 32, 32), np.float32)
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    expected = run(MODEL, x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert ort_optim.stats(session).runs == 1
    assert ort_optim.stats(session).left == {}


def test_an_optimized_model_can_be_optimized_again(
    tiled: tuple[Path, ort_optim.Report], tmp_path: Path
) -> None:
    path, first = tiled
    again = ort_optim.optimize(path, tmp_path / "again.onnx", timing=False)
    assert again.tiling.kept
    assert again.output.op_histogram == first.output.op_histogram


def test_tiling_can_be_left_out(tmp_path: Path) -> None:
    report = ort_optim.optimize(MODEL, tmp_path / "o.onnx", timing=False, disable={"tiling"})
    assert report.tiling.layers == ()
    assert not onnx.load(tmp_path / "o.onnx").functions


def test_a_pass_that_does_not_exist_is_told_beside_tiling(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tiling"):
        ort_optim.optimize(MODEL, tmp_path / "o.onnx", disable={"tilling"})


def test_for_a_target_without_kernels_the_reason_is_told(tmp_path: Path) -> None:
    report = ort_optim.optimize(MODEL, tmp_path / "o.onnx", timing=False, target="cortex-a72")
    assert not report.tiling.kept
    assert "no kernels for aarch64" in report.tiling.reason


def test_regions_that_are_not_faster_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ort_optim import pipeline

    real = pipeline.try_tiling

    def slow(*args: object, **options: object) -> Trial:
        search = args[0]
        times = iter([[1.0] * 5, [1.0] * 5, [2.0] * 5] * 2)
        monkeypatch.setattr(search, "interleaved", lambda *_: [next(times) for _ in range(3)])
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "try_tiling", slow)
    report = ort_optim.optimize(MODEL, tmp_path / "o.onnx")
    assert not report.tiling.kept
    assert report.tiling.reason == "it is not faster with regions"
    assert not onnx.load(tmp_path / "o.onnx").functions


def test_wrong_kernels_are_noticed_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_winograd(monkeypatch)
    report = ort_optim.optimize(MODEL, tmp_path / "o.onnx", timing=False)
    names = {layer.template for layer in report.tiling.layers}
    assert report.verification.status == "passed"
    assert not any(name.startswith("winograd") for name in names)


def test_where_our_code_is_switched_off_nothing_is_tiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_OPTIM_DISABLE", "1")
    report = ort_optim.optimize(MODEL, tmp_path / "o.onnx", timing=False)
    assert not report.tiling.kept
    assert report.tiling.reason == "ORT_OPTIM_DISABLE is set"
