from __future__ import annotations

import numpy as np
import onnx

from ort_optim.engine import Engine
from ort_optim.passes import duplicate_weights
from tests.passes.harness import check, model_of

PASSES = (duplicate_weights.PASS,)


def _names(model: onnx.ModelProto) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer]


def test_equal_weights_become_one(engine: Engine) -> None:
    big = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    other = big.copy()
    other[13, 7] += 1  # no sampled element
    model = model_of(
        """g (float[2, 40] x) => (float[2, 30] y) {
            a = MatMul(x, p)
            b = MatMul(x, q)
            c = MatMul(x, r)
            d = Add(a, b)
            y = Sub(d, c)
        }""",
        weights={"p": big, "q": big, "r": other},
    )
    outcome = check(engine, model, PASSES)
    assert _names(outcome.model) == ["p", "r"]


def test_type_shape_and_the_sign_of_zero_tell_weights_apart(engine: Engine) -> None:
    zero = np.zeros(2, np.float32)
    model = model_of(
        """g (float[2] x, int32[2] i) => (float[2] y, float[1, 2] z, int32[2] j) {
            a = Add(x, p)
            y = Add(a, q)
            z = Add(a, r)
            j = Add(i, s)
        }""",
        weights={"p": zero, "q": -zero, "r": zero.reshape(1, 2), "s": zero.astype(np.int32)},
    )
    assert len(_names(check(engine, model, PASSES).model)) == 4


def test_nan_equals_itself(engine: Engine) -> None:
    nan = np.array([np.nan, 1], np.float32)
    model = model_of(
        "g (float[2] x) => (bool[2] y) { a = Less(x, p)\n b = Less(q, x)\n y = Or(a, b) }",
        weights={"p": nan, "q": nan},
    )
    assert _names(check(engine, model, PASSES).model) == ["p"]


def test_equal_strings_become_one(engine: Engine) -> None:
    model = model_of(
        "g (int64[1] i) => (string[1] y, string[1] z) { y = Gather(p, i)\n z = Gather(q, i)\n }",
        weights={
            "p": np.array(["a", "b", "c", "d"], object),
            "q": np.array(["a", "b", "c", "d"], object),
        },
    )
    assert _names(check(engine, model, PASSES).model) == ["p"]


def test_weights_of_a_branch_give_way_to_outer_ones(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            a = Add(x, w)
            y = If(b) <
                then_branch = t () => (float[2] p) <float[2] v = {1.0, 2.0}> { p = Mul(a, v) },
                else_branch = e () => (float[2] q) <float[2] u = {1.0, 2.0}> { q = Sub(a, u) }
            >
        }""",
        weights={"w": np.array([1, 2], np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert _names(outcome.model) == ["w"]
    branches = [a.g for n in outcome.model.graph.node for a in n.attribute]
    assert not any(branch.initializer for branch in branches)


def test_weights_of_two_branches_stay_apart(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            y = If(b) <
                then_branch = t () => (float[2] p) <float[2] v = {1.0, 2.0}> { p = Mul(x, v) },
                else_branch = e () => (float[2] q) <float[2] u = {1.0, 2.0}> { q = Sub(x, u) }
            >
        }"""
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_a_weight_that_is_an_output_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[2] q) { a = Add(x, p)\n y = Mul(a, q) }",
        weights={"p": np.ones(2, np.float32), "q": np.ones(2, np.float32)},
    )
    assert len(_names(check(engine, model, PASSES).model)) == 2


def test_a_node_that_reads_both_copies_reads_one_twice(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) { y = Sum(x, p, q) }",
        weights={"p": np.ones(2, np.float32), "q": np.ones(2, np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert list(outcome.model.graph.node[0].input) == ["x", "p", "p"]
