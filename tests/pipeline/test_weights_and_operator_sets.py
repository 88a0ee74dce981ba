"""Weights wherever files have them, and operator sets old and new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from ort_optim.engine import Engine
from ort_optim.errors import VerificationError
from tests.passes.harness import model_of
from tests.pipeline.models import I64, F, Optimize, Same, floats, loaded, old_net, passed
from tests.toolbox import assert_same_outputs, ops


def input_weights_model(ir_version: int) -> onnx.ModelProto:
    model = model_of(
        "g (float[1,2,4,4] x, float[3,2,1,1] w, float[3] b) => (float[1,3,4,4] y)"
        "{ i = Identity(x)\n y = Conv(i, w, b) }",
        weights={"w": floats(3, 2, 1, 1), "b": floats(3)},
        opset=9,
    )
    model.ir_version = ir_version
    return model


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_weights_among_the_inputs_are_frozen(
    tmp_path: Path, optimize: Optimize, same: Same, ir_version: int
) -> None:
    report = optimize(input_weights_model(ir_version))
    passed(report)
    assert any("frozen" in each for each in report.repairs)
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == ["x"]
    assert result.ir_version >= 4
    onnx.checker.check_model(result, full_check=True)
    same(x=floats(1, 2, 4, 4))


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_or_kept_for_those_who_override_them(
    tmp_path: Path, engine: Engine, optimize: Optimize, ir_version: int
) -> None:
    report = optimize(input_weights_model(ir_version), keep_initializer_inputs=True)
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == ["x", "w", "b"]
    assert ops(tmp_path / "out.onnx") == ["Conv"]
    feeds = {"x": floats(1, 2, 4, 4)}
    if ir_version >= 4:
        feeds["b"] = np.array([7, 8, 9], np.float32)
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)


def test_a_sparse_initializer(tmp_path: Path, optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[2,4] x) => (float[2,4] y, float[4] z)"
        "{ i = Identity(x)\n y = Add(i, s)\n z = Mul(s, two) }",
        weights={"two": np.float32(2)},
    )
    values = helper.make_tensor("s", F, [2], [1.5, -2.5])
    indices = helper.make_tensor("s_indices", I64, [2], [0, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    passed(optimize(model))
    same(x=floats(2, 4))


@pytest.mark.parametrize("opset", range(6, onnx.defs.onnx_opset_version() + 1))
def test_operator_sets_from_six_on(
    tmp_path: Path, optimize: Optimize, same: Same, opset: int
) -> None:
    report = optimize(old_net(opset))
    if report.verification.status == "unverified":  # newer than the installed ORT, or dropped by it
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
        assert opset < 7 or "opset" in report.verification.reason
        return
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert result.opset_import[0].version == opset
    assert "Identity" not in ops(tmp_path / "out.onnx")
    assert "BatchNormalization" not in ops(tmp_path / "out.onnx")
    same(x=floats(1, 2, 6, 6))


@pytest.mark.parametrize(
    ("field", "value"), [("opset", 999), ("ir_version", 999)], ids=["opset", "ir-version"]
)
def test_a_model_newer_than_ort_is_copied_with_a_warning(
    tmp_path: Path, optimize: Optimize, field: str, value: int
) -> None:
    model = old_net(17)
    if field == "opset":
        model.opset_import[0].version = value
    else:
        model.ir_version = value
    report = optimize(model)
    assert report.verification.status == "unverified"
    assert not report.decision.kept
    assert "/onnxruntime_src" not in report.verification.reason
    assert "999" in report.verification.reason
    assert any("copied" in warning for warning in report.warnings)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
    with pytest.raises(VerificationError):
        optimize(model, require_verify=True)
