"""Affine arithmetic after a layer, and around one: folded into its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ort_optim.engine import Engine
from ort_optim.passes import affine, dead_code
from tests.passes.harness import apply, check, model_of

PASSES = (dead_code.PASS, affine.PASS)


RNG = np.random.default_rng(11)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.asarray(RNG.standard_normal(shape)).astype(dtype)


CASES = ("Mul(c, k)", "Mul(k, c)", "Div(c, k)", "Add(c, k)", "Add(k, c)", "Sub(c, k)", "Sub(k, c)")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (4, 1, 1), (1, 4, 1, 1), (1, 1)])
@pytest.mark.parametrize("expression", CASES)
def test_conv_takes_every_operator_and_operand_order(
    engine: Engine, expression: str, shape: tuple[int, ...]
) -> None:
    model = model_of(
        f"""g (float[2, 3, 5, 5] x) => (float[2, 4, 3, 3] y) {{
            c = Conv(x, w, b)
            y = {expression}
        }}""",
        weights={"w": normal(4, 3, 3, 3), "b": normal(4), "k": normal(*shape)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


def test_a_constant_divided_by_the_conv_and_a_division_by_zero_stay(engine: Engine) -> None:
    weights = {"w": normal(4, 3, 3, 3), "k": normal(4, 1, 1), "z": np.zeros((4, 1, 1), np.float32)}
    for expression in ("Div(k, c)", "Div(c, z)"):
        model = model_of(
            f"""g (float[2, 3, 5, 5] x) => (float[2, 4, 3, 3] y) {{
                c = Conv(x, w)
                y = {expression}
            }}""",
            weights=weights,
        )
        outcome = apply(engine, model, PASSES)
        assert outcome.ops == {"Conv": 1, "Div": 1}
        assert outcome.reasons


@pytest.mark.parametrize(
    ("op", "attributes", "in_shape", "weight", "out_shape", "constant"),
    [
        ("Conv", "", (1, 2, 6), (4, 2, 3), (1, 4, 4), (4, 1)),
        ("Conv", "<group=2>", (1, 4, 3, 3, 3), (6, 2, 2, 2, 2), (1, 6, 2, 2, 2), (6, 1, 1, 1)),
        ("ConvTranspose", "<group=2>", (1, 4, 4, 4), (4, 3, 3, 3), (1, 6, 6, 6), (1, 6, 1, 1)),
        ("Gemm", "<transB=1>", (2, 3), (5, 3), (2, 5), (5,)),
        ("Gemm", "<alpha=0.5>", (2, 3), (3, 5), (2, 5), (1, 5)),
        ("MatMul", "", (2, 3), (3, 5), (2, 5), (1, 5)),
    ],
)
def test_a_chain_of_four_folds_into_every_layer(
    engine: Engine,
    op: str,
    attributes: str,
    in_shape: tuple[int, ...],
    weight: tuple[int, ...],
    out_shape: tuple[int, ...],
    constant: tuple[int, ...],
) -> None:
    model = model_of(
        f"""g (float{list(in_shape)} x) => (float{list(out_shape)} y) {{
            c = {op}{attributes}(x, w)
            m = Mul(c, k1)
            a = Add(k2, m)
            d = Div(a, k3)
            y = Sub(d, k4)
        }}""",
        weights={"w": normal(*weight), **{f"k{i}": normal(*constant) + 2 for i in range(1, 5)}},
    )
    folded = "Gemm" if op == "MatMul" else op
    assert check(engine, model, PASSES).ops == {folded: 1}


def test_a_normalization_takes_a_factor_and_a_term(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 4, 3] x) => (float[2, 4, 3] y) {
            b = BatchNormalization(x, s, o, m, v)
            p = Mul(b, k)
            y = Add(p, k)
        }""",
        weights={
            "s": normal(4), "o": normal(4), "m": normal(4), "v": np.ones(4, np.float32),
            "k": normal(4, 1),
        },
    )  # fmt: skip
    assert check(engine, model, PASSES).ops == {"BatchNormalization": 1}


@pytest.mark.parametrize(
    "shape", [(3,), (1, 1, 3), (4, 1, 3), (4, 3, 1), (1, 1, 1, 1, 1), (2, 4, 1, 1), (1, 4, 3, 3)]
)
def test_a_constant_that_varies_elsewhere_or_adds_dimensions_stays(
    engine: Engine, shape: tuple[int, ...]
) -> None:
    model = model_of(
        """g (float[2, 3, 5, 5] x) => (float[a, b] y) { c = Conv(x, w)\n m = Mul(c, k)
            y = Flatten(m) }""",
        weights={"w": normal(4, 3, 3, 3), "k": normal(*shape)},
    )
    outcome = check(engine, model, PASSES, rtol=1e-4)
    assert outcome.ops["Mul"] == 1
    assert outcome.reasons


def test_one_channel_that_is_broadcast_to_many_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 5, 5] x) => (float[2, 4, 3, 3] y) { c = Conv(x, w)\n y = Mul(c, k) }",
        weights={"w": normal(1, 3, 3, 3), "k": normal(4, 1, 1)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1, "Mul": 1}


def test_matmul_of_higher_rank_takes_a_factor_but_no_term(engine: Engine) -> None:
    weights = {"w": normal(3, 4), "k": normal(4)}
    factor = model_of(
        "g (float[N, 5, 3] x) => (float[N, 5, 4] y) { c = MatMul(x, w)\n y = Mul(c, k) }",
        weights=weights,
    )
    assert check(engine, factor, PASSES).ops == {"MatMul": 1}
    term = model_of(
        "g (float[N, 5, 3] x) => (float[N, 5, 4] y) { c = MatMul(x, w)\n y = Add(c, k) }",
        weights=weights,
    )
    assert check(engine, term, PASSES).ops == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("expression", ["Mul(a, k)", "Div(a, k)", "Mul(k, a)"])
def test_a_factor_goes_through_the_bias_of_a_matmul(engine: Engine, expression: str) -> None:
    model = model_of(
        f"""g (float[2, 5, 3] x) => (float[2, 5, 4] y) {{
            c = MatMul(x, w)
            a = Add(b, c)
            y = {expression}
        }}""",
        weights={"w": normal(3, 4), "b": normal(4), "k": np.float32(0.125)},
    )
    assert check(engine, model, PASSES).ops == {"MatMul": 1, "Add": 1}


def test_a_factor_does_not_go_through_a_bias_that_others_read(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 5, 3] x) => (float[2, 5, 4] y, float[2, 5, 4] a) {
            c = MatMul(x, w)
            a = Add(b, c)
            y = Mul(a, k)
        }""",
        weights={"w": normal(3, 4), "b": normal(4), "k": np.float32(0.125)},
    )
    assert check(engine, model, PASSES).ops == {"MatMul": 1, "Add": 1, "Mul": 1}


def test_several_readers_keep_the_arithmetic(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 3, 5, 5] x) => (float[1, 4, 3, 3] y, float[1, 4, 3, 3] z) {
            c = Conv(x, w)
            y = Mul(c, k)
            z = Add(c, k)
        }""",
        weights={"w": normal(4, 3, 3, 3), "k": normal(4, 1, 1)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1, "Mul": 1, "Add": 1}


def test_a_square_of_the_conv_is_not_a_factor(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 3, 5, 5] x) => (float[1, 4, 3, 3] y) { c = Conv(x, w)\n y = Mul(c, c) }",
        weights={"w": normal(4, 3, 3, 3)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1, "Mul": 1}


def test_a_graph_output_keeps_its_name(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 3, 5, 5] x) => (float[1, 4, 3, 3] out) { c = Conv(x, w)\n out = Mul(c, k) }",
        weights={"w": normal(4, 3, 3, 3), "k": normal(4, 1, 1)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.model.graph.node[0].output == ["out"]


def test_half_precision_is_folded_unless_it_underflows(engine: Engine) -> None:
    text = """g (float16[1, 3, 5, 5] x) => (float16[1, 4, 3, 3] y) {
        c = Conv(x, w)
        y = Mul(c, k)
    }"""
    weights = {"w": normal(4, 3, 3, 3, dtype=np.float16), "k": np.float16(0.3)}
    assert check(engine, model_of(text, weights=weights), PASSES, rtol=4e-3).ops == {"Conv": 1}
    weights["k"] = np.float16(1e-6)
    assert apply(engine, model_of(text, weights=weights), PASSES).ops == {"Conv": 1, "Mul": 1}


def test_integers_and_old_broadcasting_stay(engine: Engine) -> None:
    integers = model_of(
        "g (int32[2, 3] x) => (int32[2, 4] y) { c = MatMul(x, w)\n y = Mul(c, k) }",
        weights={"w": np.ones((3, 4), np.int32), "k": np.int32(3)},
    )
    assert check(engine, integers, PASSES).ops == {"MatMul": 1, "Mul": 1}
    legacy = model_of(
        """g (float[1, 3, 5, 5] x) => (float[1, 4, 3, 3] y) {
            c = Conv(x, w)
            y = Mul<broadcast=1, axis=1>(c, k)
        }""",
        opset=6,
        weights={"w": normal(4, 3, 3, 3), "k": normal(4)},
    )
    assert apply(engine, legacy, PASSES).ops == {"Conv": 1, "Mul": 1}


@pytest.mark.parametrize(
    "body",
    [
        "u = Div(x, k)\n e = Erf(u)\n p = Add(e, k)\n m = Mul(x, p)\n c = Mul(m, k)",
        "s = Abs(x)\n t = Sqrt(s)\n n = Div(x, t)\n c = Mul(n, g)",
        "s = Abs(x)\n t = Sqrt(s)\n n = Div(x, t)\n m = Mul(n, g)\n c = Add(m, g)",
    ],
)
def test_the_end_of_what_the_runtime_fuses_stays(engine: Engine, body: str) -> None:
    model = model_of(
        f"g (float[2, 3] x) => (float[2, 4] y) {{ {body}\n y = MatMul(c, w) }}",
        weights={"w": normal(3, 4), "k": np.float32(0.5), "g": normal(3)},
    )
    outcome = check(engine, model, PASSES)
    assert not outcome.context.rewrites
    assert outcome.reasons == ["ONNX Runtime fuses it with what comes before"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**20),
    group=st.sampled_from([1, 2, 4]),
    transposed=st.booleans(),
    chain=st.lists(
        st.sampled_from(["Mul", "Add", "Sub", "Div", "rMul", "rAdd", "rSub"]), max_size=4
    ),
    ahead=st.lists(st.sampled_from(["Mul", "Div", "Add"]), max_size=2),
    per_channel=st.booleans(),
)
def test_any_chain_around_any_convolution_agrees(
    engine: Engine,
    seed: int,
    group: int,
    transposed: bool,
    chain: list[str],
    ahead: list[str],
    per_channel: bool,
) -> None:
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal(
            (4, 8 // group, 3, 2) if transposed else (8, 4 // group, 3, 2)
        ).astype(np.float32)
    }
    lines, current = [], "x"
    for index, step in enumerate([*ahead, "layer", *chain]):
        name = f"t{index}"
        if step == "layer":
            op = "ConvTranspose" if transposed else "Conv"
            lines.append(f"{name} = {op}<group={group}>({current}, w)")
        else:
            channels = 8 if index > len(ahead) else 4
            value = rng.uniform(0.5, 2, (channels, 1, 1) if per_channel else ())
            weights[f"k{index}"] = value.astype(np.float32)
            operands = f"k{index}, {current}" if step.startswith("r") else f"{current}, k{index}"
            lines.append(f"{name} = {step.removeprefix('r')}({operands})")
        current = name
    body = "\n".join([*lines, f"y = Relu({current})"])
    model = model_of(
        f"g (float[2, 4, 5, 5] x) => (float[2, 8, h, v] y) {{ {body} }}", weights=weights
    )
    outcome = check(engine, model, PASSES, rtol=2e-5)
    left = sum(outcome.ops.values()) - 2
    assert left == 0 or (transposed and "Add" in ahead)
