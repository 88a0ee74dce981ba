from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import cheap_arithmetic, dead_code
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, cheap_arithmetic.PASS)


def graph(body: str, *, dtype: str = "float", opset: int = 17, **weights: Any) -> Any:
    element: Any = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    return model_of(
        f"g ({dtype}[2, 3, 4] x) => ({dtype}[2, 3, 4] y) {{ {body} }}",
        opset=opset,
        weights={name: np.asarray(value, element) for name, value in weights.items()},
    )


FEEDS = {"x": np.linspace(0.1, 9, 24).reshape(2, 3, 4).astype(np.float32)}


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 15, 21])
@pytest.mark.parametrize(
    ("exponent", "ops"),
    [
        (2.0, {"Mul": 1}),
        (0.5, {"Sqrt": 1}),
        (-1.0, {"Reciprocal": 1}),
        (-0.5, {"Sqrt": 1, "Reciprocal": 1}),
        (3.0, {"Pow": 1}),
        (0.75, {"Pow": 1}),
    ],
)
def test_powers_with_a_cheaper_form(
    engine: Engine, exponent: float, ops: dict[str, int], opset: int
) -> None:
    model = graph("y = Pow(x, e)", opset=opset, e=exponent)
    assert check(engine, model, PASSES, feeds=FEEDS).ops == ops


def test_an_integer_exponent_stays_and_one_in_brackets_goes(engine: Engine) -> None:
    model = graph("y = Pow(x, e)")
    model.graph.initializer.add().CopyFrom(
        model_of("g () => () {}", weights={"e": np.array([2], np.int64)}).graph.initializer[0]
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Pow": 1}
    assert check(engine, graph("y = Pow(x, e)", e=[[2]]), PASSES).ops == {"Mul": 1}


def test_an_exponent_of_higher_rank_or_several_elements_stays(engine: Engine) -> None:
    several = graph("y = Pow(x, e)", e=[2, 2, 2, 2])
    assert check(engine, several, PASSES).ops == {"Pow": 1}
    raised = model_of(
        "g (float[3] x) => (float[1, 3] y) { y = Pow(x, e) }", weights={"e": np.float32([[2]])}
    )
    assert check(engine, raised, PASSES).ops == {"Pow": 1}


def test_integers_to_the_power_of_two_stay(engine: Engine) -> None:
    model = model_of(
        "g (int32[3] x) => (int32[3] y) { y = Pow(x, e) }", weights={"e": np.float32(2)}
    )
    assert check(engine, model, PASSES).ops == {"Pow": 1}


def test_the_square_under_a_mean_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 4] x) => (float[2, 1] y) {
            q = Pow(x, two)
            y = ReduceMean<axes=[1]>(q)
        }""",
        weights={"two": np.float32(2)},
    )
    assert check(engine, model, PASSES).ops == {"Pow": 1, "ReduceMean": 1}


@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
@pytest.mark.parametrize("divisor", [8.0, [1.0, 2.0, -0.25, 4.0]])
def test_a_division_by_powers_of_two_is_exact(engine: Engine, dtype: str, divisor: Any) -> None:
    model = graph("y = Div(x, c)", dtype=dtype, c=divisor)
    assert check(engine, model, PASSES, rtol=0).ops == {"Mul": 1}


@pytest.mark.parametrize(
    ("body", "c"), [("y = Div(x, c)", 3.0), ("y = Div(x, c)", [2.0, 4.0, 6.0, 8.0]),
                    ("y = Div(c, x)", 2.0), ("y = Div(x, c)", 2.0**20)]
)  # fmt: skip
def test_other_divisions_stay(engine: Engine, body: str, c: Any) -> None:
    assert check(engine, graph(body, c=c), PASSES).ops == {"Div": 1}


def test_the_scale_of_attention_scores_stays(engine: Engine) -> None:
    model = graph("m = MatMul(x, w)\n y = Div(m, c)", w=np.eye(4), c=8.0)
    assert check(engine, model, PASSES).ops == {"MatMul": 1, "Div": 1}


@pytest.mark.parametrize("product", ["Mul(r, x)", "Mul(x, r)", "Mul(c, r)"])
def test_a_product_with_a_reciprocal_is_a_quotient(engine: Engine, product: str) -> None:
    model = graph(f"n = Exp(x)\n r = Reciprocal(n)\n y = {product}", c=[1.0, 2.0, 3.0, 4.0])
    assert check(engine, model, PASSES).ops == {"Exp": 1, "Div": 1}


def test_a_reciprocal_that_others_read_stays(engine: Engine) -> None:
    model = graph("r = Reciprocal(x)\n m = Mul(x, r)\n y = Add(m, r)")
    assert check(engine, model, PASSES).ops == {"Reciprocal": 1, "Mul": 1, "Add": 1}
    squared = graph("r = Reciprocal(x)\n y = Mul(r, r)")
    assert check(engine, squared, PASSES).ops == {"Reciprocal": 1, "Mul": 1}
