from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, linear
from tests.passes.harness import apply, check, model_of

PASSES = (dead_code.PASS, linear.PASS)
RNG = np.random.default_rng(3)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.asarray(RNG.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (2, 5), (2, 1)])
@pytest.mark.parametrize("expression", ["Add(p, c)", "Add(c, p)"])
def test_a_product_takes_an_addend_of_every_shape(
    engine: Engine, expression: str, shape: tuple[int, ...], opset: int
) -> None:
    model = model_of(
        f"g (float[2, 3] x) => (float[2, 5] y) {{ p = MatMul(x, w)\n y = {expression} }}",
        opset=opset,
        weights={"w": normal(3, 5), "c": normal(*shape)},
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1}


def test_computed_factors_and_addend_with_a_symbolic_batch(engine: Engine) -> None:
    model = model_of(
        """g (float[N, 3] x, float[3, 5] w, float[N, 5] z) => (float[N, 5] y) {
            p = MatMul(x, w)
            c = Relu(z)
            y = Add(p, c)
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Gemm": 1, "Relu": 1}


def test_the_sum_of_two_products_is_one_gemm_and_one_matmul(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] x) => (float[2, 5] y) {
            p = MatMul(x, v)
            q = MatMul(x, w)
            y = Add(p, q)
        }""",
        weights={"v": normal(3, 5), "w": normal(3, 5)},
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1, "MatMul": 1}


def test_a_gemm_without_c_takes_the_addend_and_keeps_alpha(engine: Engine) -> None:
    model = model_of(
        """g (float[3, 2] x, float[2, 5] c) => (float[2, 5] y) {
            p = Gemm<transA=1, transB=1, alpha=0.5, beta=3.0>(x, w)
            y = Add(p, c)
        }""",
        weights={"w": normal(5, 3)},
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1}


def test_a_gemm_with_c_keeps_the_addition(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] x, float[2, 5] c) => (float[2, 5] y) {
            p = Gemm(x, w, c)
            y = Add(p, c)
        }""",
        weights={"w": normal(3, 5)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Gemm": 1, "Add": 1}
    assert outcome.reasons == ["Gemm has a C already"]


@pytest.mark.parametrize(
    ("declared", "fed"), [("1, 5", (1, 5)), ("N, 5", (1, 5)), ("M, 5", (2, 5)), ("2, 1, 5", None)]
)
def test_an_addend_that_may_enlarge_the_product_stays(
    engine: Engine, declared: str, fed: tuple[int, ...] | None
) -> None:
    rows = "N" if declared == "M, 5" else "1"
    shape = "2, 1, 5" if fed is None else "a, 5"
    model = model_of(
        f"""g (float[{rows}, 3] x, float[{declared}] c) => (float[{shape}] y) {{
            p = MatMul(x, w)
            y = Add(p, c)
        }}""",
        weights={"w": normal(3, 5)},
    )
    feeds = {"x": normal(1, 3), "c": normal(*(fed or (2, 1, 5)))}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == ({"Gemm": 1} if declared == "1, 5" else {"MatMul": 1, "Add": 1})


def test_products_of_higher_rank_stay(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 4, 3] x) => (float[2, 4, 5] y) { p = MatMul(x, w)\n y = Add(p, c) }",
        weights={"w": normal(3, 5), "c": normal(5)},
    )
    assert check(engine, model, PASSES).ops == {"MatMul": 1, "Add": 1}


def test_a_product_with_a_second_reader_or_as_output_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] x) => (float[2, 5] y, float[2, 5] p) {
            p = MatMul(x, w)
            y = Add(p, c)
        }""",
        weights={"w": normal(3, 5), "c": normal(5)},
    )
    assert check(engine, model, PASSES).ops == {"MatMul": 1, "Add": 1}
    doubled = model_of(
        "g (float[2, 3] x) => (float[2, 5] y) { p = MatMul(x, w)\n y = Add(p, p) }",
        weights={"w": normal(3, 5)},
    )
    assert check(engine, doubled, PASSES).ops == {"MatMul": 1, "Add": 1}


def test_integers_stay(engine: Engine) -> None:
    model = model_of(
        "g (int32[2, 3] x) => (int32[2, 5] y) { p = MatMul(x, w)\n y = Add(p, c) }",
        weights={"w": np.ones((3, 5), np.int32), "c": np.ones(5, np.int32)},
    )
    assert check(engine, model, PASSES).ops == {"MatMul": 1, "Add": 1}


def test_a_quantized_product_stays(engine: Engine) -> None:
    model = model_of(
        """g (uint8[2, 3] x) => (float[2, 5] y) {
            d = DequantizeLinear(x, s)
            p = MatMul(d, w)
            y = Add(p, c)
        }""",
        weights={"s": np.float32(0.1), "w": normal(3, 5), "c": normal(5)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"DequantizeLinear": 1, "MatMul": 1, "Add": 1}
    assert outcome.reasons == ["a factor is dequantized"]


@pytest.mark.parametrize("layer", ["MatMul(a, w)", "Gemm(a, w)", "Gemm<alpha=2.0>(a, w, c)"])
@pytest.mark.parametrize("perm", ["<perm=[1, 0]>", ""])
def test_a_transposed_left_factor_is_read_as_it_is(engine: Engine, layer: str, perm: str) -> None:
    model = model_of(
        f"g (float[3, 2] x) => (float[2, 5] y) {{ a = Transpose{perm}(x)\n y = {layer} }}",
        weights={"w": normal(3, 5), "c": normal(5)},
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1}


def test_transposed_factors_that_are_computed_are_read_as_they_are(engine: Engine) -> None:
    model = model_of(
        """g (float[3, 2] x, float[3, 5] z) => (float[2, 5] y) {
            a = Transpose(x)
            y = MatMul(a, z)
        }"""
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1}
    flipped = model_of(
        """g (float[2, 3] x, float[3, 5] z) => (float[2, 5] y) {
            b = Transpose(z)
            y = Gemm<transB=1>(x, b)
        }"""
    )
    assert check(engine, flipped, PASSES).ops == {"Gemm": 1}


def test_a_transpose_with_another_reader_an_old_opset_or_rank_3_stays(engine: Engine) -> None:
    shared = model_of(
        """g (float[3, 2] x) => (float[2, 5] y, float[2, 3] z) {
            a = Transpose(x)
            y = MatMul(a, w)
            z = Relu(a)
        }""",
        weights={"w": normal(3, 5)},
    )
    assert check(engine, shared, PASSES).ops["Transpose"] == 1
    text = "g (float[3, 2] x) => (float[2, 5] y) { a = Transpose(x)\n y = MatMul(a, w) }"
    old = model_of(text, opset=9, weights={"w": normal(3, 5)})
    assert check(engine, old, PASSES).ops["Transpose"] == 1
    batched = model_of(
        """g (float[4, 3, 2] x) => (float[4, 2, 5] y) {
            a = Transpose<perm=[0, 2, 1]>(x)
            y = MatMul(a, w)
        }""",
        weights={"w": normal(3, 5)},
    )
    assert check(engine, batched, PASSES).ops["Transpose"] == 1


def test_two_constant_products_are_one_where_that_is_smaller(engine: Engine) -> None:
    text = "g (float[N, 7, 4] x) => (float[N, 7, K] y) { p = MatMul(x, v)\n y = MatMul(p, w) }"
    smaller = model_of(text, weights={"v": normal(4, 8), "w": normal(8, 3)})
    outcome = check(engine, smaller, PASSES)
    assert outcome.ops == {"MatMul": 1}
    factorized = model_of(text, weights={"v": normal(4, 1), "w": normal(1, 6)})
    assert check(engine, factorized, PASSES).ops == {"MatMul": 2}


def test_a_product_of_half_precision_weights_that_overflows_stays(engine: Engine) -> None:
    model = model_of(
        "g (float16[2, 4] x) => (float16[2, 3] y) { p = MatMul(x, v)\n y = MatMul(p, w) }",
        weights={"v": np.full((4, 8), 200, np.float16), "w": np.full((8, 3), 200, np.float16)},
    )
    assert apply(engine, model, PASSES).ops == {"MatMul": 2}


def test_inside_a_branch_an_outer_addend_is_taken(engine: Engine) -> None:
    model = model_of(
        """g (bool k, float[2, 3] x, float[2, 5] z) => (float[2, 5] y) {
            c = Relu(z)
            y = If(k) <
                then_branch = t () => (float[2, 5] p) { q = MatMul(x, w)\n p = Add(q, c) },
                else_branch = e () => (float[2, 5] r) { r = Neg(c) }
            >
        }""",
        weights={"w": normal(3, 5)},
    )
    assert check(engine, model, PASSES).ops == {"Relu": 1, "If": 1, "Gemm": 1, "Neg": 1}
