from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import repeated_op
from tests.passes.harness import check, model_of

PASSES = (repeated_op.PASS,)

FEEDS = {"x": np.array([-11, -9, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 9, 11], np.float32)}


@pytest.mark.parametrize(
    ("inner", "outer", "left"),
    [
        ("Relu", "Relu", "Relu"),
        ("Abs", "Abs", "Abs"),
        ("Abs", "Relu", "Abs"),
        ("Relu", "Abs", "Relu"),
        ("Sigmoid", "Relu", "Sigmoid"),
        ("Sign", "Sign", "Sign"),
        ("Floor", "Floor", "Floor"),
        ("Ceil", "Round", "Ceil"),
        ("Round", "Floor", "Round"),
    ],
)
def test_an_operator_that_repeats_the_one_before_goes(
    engine: Engine, inner: str, outer: str, left: str
) -> None:
    model = model_of(f"g (float[10] x) => (float[10] y) {{ a = {inner}(x)\n y = {outer}(a) }}")
    assert check(engine, model, PASSES, feeds=FEEDS).ops == {left: 1}


@pytest.mark.parametrize(("op", "dtype"), [("Neg", "float"), ("Not", "bool"), ("Neg", "int64")])
def test_an_operator_that_undoes_itself_goes(engine: Engine, op: str, dtype: str) -> None:
    model = model_of(
        f"g ({dtype}[3] x) => ({dtype}[3] y) "
        f"{{ s = Identity(x)\n a = {op}(s)\n b = {op}(a)\n y = Identity(b) }}"
    )
    assert check(engine, model, PASSES).ops[op] < 2


@pytest.mark.parametrize(("inner", "outer"), [("Neg", "Abs"), ("Relu", "Sign"), ("Floor", "Relu")])
def test_different_operators_stay(engine: Engine, inner: str, outer: str) -> None:
    model = model_of(f"g (float[10] x) => (float[10] y) {{ a = {inner}(x)\n y = {outer}(a) }}")
    assert not check(engine, model, PASSES, feeds=FEEDS).context.rewrites


def test_an_operator_that_repeats_itself_in_a_branch_goes(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[10] x) => (float[10] y) {
            a = Relu(x)
            y = If(b) <
                then_branch = t () => (float[10] p) { s = Relu(a) p = Neg(s) },
                else_branch = e () => (float[10] q) { q = Abs(a) }
            >
        }"""
    )
    outcome = check(engine, model, PASSES, feeds={**FEEDS, "b": np.array(True)})
    assert outcome.ops == {"Relu": 1, "If": 1, "Neg": 1, "Abs": 1}
    assert outcome.reasons == ["a subgraph's output would be a tensor of the graph around"]
