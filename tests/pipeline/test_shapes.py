"""Dynamic, pinned, empty and scalar shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.passes.harness import model_of
from tests.pipeline.models import Optimize, Same, floats, loaded, passed


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


DYNAMIC = (
    "g (float[batch,3,H,W] x) => (float[batch,M] y)"
    "{ s = Shape(x)\n b = Gather(s, zero)\n u = Unsqueeze(b, axis)\n t = Concat<axis=0>(u, rest)\n"
    " i = Identity(x)\n y = Reshape(i, t) }"
)
DYNAMIC_WEIGHTS = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}


def test_dynamic_dimensions_stay_dynamic(tmp_path: Path, optimize: Optimize, same: Same) -> None:
    report = optimize(model_of(DYNAMIC, weights=DYNAMIC_WEIGHTS))
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert dims(result.graph.input[0]) == ["batch", 3, "H", "W"]
    assert dims(result.graph.output[0]) == ["batch", "M"]
    for shape in ((1, 3, 4, 4), (5, 3, 2, 7)):
        same(x=floats(*shape))


def test_shape_pins_them(tmp_path: Path, optimize: Optimize, same: Same) -> None:
    model = model_of(DYNAMIC, weights=DYNAMIC_WEIGHTS)
    report = optimize(model, shapes={"x": (2, 3, 4, 5)})
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert dims(result.graph.input[0]) == [2, 3, 4, 5]
    assert dims(result.graph.output[0]) == [2, 60]
    assert report.verification.shapes[0]["x"] == (2, 3, 4, 5)
    same(x=floats(2, 3, 4, 5))


@pytest.mark.parametrize("shape", ["float[0,4]", "float[2,0,3]"])
def test_dimensions_of_size_zero(optimize: Optimize, same: Same, shape: str) -> None:
    passed(optimize(model_of(f"g ({shape} x) => ({shape} y) {{ i = Identity(x)\n y = Relu(i) }}")))
    same(x=np.zeros([int(d) for d in shape[6:-1].split(",")], np.float32))


def test_scalars(optimize: Optimize, same: Same) -> None:
    passed(optimize(model_of("g (float x) => (float y) { i = Identity(x)\n y = Exp(i) }")))
    same(x=np.array(0.5, np.float32))
