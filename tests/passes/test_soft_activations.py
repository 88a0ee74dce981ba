from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, soft_activations
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, soft_activations.PASS)
EXPONENTIALS = {"Min": 1, "Exp": 1, "Add": 2, "Mul": 2, "Div": 1}

FEEDS = {
    "x": np.array(
        [-np.inf, -1e30, -100, -87, -20, -5, -1, -1e-4, 0, 1e-4, 1, 5, 19, 20, 21, 90, 1e30],
        np.float32,
    )
}


def graph(body: str, *, dtype: str = "float", opset: int = 17) -> Any:
    element = {"float": np.float32, "double": np.float64}[dtype]
    return model_of(
        f"g ({dtype}[17] x) => ({dtype}[17] y) {{ {body} }}",
        opset=opset,
        weights={"one": np.array(1, element)} if "one" in body else {},
    )


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ("s = Softplus(x)\n t = Tanh(s)\n y = Mul(x, t)", 11),
        ("s = Softplus(x)\n t = Tanh(s)\n y = Mul(t, x)", 17),
        ("y = Mish(x)", 18),
        ("y = Mish(x)", 22),
    ],
)
@pytest.mark.parametrize(("low", "high"), [(0, 9), (8, 17)])
def test_mish_agrees_over_the_whole_range(
    engine: Engine, body: str, opset: int, low: int, high: int
) -> None:
    values = np.resize(FEEDS["x"][max(low, 1) : high], 17)
    outcome = check(engine, graph(body, opset=opset), PASSES, feeds={"x": values}, rtol=2e-7)
    assert outcome.ops == EXPONENTIALS


def test_small_values_keep_their_relative_accuracy(engine: Engine) -> None:
    values = np.linspace(-30, 1, 17).astype(np.float32)
    model = graph("y = Mish(x)", opset=18)
    outcome = check(engine, model, PASSES, feeds={"x": values})
    handle = engine.open(outcome.model)
    got = engine.run(handle, {"x": values})["y"]
    engine.close(handle)
    wide = values.astype(np.float64)
    np.testing.assert_allclose(got, wide * np.tanh(np.log1p(np.exp(wide))), rtol=1e-6)


@pytest.mark.parametrize("denominator", ["Add(a, one)", "Add(one, a)"])
def test_softsign(engine: Engine, denominator: str) -> None:
    model = graph(f"a = Abs(x)\n d = {denominator}\n y = Div(x, d)")
    assert check(engine, model, PASSES).ops == {"Softsign": 1}


@pytest.mark.parametrize(
    "body",
    [
        "n = Neg(x)\n s = Softplus(n)\n t = Tanh(s)\n y = Mul(x, t)",
        "s = Softplus(x)\n t = Tanh(s)\n m = Mul(x, t)\n y = Add(m, t)",
        "s = Softplus(x)\n t = Tanh(s)\n m = Mul(x, t)\n y = Add(m, s)",
        "a = Abs(x)\n d = Add(a, one)\n y = Div(d, x)",
        "a = Abs(x)\n d = Add(a, one)\n q = Div(x, d)\n y = Add(q, a)",
        "a = Abs(x)\n d = Add(a, a)\n y = Div(x, d)",
    ],
)
def test_what_only_looks_like_them_stays(engine: Engine, body: str) -> None:
    feeds = {"x": np.linspace(0.5, 3, 17).astype(np.float32)}
    assert not check(engine, graph(body), PASSES, feeds=feeds).context.rewrites


def test_double_precision_stays(engine: Engine) -> None:
    model = graph("a = Abs(x)\n d = Add(a, one)\n y = Div(x, d)", dtype="double")
    assert not check(engine, model, PASSES).context.rewrites
