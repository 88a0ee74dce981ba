"""Options, and what is decided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ort_optim import pipeline
from ort_optim.errors import InputError
from ort_optim.report import Report
from tests.passes.harness import model_of
from tests.pipeline.models import (
    F,
    Optimize,
    custom_model,
    floats,
    loaded,
    old_net,
    passed,
    weighty,
)
from tests.toolbox import ops, snapshot


def test_disabled_passes_do_nothing(tmp_path: Path, optimize: Optimize) -> None:
    report = optimize(weighty(), disable={"identity"})
    assert "Identity" in ops(tmp_path / "out.onnx")
    assert all(p.name != "identity" for p in report.passes)


def test_an_optimized_model_is_given_back_byte_for_byte(tmp_path: Path, optimize: Optimize) -> None:
    optimize(weighty())
    report = optimize(tmp_path / "out.onnx", tmp_path / "again.onnx")
    assert not report.decision.kept
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_two_runs_give_the_same_bytes(tmp_path: Path, optimize: Optimize) -> None:
    optimize(old_net(13), tmp_path / "a.onnx")
    optimize(old_net(13), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_own_samples_are_what_is_compared_on(tmp_path: Path, optimize: Optimize) -> None:
    np.savez(tmp_path / "samples.npz", x=floats(5, 600))
    report = optimize(weighty(), data=tmp_path / "samples.npz")
    passed(report)
    assert report.verification.sets == 5


def test_tolerances_decide(tmp_path: Path, optimize: Optimize) -> None:
    passed(optimize(old_net(13), rtol=0.0, atol=1e-3))
    strict = optimize(old_net(13), rtol=0.0, atol=0.0)
    assert (
        strict.verification.status == "passed"
    )  # what rounds otherwise was refused or within noise


def test_in_place_keeps_the_file_mode(tmp_path: Path, optimize: Optimize) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(weighty(), path)
    path.chmod(0o640)
    optimize(path, path)
    assert "Identity" not in ops(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(snapshot(tmp_path)) == ["model.onnx"]


def test_reports_are_written_in_all_formats(tmp_path: Path, optimize: Optimize) -> None:
    paths = [tmp_path / f"report.{suffix}" for suffix in ("json", "md", "html")]
    report = optimize(weighty(), report=paths)
    assert Report.from_json(paths[0].read_text()) == report
    assert all(path.stat().st_size for path in paths)


def test_the_stages_are_announced_in_order(optimize: Optimize) -> None:
    seen: list[str] = []
    optimize(weighty(), observer=seen.append, timing=True)
    assert tuple(seen) == pipeline.STAGES


def test_samples_of_other_shapes_than_pinned_are_refused(
    tmp_path: Path, optimize: Optimize
) -> None:
    model = model_of('g (float["N", 4] x) => (float["N", 4] y) { i = Identity(x)\n y = Relu(i) }')
    np.savez(tmp_path / "samples.npz", x=floats(3, 4))
    with pytest.raises(InputError, match="x:2x4 contradicts --data, where 'x' is 3x4"):
        optimize(model, shapes={"x": (2, 4)}, data=tmp_path / "samples.npz")
    passed(optimize(model, shapes={"x": (3, 4)}, data=tmp_path / "samples.npz"))


def test_pins_that_are_not_in_the_result_are_told(optimize: Optimize) -> None:
    report = optimize(custom_model(), shapes={"x": (4,)})
    assert not report.decision.kept
    assert any("--shape is not in OUT" in warning for warning in report.warnings)


def test_samples_may_be_sequences(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of("g (float[2] x) => (float[N] y) { y = ConcatFromSequence<axis=0>(s) }")
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", F, None))
    folder = tmp_path / "samples" / "test_data_set_0"
    folder.mkdir(parents=True)
    sequence = numpy_helper.from_list([floats(2), floats(3)], "s")
    (folder / "input_0.pb").write_bytes(sequence.SerializeToString())
    report = optimize(model, data=tmp_path / "samples")
    passed(report)
    assert report.verification.sets == 1


def test_what_was_verified_does_not_keep_the_mark_of_what_was_not(
    tmp_path: Path, optimize: Optimize
) -> None:
    model = weighty()
    model.metadata_props.add(key=pipeline.UNVERIFIED_MARK, value="an earlier run")
    passed(optimize(model))
    assert not loaded(tmp_path / "out.onnx").metadata_props


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("sets", 0),
        ("timeout_s", 0.0),
        ("timeout_s", float("nan")),
        ("search_seconds", -1.0),
        ("search_seconds", float("inf")),
    ],
)
def test_options_out_of_range_are_refused(optimize: Optimize, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        optimize(weighty(), **{option: value})


def test_an_import_that_is_missing_is_added_and_the_model_runs(
    tmp_path: Path, optimize: Optimize
) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { i = Identity(x)\n y = Relu(i) }")
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"
    report = optimize(model)
    passed(report)
    assert report.repairs
    assert ops(tmp_path / "out.onnx") == ["Gelu"]
