from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import batch_norm, dead_code
from tests.passes.harness import apply, check, model_of

PASSES = (dead_code.PASS, batch_norm.PASS)
RNG = np.random.default_rng(7)

Weights = dict[str, np.ndarray[Any, Any]]


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def statistics(channels: int, dtype: Any = np.float32) -> Weights:
    return {
        "scale": normal(channels, dtype=dtype),
        "offset": normal(channels, dtype=dtype),
        "mean": normal(channels, dtype=dtype),
        "var": (np.abs(RNG.standard_normal(channels)) + 0.5).astype(dtype),
    }


BN = "BatchNormalization<epsilon=0.01>(c, scale, offset, mean, var)"


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 17, 21])
def test_conv_takes_the_normalization_in_every_opset(engine: Engine, opset: int) -> None:
    model = model_of(
        f"""g (float[2, 3, 6, 5] x) => (float[2, 4, 6, 5] y) {{
            c = Conv<pads=[1, 1, 1, 1]>(x, w, b)
            y = {BN}
        }}""",
        opset=opset,
        weights={"w": normal(4, 3, 3, 3), "b": normal(4), **statistics(4)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


@pytest.mark.parametrize(
    ("op", "attributes", "in_shape", "weight", "out_shape"),
    [
        ("Conv", "group=2", (1, 4, 5, 5), (6, 2, 3, 3), (1, 6, 3, 3)),
        ("Conv", "group=4", (1, 4, 7), (4, 1, 2), (1, 4, 6)),
        ("Conv", "pads=[1,1,1,1,1,1]", (1, 2, 3, 3, 3), (3, 2, 3, 3, 3), (1, 3, 3, 3, 3)),
        ("ConvTranspose", "strides=[2,2]", (1, 3, 4, 4), (3, 5, 2, 2), (1, 5, 8, 8)),
        ("ConvTranspose", "group=2", (1, 4, 4, 4), (4, 3, 3, 3), (1, 6, 6, 6)),
        ("ConvTranspose", "group=3, output_padding=[1,1], strides=[2,2]",
         (1, 3, 4, 4), (3, 1, 3, 3), (1, 3, 10, 10)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("with_bias", [False, True])
def test_convolutions_of_every_kind_take_it(
    engine: Engine,
    op: str,
    attributes: str,
    in_shape: tuple[int, ...],
    weight: tuple[int, ...],
    out_shape: tuple[int, ...],
    with_bias: bool,
) -> None:
    channels = out_shape[1]
    bias = {"b": normal(channels)} if with_bias else {}
    model = model_of(
        f"""g (float{list(in_shape)} x) => (float{list(out_shape)} y) {{
            c = {op}<{attributes}>(x, w{", b" if with_bias else ""})
            y = {BN}
        }}""",
        weights={"w": normal(*weight), **bias, **statistics(channels)},
    )
    assert check(engine, model, PASSES).ops == {op: 1}


@pytest.mark.parametrize("attributes", ["", "<transB=1>", "<transA=1, alpha=0.5, beta=2.0>"])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,), ()])
def test_gemm_takes_it_with_every_bias(
    engine: Engine, attributes: str, bias: tuple[int, ...] | None
) -> None:
    x = "4, 2" if "transA" in attributes else "2, 4"
    model = model_of(
        f"""g (float[{x}] x) => (float[2, 5] y) {{
            c = Gemm{attributes}(x, w{", b" if bias is not None else ""})
            y = {BN}
        }}""",
        weights={
            "w": normal(5, 4) if "transB" in attributes else normal(4, 5),
            **({"b": np.asarray(normal(*bias))} if bias is not None else {}),
            **statistics(5),
        },
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1}


def test_matmul_of_a_matrix_becomes_gemm(engine: Engine) -> None:
    model = model_of(
        f"g (float[2, 4] x) => (float[2, 5] y) {{ c = MatMul(x, w)\n y = {BN} }}",
        weights={"w": normal(4, 5), **statistics(5)},
    )
    assert check(engine, model, PASSES).ops == {"Gemm": 1}


def test_matmul_of_higher_rank_normalizes_another_axis_and_keeps_it(engine: Engine) -> None:
    model = model_of(
        f"g (float[2, 5, 4] x) => (float[2, 5, 5] y) {{ c = MatMul(x, w)\n y = {BN} }}",
        weights={"w": normal(4, 5), **statistics(5)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"MatMul": 1, "BatchNormalization": 1}
    assert outcome.reasons == ["MatMul before it: its input is not a matrix"]


def test_two_normalizations_become_one(engine: Engine) -> None:
    model = model_of(
        f"""g (float[2, 4, 3] x) => (float[2, 4, 3] y) {{
            c = BatchNormalization(x, s2, o2, m2, v2)
            y = {BN}
        }}""",
        weights={
            **statistics(4),
            **{f"{name[0]}2": value for name, value in statistics(4).items()},
        },
    )
    assert check(engine, model, PASSES).ops == {"BatchNormalization": 1}


@pytest.mark.parametrize("batch", ["N", "2"])
def test_before_an_unpadded_conv_it_folds_forward(engine: Engine, batch: str) -> None:
    model = model_of(
        f"""g (float[{batch}, 4, 6, 6] c) => (float[{batch}, 2, 4, 4] y) {{
            n = {BN}
            y = Conv<group=2>(n, w)
        }}""",
        weights={"w": normal(2, 2, 3, 3), **statistics(4)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


@pytest.mark.parametrize(
    "conv", ["Conv<pads=[1,1,1,1]>", 'Conv<auto_pad="SAME_UPPER">', "ConvTranspose"]
)
def test_before_a_border_it_stays(engine: Engine, conv: str) -> None:
    model = model_of(
        f"g (float[1, 4, 6, 6] c) => (float[1, 4, h, w1] y) {{ n = {BN}\n y = {conv}(n, w) }}",
        weights={"w": normal(4, 4, 3, 3), **statistics(4)},
    )
    assert check(engine, model, PASSES).ops["BatchNormalization"] == 1


def test_before_gemm_and_matmul_it_folds_forward(engine: Engine) -> None:
    weights = {"w": normal(3, 4), "v": normal(4, 3), **statistics(4)}
    gemm = model_of(
        f"g (float[2, 4] c) => (float[2, 3] y) {{ n = {BN}\n y = Gemm<transB=1>(n, w) }}",
        weights=weights,
    )
    assert check(engine, gemm, PASSES).ops == {"Gemm": 1}
    matmul = model_of(
        f"g (float[2, 4] c) => (float[2, 3] y) {{ n = {BN}\n y = MatMul(n, v) }}", weights=weights
    )
    assert check(engine, matmul, PASSES).ops == {"Gemm": 1}


def test_a_padded_conv_takes_a_normalization_without_shift(engine: Engine) -> None:
    model = model_of(
        f"""g (float[1, 4, 6, 6] c) => (float[1, 2, 6, 6] y) {{
            n = {BN}
            y = Conv<pads=[1,1,1,1]>(n, w)
        }}""",
        weights={
            "w": normal(2, 4, 3, 3),
            **statistics(4),
            "offset": np.zeros(4, np.float32),
            "mean": np.zeros(4, np.float32),
        },
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


def test_a_second_reader_of_the_conv_keeps_both(engine: Engine) -> None:
    model = model_of(
        f"""g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y, float[1, 4, 2, 2] z) {{
            c = Conv(x, w)
            y = {BN}
            z = Relu(c)
        }}""",
        weights={"w": normal(4, 3, 3, 3), **statistics(4)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops["BatchNormalization"] == 1
    assert outcome.reasons == ["something else reads the output of Conv"]


def test_a_conv_that_is_a_graph_output_or_read_in_a_branch_keeps_both(engine: Engine) -> None:
    as_output = model_of(
        f"""g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y, float[1, 4, 2, 2] c) {{
            c = Conv(x, w)
            y = {BN}
        }}""",
        weights={"w": normal(4, 3, 3, 3), **statistics(4)},
    )
    assert check(engine, as_output, PASSES).ops["BatchNormalization"] == 1
    in_branch = model_of(
        f"""g (bool k, float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y) {{
            c = Conv(x, w)
            y = If(k) <
                then_branch = t () => (float[1, 4, 2, 2] p) {{ p = {BN} }},
                else_branch = e () => (float[1, 4, 2, 2] q) {{ q = Relu(c) }}
            >
        }}""",
        weights={"w": normal(4, 3, 3, 3), **statistics(4)},
    )
    assert check(engine, in_branch, PASSES).ops["BatchNormalization"] == 1


def test_inside_a_branch_outer_weights_are_folded(engine: Engine) -> None:
    model = model_of(
        f"""g (bool k, float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y) {{
            y = If(k) <
                then_branch = t () => (float[1, 4, 2, 2] p) {{ c = Conv(x, w)\n p = {BN} }},
                else_branch = e () => (float[1, 4, 2, 2] q) {{ q = Conv(x, w) }}
            >
        }}""",
        weights={"w": normal(4, 3, 3, 3), **statistics(4)},
    )
    for taken in (True, False):
        feeds = {"k": np.array(taken), "x": normal(1, 3, 4, 4)}
        assert check(engine, model, PASSES, feeds=feeds).ops == {"If": 1, "Conv": 2}


def test_a_shared_weight_is_not_copied_beyond_the_growth_limit(engine: Engine) -> None:
    model = model_of(
        f"""g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y, float[1, 4, 2, 2] z) {{
            c = Conv(x, w)
            y = {BN}
            z = Conv(x, w)
        }}""",
        weights={"w": normal(4, 3, 3, 3), **statistics(4)},
    )
    assert check(engine, model, PASSES).ops == {"Conv": 2}
    limited = check(engine, model, PASSES, max_growth_bytes=100)
    assert limited.ops["BatchNormalization"] == 1
    assert "grow" in limited.reasons[0]


def test_training_mode_and_per_activation_statistics_stay(engine: Engine) -> None:
    training = model_of(
        """g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y) {
            c = Conv(x, w)
            y, m1, v1 = BatchNormalization<training_mode=1>(c, scale, offset, mean, var)
        }""",
        opset=15,
        weights={"w": normal(4, 3, 3, 3), **statistics(4)},
    )
    assert apply(engine, training, PASSES).ops["BatchNormalization"] == 1
    per_activation = {name: normal(4, 2, 2) for name in ("scale", "offset", "mean")}
    spatial = model_of(
        """g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y) {
            c = Conv(x, w)
            y = BatchNormalization<spatial=0>(c, scale, offset, mean, var)
        }""",
        opset=7,
        weights={"w": normal(4, 3, 3, 3), **per_activation, "var": np.ones((4, 2, 2), np.float32)},
    )
    assert apply(engine, spatial, PASSES).ops["BatchNormalization"] == 1


def test_opset_6_needs_is_test(engine: Engine) -> None:
    for flag, left in ((0, 1), (1, 0)):
        model = model_of(
            f"""g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y) {{
                c = Conv(x, w)
                y = BatchNormalization<is_test={flag}>(c, scale, offset, mean, var)
            }}""",
            opset=6,
            weights={"w": normal(4, 3, 3, 3), **statistics(4)},
        )
        assert apply(engine, model, PASSES).ops["BatchNormalization"] == left


def test_computed_statistics_stay(engine: Engine) -> None:
    model = model_of(
        f"""g (float[1, 3, 4, 4] x, float[4] mean) => (float[1, 4, 2, 2] y) {{
            c = Conv(x, w)
            y = {BN}
        }}""",
        weights={
            "w": normal(4, 3, 3, 3),
            **{name: value for name, value in statistics(4).items() if name != "mean"},
        },
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops["BatchNormalization"] == 1
    assert outcome.reasons == ["its parameters are not constants"]


def test_a_weight_that_would_overflow_half_precision_stays(engine: Engine) -> None:
    weights = {"w": normal(4, 3, 1, 1, dtype=np.float16), **statistics(4, np.float16)}
    text = f"""g (float16[1, 3, 4, 4] x) => (float16[1, 4, 4, 4] y) {{
        c = Conv(x, w)
        y = {BN}
    }}"""
    fine = model_of(text, weights=weights)
    assert check(engine, fine, PASSES, rtol=4e-3).ops == {"Conv": 1}
    weights["w"] = weights["w"] * np.float16(6e4 / np.abs(weights["w"]).max())
    weights["scale"] = np.full(4, 50, np.float16)
    outcome = apply(engine, model_of(text, weights=weights), PASSES)
    assert outcome.ops["BatchNormalization"] == 1
    assert outcome.reasons == ["Conv before it: a weight would lose precision or overflow"]


def test_double_precision_is_kept(engine: Engine) -> None:
    model = model_of(
        f"g (double[2, 4] x) => (double[2, 5] y) {{ c = Gemm(x, w)\n y = {BN} }}",
        weights={"w": normal(4, 5, dtype=np.float64), **statistics(5, np.float64)},
    )
    assert check(engine, model, PASSES, rtol=1e-13).ops == {"Gemm": 1}


def test_a_quantized_weight_stays(engine: Engine) -> None:
    model = model_of(
        f"""g (float[1, 3, 4, 4] x) => (float[1, 4, 2, 2] y) {{
            w = DequantizeLinear(wq, ws)
            c = Conv(x, w)
            y = {BN}
        }}""",
        weights={
            "wq": RNG.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8),
            "ws": np.float32(0.01),
            **statistics(4),
        },
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops["BatchNormalization"] == 1
    assert outcome.reasons == ["Conv before it: its weight is not a constant"]
