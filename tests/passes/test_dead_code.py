from __future__ import annotations

import numpy as np

from ort_optim.engine import Engine
from ort_optim.passes import dead_code
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS,)


def test_a_chain_that_nobody_reads_goes_with_its_weights(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] x) => (float[2, 3] y) {
            y = Relu(x)
            a = Mul(x, w)
            b = Neg(a)
        }""",
        weights={"w": np.ones(3, np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Relu": 1}
    assert not outcome.model.graph.initializer


def test_a_tensor_that_only_a_branch_reads_stays(engine: Engine) -> None:
    model = model_of(
        """g (bool c, float[2] x) => (float[2] y) {
            a = Neg(x)
            y = If(c) <
                then_branch = t () => (float[2] p) { p = Abs(a) },
                else_branch = e () => (float[2] q) { q = Relu(x) }
            >
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Neg": 1, "If": 1, "Abs": 1, "Relu": 1}


def test_without_fuel_nothing_is_removed(engine: Engine) -> None:
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x)\n a = Neg(x) }")
    assert check(engine, model, PASSES, limit=0).ops == {"Relu": 1, "Neg": 1}


def test_a_denied_rewrite_is_refused_by_name(engine: Engine) -> None:
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x)\n a = Neg(x)\n b = Abs(x) }")
    outcome = check(engine, model, PASSES, denied=frozenset({("dead-code", "a")}))
    assert outcome.ops == {"Relu": 1, "Neg": 1}
