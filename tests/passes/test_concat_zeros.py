from __future__ import annotations

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import concat_zeros
from tests.passes.harness import check, model_of

PASSES = (concat_zeros.PASS,)


def joined(
    zeros: np.ndarray, *, order: str = "x, z", x: str = "2, 3, 4, 5", axis: int = 1, opset: int = 17
) -> onnx.ModelProto:
    return model_of(
        f"""g (float[{x}] x) => (float[2, C, H, W] y) {{
            y = Concat<axis = {axis}>({order})
        }}""",
        opset=opset,
        weights={"z": zeros},
    )


def of(*shape: int, value: float = 0.0) -> np.ndarray:
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18, 22])
@pytest.mark.parametrize(("zeros", "axis"), [(of(2, 6, 4, 5), 1), (of(2, 1, 4, 5), -3)])
def test_zeros_behind_a_tensor_are_a_pad(
    engine: Engine, zeros: np.ndarray, axis: int, opset: int
) -> None:
    axis = axis % 4 if opset < 11 else axis
    assert check(engine, joined(zeros, axis=axis, opset=opset), PASSES).ops == {"Pad": 1}


def test_a_size_that_the_zeros_do_not_have_does_not_matter(engine: Engine) -> None:
    model = joined(of(2, 6, 4, 5), x="2, C, 4, 5")
    assert check(engine, model, PASSES).ops == {"Pad": 1}


@pytest.mark.parametrize(
    "model",
    [
        joined(of(2, 6, 4, 5), order="z, x"),
        joined(of(2, 6, 4, 5), order="x, z, z"),
        joined(of(2, 3, 4, 2), axis=3),
        joined(of(2, 6, 4, 5, value=0.5)),
        joined(of(2, 6, 4, 5), x="N, 3, 4, 5"),
        joined(of(2, 6, 4, 5), x="2, 3, H, 5"),
    ],
    ids=["before", "more", "columns", "numbers", "batch", "height"],
)
def test_others_stay(engine: Engine, model: onnx.ModelProto) -> None:
    feeds = {"x": np.ones((2, 3, 4, 5), np.float32)}
    assert check(engine, model, PASSES, feeds=feeds).ops == {"Concat": 1}
