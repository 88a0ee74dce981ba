from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import clamp, dead_code
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, clamp.PASS)

BOUNDS = {"m1": -1.0, "z": 0.0, "h": 0.5, "one": 1.0, "six": 6.0, "top": math.inf}


def pipeline(body: str, *, opset: int = 17, dtype: str = "float") -> onnx.ModelProto:
    element: Any = np.float64 if dtype == "double" else np.float32
    return model_of(
        f"g ({dtype}[2, 8] x) => ({dtype}[2, 8] y) {{ {body} }}",
        opset=opset,
        weights={
            name: np.array(min(value, np.finfo(element).max), element)
            for name, value in BOUNDS.items()
            if name in body
        },
    )


@pytest.mark.parametrize("opset", [8, 10, 11, 12, 13, 21])
@pytest.mark.parametrize(
    "body",
    [
        "a = Relu(x)\n y = Min(a, six)",
        "a = Max(x, z)\n y = Min(six, a)",
        "a = Min(x, six)\n y = Relu(a)",
        "a = Min(x, six)\n b = Max(m1, a)\n y = Relu(b)",
        "a = Relu(x)\n b = Relu(a)\n y = Min(b, h)",
    ],
)
def test_a_chain_of_bounds_is_one_clip(engine: Engine, body: str, opset: int) -> None:
    assert check(engine, pipeline(body, opset=opset), PASSES).ops == {"Clip": 1}


@pytest.mark.parametrize(
    "body",
    [
        "y = Max(x, z)",
        "y = Clip(x, z)",
        "y = Clip(x, z, top)",
        "a = Relu(x)\n y = Clip(a, m1)",
        "a = Clip(x, m1)\n y = Relu(a)",
        "a = Relu(x)\n y = Relu(a)",
    ],
)
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_a_lower_bound_of_zero_alone_is_relu(engine: Engine, body: str, dtype: str) -> None:
    assert check(engine, pipeline(body, dtype=dtype), PASSES).ops == {"Relu": 1}


@pytest.mark.parametrize("low", [-2.0, -0.5, 0.25, 3.0])
@pytest.mark.parametrize("high", [-0.25, 0.75, 5.0])
def test_merged_bounds_are_the_inner_ones_clamped(engine: Engine, low: float, high: float) -> None:
    model = model_of(
        "g (float[2, 64] x) => (float[2, 64] y) { a = Clip(x, low, top)\n y = Clip(a, m, high) }",
        weights={
            "low": np.float32(low), "top": np.float32(max(low, 4)),
            "m": np.float32(-1), "high": np.float32(high),
        },
    )  # fmt: skip
    outcome = check(engine, model, PASSES)
    assert sum(outcome.ops.values()) == 1


def test_clip_with_attributes(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 8] x) => (float[2, 8] y) {
            a = Clip<min=-1.0, max=1.0>(x)
            y = Clip<max=0.5>(a)
        }""",
        opset=10,
    )
    assert check(engine, model, PASSES).ops == {"Clip": 1}


def test_clip_without_bounds_goes(engine: Engine) -> None:
    model = pipeline("a = Clip(x)\n y = Neg(a)")
    assert check(engine, model, PASSES).ops == {"Neg": 1}


def test_a_clip_that_would_tie_input_to_output_stays(engine: Engine) -> None:
    outcome = check(engine, pipeline("y = Clip(x)"), PASSES)
    assert outcome.ops == {"Clip": 1}
    assert outcome.reasons


def test_bounds_read_elsewhere_between_stay_apart(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 8] x) => (float[2, 8] y, float[2, 8] a) { a = Relu(x)\n y = Clip(a, z, h) }",
        weights={"z": np.float32(0), "h": np.float32(0.5)},
    )
    assert check(engine, model, PASSES).ops == {"Relu": 1, "Clip": 1}


@pytest.mark.parametrize(
    ("shape", "values"), [((1, 1, 1), [0.0]), ((8,), [0.0] * 8), ((), [math.nan])]
)
def test_bounds_that_change_the_shape_vary_or_are_no_number_stay(
    engine: Engine, shape: tuple[int, ...], values: list[float]
) -> None:
    rank = max(2, len(shape))
    declared = ", ".join(["1"] * (rank - 2) + ["2", "8"])
    model = model_of(
        f"g (float[2, 8] x) => (float[{declared}] y) {{ y = Max(x, b) }}",
        weights={"b": np.array(values, np.float32).reshape(shape)},
    )
    assert check(engine, model, PASSES).ops == {"Max": 1}


def test_reversed_bounds_integers_and_several_operands_stay(engine: Engine) -> None:
    reversed_bounds = model_of(
        "g (float[2, 8] x) => (float[2, 8] y) { a = Clip(x, one, z)\n y = Relu(a) }",
        opset=13,
        weights={"one": np.float32(1), "z": np.float32(0)},
    )
    assert check(engine, reversed_bounds, PASSES).ops == {"Clip": 1, "Relu": 1}
    integers = model_of(
        "g (int32[2, 8] x) => (int32[2, 8] y) { y = Max(x, z) }", weights={"z": np.int32(0)}
    )
    assert check(engine, integers, PASSES).ops == {"Max": 1}
    three = model_of(
        "g (float[2, 8] x) => (float[2, 8] y) { y = Max(x, z, x) }", weights={"z": np.float32(0)}
    )
    assert check(engine, three, PASSES).ops == {"Max": 1}


def test_a_computed_bound_stays(engine: Engine) -> None:
    model = model_of("g (float[2, 8] x, float b) => (float[2, 8] y) { y = Clip(x, b) }")
    assert check(engine, model, PASSES).ops == {"Clip": 1}
