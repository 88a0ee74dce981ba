"""Affine arithmetic before a layer: folded into its weights."""

from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from tests.passes.harness import check, model_of
from tests.passes.test_affine import CASES, PASSES, normal


@pytest.mark.parametrize("shape", [(), (1, 1, 1, 1), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("expression", [case.replace("c", "x") for case in CASES])
def test_an_unpadded_conv_takes_what_comes_before(
    engine: Engine, expression: str, shape: tuple[int, ...]
) -> None:
    model = model_of(
        f"""g (float[N, 3, 5, 5] x) => (float[N, 4, 3, 3] y) {{
            c = {expression}
            y = Conv(c, w, b)
        }}""",
        weights={"w": normal(4, 3, 3, 3), "b": normal(4), "k": normal(*shape)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


def test_a_padded_or_transposed_conv_takes_a_factor_but_no_term(engine: Engine) -> None:
    for conv in ("Conv<pads=[1, 1, 1, 1]>", "ConvTranspose"):
        weights = {"w": normal(3, 3, 3, 3), "k": normal(3, 1, 1)}
        factor = model_of(
            f"""g (float[1, 3, 5, 5] x) => (float[1, 3, h, v] y) {{
                c = Mul(x, k)
                y = {conv}(c, w)
            }}""",
            weights=weights,
        )
        assert sum(check(engine, factor, PASSES).ops.values()) == 1
        term = model_of(
            f"""g (float[1, 3, 5, 5] x) => (float[1, 3, h, v] y) {{
                c = Add(x, k)
                y = {conv}(c, w)
            }}""",
            weights=weights,
        )
        assert sum(check(engine, term, PASSES).ops.values()) == 2


def test_a_grouped_conv_takes_a_factor_per_input_channel(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) {
            c = Mul(x, k)
            y = Conv<group=2, pads=[1, 1, 1, 1]>(c, w)
        }""",
        weights={"w": normal(6, 2, 3, 3), "k": normal(4, 1, 1)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


@pytest.mark.parametrize("layer", ["Gemm<alpha=0.5>(c, w, b)", "MatMul(c, w)"])
@pytest.mark.parametrize("op", ["Mul", "Add"])
def test_a_matrix_layer_takes_what_comes_before(engine: Engine, layer: str, op: str) -> None:
    model = model_of(
        f"g (float[2, 3] x) => (float[2, 4] y) {{ c = {op}(x, k)\n y = {layer} }}",
        weights={"w": normal(3, 4), "b": normal(4), "k": normal(3)},
    )
    assert check(engine, model, PASSES).ops == {
        "Gemm" if op == "Add" else layer.split("<")[0].split("(")[0]: 1
    }


def test_a_channel_that_the_constant_may_create_stays(engine: Engine) -> None:
    for channels in ("1", "C"):
        model = model_of(
            f"""g (float[1, {channels}, 5, 5] x) => (float[1, 4, 3, 3] y) {{
                c = Mul(x, k)
                y = Conv(c, w)
            }}""",
            weights={"w": normal(4, 3, 3, 3), "k": normal(3, 1, 1)},
        )
        feeds = {"x": normal(1, 1, 5, 5)}
        outcome = check(engine, model, PASSES, feeds=feeds)
        assert outcome.ops == {"Conv": 1, "Mul": 1}


def test_an_input_of_unknown_rank_keeps_a_constant_per_channel(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 6] x, int64[R] shape) => (float[a, 4] y) {
            r = Reshape(x, shape)
            c = Mul(r, k)
            y = MatMul(c, w)
        }""",
        weights={"w": normal(3, 4), "k": normal(3)},
    )
    feeds = {"x": normal(2, 6), "shape": np.array([4, 3])}
    assert check(engine, model, PASSES, feeds=feeds).ops == {"Reshape": 1, "Mul": 1, "MatMul": 1}


def test_a_constant_that_feeds_the_weight_input_is_no_input_scale(engine: Engine) -> None:
    model = model_of(
        """g (float[4, 3, 3, 3] x) => (float[1, 4, 3, 3] y) {
            c = Mul(x, k)
            y = Conv(i, c)
        }""",
        weights={"i": normal(1, 3, 5, 5), "k": normal(3, 1, 1)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1, "Mul": 1}


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_a_vector_before_a_gemm_that_transposes_its_input_stays(engine: Engine, op: str) -> None:
    rng = np.random.default_rng(0)
    weights = {"c": rng.uniform(1, 2, 4), "w": rng.standard_normal((4, 3))}
    model = model_of(
        f"g (float[4,4] x) => (float[4,3] y) {{ a = {op}(x, c)\n y = Gemm<transA=1>(a, w) }}",
        weights={name: value.astype(np.float32) for name, value in weights.items()},
    )
    assert check(engine, model, PASSES).ops[op] == 1
    one = model_of(
        f"g (float[4,4] x) => (float[4,3] y) {{ a = {op}(x, c)\n y = Gemm<transA=1>(a, w) }}",
        weights={"c": np.float32(1.5), "w": weights["w"].astype(np.float32)},
    )
    assert check(engine, one, PASSES).ops[op] == 0
