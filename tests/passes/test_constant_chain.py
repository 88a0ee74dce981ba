from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import constant_chain
from tests.passes.harness import check, model_of

PASSES = (constant_chain.PASS,)

SUMS = ["Add({}, c)", "Add(c, {})", "Sub({}, c)", "Sub(c, {})"]
PRODUCTS = ["Mul({}, c)", "Mul(c, {})", "Div({}, c)"]


def _model(inner: str, outer: str, dtype: str, c: np.ndarray, d: np.ndarray) -> object:
    outer = outer.replace("c", "d")
    return model_of(
        f"g ({dtype}[2, 3] x) => ({dtype}[2, 3] y) "
        f"{{ t = {inner.format('x')}\n y = {outer.format('t')} }}",
        weights={"c": c, "d": d},
    )


@pytest.mark.parametrize("outer", SUMS)
@pytest.mark.parametrize("inner", SUMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_sums_of_constants_become_one(engine: Engine, inner: str, outer: str, dtype: str) -> None:
    c, d = np.array([[1], [2]], dtype), np.array([7, -4, 12], dtype)
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    model = _model(inner, outer, name, c, d)
    rtol = 2e-3 if dtype == "float16" else 1e-5  # two roundings to 11 bits instead of one
    outcome = check(engine, model, PASSES, rtol=rtol)  # type: ignore[arg-type]
    assert outcome.ops.total() == 1


@pytest.mark.parametrize("outer", PRODUCTS)
@pytest.mark.parametrize("inner", PRODUCTS)
def test_products_of_constants_become_one(engine: Engine, inner: str, outer: str) -> None:
    c, d = np.array([[3], [-2]], np.float32), np.array([0.5, 0.1, 30], np.float32)
    outcome = check(engine, _model(inner, outer, "float", c, d), PASSES)  # type: ignore[arg-type]
    assert outcome.ops == {"Mul": 1}


def test_integers_multiply_modulo_the_word(engine: Engine) -> None:
    c, d = np.array([2**20 + 1], np.int32), np.array([2**13 + 3], np.int32)
    model = _model("Mul({}, c)", "Mul({}, c)", "int32", c, d)
    assert check(engine, model, PASSES).ops == {"Mul": 1}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inner", "outer", "c", "d", "reason"),
    [
        ("Add({}, c)", "Sub({}, c)", 12582912, 12582912, "cancel"),
        ("Mul({}, c)", "Mul({}, c)", 1e30, 1e30, "overflow"),
        ("Mul({}, c)", "Mul({}, c)", 1e-30, 1e-30, "normal"),
        ("Mul({}, c)", "Mul({}, c)", 0, 2, "normal"),
        ("Add({}, c)", "Add({}, c)", np.inf, 2, "overflow"),
    ],
)
def test_constants_that_lose_precision_together_stay(
    engine: Engine, inner: str, outer: str, c: float, d: float, reason: str
) -> None:
    model = _model(inner, outer, "float", np.float32(c), np.float32(d))  # type: ignore[arg-type]
    outcome = check(engine, model, PASSES)  # type: ignore[arg-type]
    assert len(outcome.reasons) == 1
    assert reason in outcome.reasons[0]


@pytest.mark.parametrize(("inner", "outer"), [("Div({}, c)", "Mul({}, c)"), ("Div({}, c)",) * 2])
def test_integer_division_stays(engine: Engine, inner: str, outer: str) -> None:
    model = _model(inner, outer, "int32", np.int32(2), np.int32(3))  # type: ignore[arg-type]
    outcome = check(engine, model, PASSES)  # type: ignore[arg-type]
    assert outcome.reasons == ["a division of integers rounds"]


def test_sums_and_products_are_not_mixed(engine: Engine) -> None:
    model = _model("Mul({}, c)", "Add({}, c)", "float", np.float32(2), np.float32(3))  # type: ignore[arg-type]
    assert not check(engine, model, PASSES).context.rewrites  # type: ignore[arg-type]


def test_an_intermediate_that_is_read_elsewhere_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[3] x) => (float[3] y, float[3] t) { t = Mul(x, c)\n y = Mul(t, c) }",
        weights={"c": np.float32(3)},
    )
    assert check(engine, model, PASSES).ops == {"Mul": 2}


def test_constants_that_would_grow_stay(engine: Engine) -> None:
    model = model_of(
        "g (float[80, 80] x) => (float[80, 80] y) { t = Mul(x, c)\n y = Mul(t, d) }",
        weights={"c": np.full((80, 1), 2, np.float32), "d": np.full(80, 3, np.float32)},
    )
    assert check(engine, model, PASSES).reasons == ["the constants together would be larger"]
