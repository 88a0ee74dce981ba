from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import neutral_operand
from tests.passes.harness import check, model_of

PASSES = (neutral_operand.PASS,)


@pytest.mark.parametrize("dtype", ["float", "float16", "double", "int32"])
@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("Add(a, c)", 0),
        ("Add(c, a)", 0),
        ("Sub(a, c)", 0),
        ("Mul(a, c)", 1),
        ("Mul(c, a)", 1),
        ("Div(a, c)", 1),
        ("Pow(a, c)", 1),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_a_neutral_constant_goes(
    engine: Engine, dtype: str, body: str, value: int, shape: tuple[int, ...]
) -> None:
    if dtype == "float16" and body.startswith("Pow"):
        pytest.skip("ONNX Runtime has no such kernel")
    text = f"g ({dtype}[2, 3] x) => ({dtype}[2, 3] y) {{ a = Neg(x)\n t = {body}\n y = Abs(t) }}"
    numpy_name = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    model = model_of(text, weights={"c": np.full(shape, value, numpy_name)})
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Abs": 1}


@pytest.mark.parametrize("body", ["Sub(c, a)", "Div(d, a)", "Pow(d, a)", "Mul(a, e)"])
def test_other_constants_and_sides_stay(engine: Engine, body: str) -> None:
    model = model_of(
        f"g (float[2, 3] x) => (float[2, 3] y) {{ a = Neg(x)\n y = {body} }}",
        weights={
            "c": np.float32(0),
            "d": np.float32(1),
            "e": np.array([1, 1, 1.0000001], np.float32),
        },
    )
    assert not check(engine, model, PASSES).context.rewrites


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 1, 3), (1, 1, 1)])
def test_a_constant_that_broadcasts_stays(engine: Engine, shape: tuple[int, ...]) -> None:
    model = model_of(
        "g (float[1, 3] x) => (float[A, B, C] y) { a = Neg(x)\n y = Mul(a, c) }",
        weights={"c": np.ones(shape, np.float32)},
    )
    assert check(engine, model, PASSES).reasons == ["broadcasting may change the shape"]


def test_one_value_is_neutral_whatever_the_dimensions(engine: Engine) -> None:
    model = model_of(
        "g (float[N, M] x) => (float[N, M] y) { a = Neg(x)\n y = Mul(a, c) }",
        weights={"c": np.ones((1, 1), np.float32)},
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1}


def test_a_row_of_ones_stays_where_the_rows_may_be_of_length_one(engine: Engine) -> None:
    model = model_of(
        "g (float[N, M] x) => (float[N, 2] y) { a = Neg(x)\n y = Mul(a, c) }",
        weights={"c": np.ones(2, np.float32)},
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Mul": 1}


def test_zero_added_to_a_divisor_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[3] x) => (float[3] y) { a = Neg(x)\n t = Add(a, c)\n y = Div(x, t) }",
        weights={"c": np.zeros(3, np.float32)},
    )
    feeds = {"x": np.array([0.5, 1.0, -2.0], np.float32)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.reasons == ["the result is a divisor, where the sign of zero matters"]


@pytest.mark.parametrize(
    ("body", "value"), [("And(a, c)", True), ("Or(c, a)", False), ("Xor(a, c)", False)]
)
def test_neutral_truth_values_go(engine: Engine, body: str, value: bool) -> None:
    model = model_of(
        f"g (bool[3] x) => (bool[3] y) {{ a = Not(x)\n y = {body} }}",
        weights={"c": np.array([value])},
    )
    assert check(engine, model, PASSES).ops == {"Not": 1}


@pytest.mark.parametrize(("value", "kept"), [(True, "Neg"), (False, "Abs")])
def test_a_choice_made_in_advance_goes(engine: Engine, value: bool, kept: str) -> None:
    model = model_of(
        "g (float[2, 3] x) => (float[2, 3] y) "
        "{ a = Neg(x)\n b = Abs(x)\n t = Where(c, a, b)\n y = Relu(t) }",
        weights={"c": np.array([value])},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops["Where"] == 0
    relu = next(node for node in outcome.model.graph.node if node.op_type == "Relu")
    maker = next(node for node in outcome.model.graph.node if node.output[0] == relu.input[0])
    assert maker.op_type == kept


def test_a_choice_that_broadcasts_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 3] x, float[2, 3] z) => (float[2, 3] y) { a = Neg(x)\n y = Where(c, a, z) }",
        weights={"c": np.array([True])},
    )
    assert check(engine, model, PASSES).reasons == ["broadcasting may change the shape"]


def test_a_mixed_condition_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[3] x, float[3] z) => (float[3] y) { y = Where(c, x, z) }",
        weights={"c": np.array([True, False, True])},
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_what_onnx_runtime_fuses_keeps_its_vectors(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) {
            p = MatMul(x, w)
            y = Add(p, zeros)
        }""",
        weights={"w": np.ones((4, 4), np.float32), "zeros": np.zeros(4, np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"MatMul": 1, "Add": 1}
    assert "fuses it" in outcome.reasons[0]


def test_a_scale_of_ones_behind_a_normalization_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 4] d, float[2, 1] v) => (float[2, 4] y) {
            a = Abs(v)
            s = Sqrt(a)
            q = Div(d, s)
            m = Mul(q, ones)
            y = Add(m, zeros)
        }""",
        weights={"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)},
    )
    assert check(engine, model, PASSES).ops["Mul"] == 1
