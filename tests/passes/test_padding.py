from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, padding
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, padding.PASS)
RNG = np.random.default_rng(5)


def pads(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


AROUND = pads(0, 0, 1, 2, 0, 0, 3, 0)


def graph(body: str, *, opset: int = 17, **weights: np.ndarray[Any, Any]) -> Any:
    return model_of(
        f"g (float[1, 2, 8, 9] x) => (float[N, C, h, v] y) {{ {body} }}",
        opset=opset,
        weights={name: value for name, value in weights.items() if name in body},
    )


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18, 21])
@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "pads=[1, 0, 0, 2]",
        'auto_pad="VALID"',
        'auto_pad="SAME_UPPER", strides=[2, 2]',
        'auto_pad="SAME_LOWER", strides=[3, 2], dilations=[1, 1]',
        "dilations=[2, 1], strides=[2, 2]",
    ],
)
def test_conv_takes_the_padding(engine: Engine, attributes: str, opset: int) -> None:
    pad = "Pad<pads=[0,0,1,2,0,0,3,0]>(x)" if opset < 11 else "Pad(x, around)"
    model = graph(
        f"p = {pad}\n y = Conv<kernel_shape=[3, 2]{', ' * bool(attributes)}{attributes}>(p, w)",
        opset=opset,
        around=AROUND,
        w=RNG.standard_normal((3, 2, 3, 2)).astype(np.float32),
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


def test_pads_by_axes_and_an_explicit_zero(engine: Engine) -> None:
    model = graph(
        "p = Pad(x, around, zero, axes)\n y = Conv(p, w)",
        opset=18,
        around=pads(1, 2, 0, 1),
        zero=np.zeros((), np.float32),
        axes=pads(-1, 2),
        w=RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1}


@pytest.mark.parametrize(
    "attributes", ["", "strides=[2, 2]", "pads=[0, 0, 0, 2], count_include_pad=1"]
)
def test_average_pool_counts_the_padding(engine: Engine, attributes: str) -> None:
    comma = ", " if attributes else ""
    model = graph(
        f"p = Pad(x, around)\n y = AveragePool<kernel_shape=[4, 3]{comma}{attributes}>(p)",
        around=AROUND,
    )
    assert check(engine, model, PASSES).ops == {"AveragePool": 1}


@pytest.mark.parametrize("attributes", ["pads=[1, 1, 1, 1]", "ceil_mode=1, strides=[2, 2]"])
def test_average_pool_that_would_average_otherwise_stays(engine: Engine, attributes: str) -> None:
    model = graph(
        f"p = Pad(x, around)\n y = AveragePool<kernel_shape=[4, 3], {attributes}>(p)",
        around=AROUND,
    )
    assert check(engine, model, PASSES).ops == {"Pad": 1, "AveragePool": 1}


@pytest.mark.parametrize(
    "positive",
    ["r = Relu(x)", "s = Sigmoid(x)\n q = Exp(x)\n c = Mul(s, q)\n r = Identity(c)",
     "s = Abs(x)\n r = Clip(s, zero)", "s = Clip(x, zero)\n r = Add(s, s)"],
)  # fmt: skip
def test_max_pool_takes_zeros_around_what_is_not_negative(engine: Engine, positive: str) -> None:
    model = graph(
        f"{positive}\n p = Pad(r, around)\n y = MaxPool<kernel_shape=[4, 3], strides=[2, 2]>(p)",
        around=AROUND,
        zero=np.zeros((), np.float32),
    )
    assert "Pad" not in check(engine, model, PASSES).ops


def test_max_pool_takes_minus_infinity(engine: Engine) -> None:
    model = graph(
        "p = Pad(x, around, low)\n y = MaxPool<kernel_shape=[4, 3]>(p)",
        around=AROUND,
        low=np.array(-np.inf, np.float32),
    )
    assert check(engine, model, PASSES).ops == {"MaxPool": 1}


@pytest.mark.parametrize(
    "body",
    [
        "p = Pad(x, around)\n y = MaxPool<kernel_shape=[4, 3]>(p)",
        "r = Relu(x)\n p = Pad(r, around)\n y = MaxPool<kernel_shape=[3, 3]>(p)",
        "r = Relu(x)\n p = Pad(r, around)\n y = MaxPool<kernel_shape=[4, 3], ceil_mode=1>(p)",
        "t = Tanh(x)\n r = Relu(x)\n s = Add(r, t)\n p = Pad(s, around)\n"
        " y = MaxPool<kernel_shape=[4, 3]>(p)",
    ],
)
def test_max_pool_with_negative_input_or_windows_of_padding_stays(
    engine: Engine, body: str
) -> None:
    outcome = check(engine, graph(body, around=AROUND), PASSES)
    assert outcome.ops["Pad"] == 1
    assert "MaxPool" in outcome.reasons[0]


@pytest.mark.parametrize(
    "body",
    [
        'p = Pad<mode="reflect">(x, around)\n y = Conv(p, w)',
        "p = Pad(x, around, one)\n y = Conv(p, w)",
        "p = Pad(x, crop)\n y = Conv(p, w)",
        "p = Pad(x, channels)\n y = Conv(p, v)",
        "p = Pad(x, around)\n y = Conv(p, w)\n z = Relu(p)\n q = Shape(z)",
    ],
)
def test_other_padding_stays(engine: Engine, body: str) -> None:
    model = graph(
        body,
        around=AROUND,
        crop=pads(0, 0, -1, 0, 0, 0, 0, 1),
        channels=pads(0, 1, 0, 0, 0, 0, 0, 0),
        one=np.ones((), np.float32),
        w=RNG.standard_normal((3, 2, 3, 2)).astype(np.float32),
        v=RNG.standard_normal((3, 3, 3, 2)).astype(np.float32),
    )
    passes = PASSES if "Shape" not in body else (padding.PASS,)
    outcome = check(engine, model, passes)
    assert outcome.ops["Pad"] == 1
    assert outcome.reasons or "Shape" in body


def test_same_padding_of_an_unknown_size_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 2, H, 9] x) => (float[N, C, h, v] y) {
            p = Pad(x, around)
            y = Conv<auto_pad="SAME_UPPER">(p, w)
        }""",
        weights={"around": AROUND, "w": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Pad": 1, "Conv": 1}
    assert "SAME_UPPER" in outcome.reasons[0]


def test_computed_pads_stay(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 2, 8, 9] x, int64[8] around) => (float[N, C, h, v] y) {
            p = Pad(x, around)
            y = Conv(p, w)
        }""",
        weights={"w": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32)},
    )
    feeds = {"x": np.ones((1, 2, 8, 9), np.float32), "around": AROUND}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.reasons == ["its pads are not constant"]


def test_indices_of_max_pool_keep_the_padding(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 2, 8, 9] x) => (float[1, 2, h, v] y, int64[1, 2, h, v] i) {
            r = Relu(x)
            p = Pad(r, around)
            y, i = MaxPool<kernel_shape=[4, 3]>(p)
        }""",
        weights={"around": AROUND},
    )
    assert check(engine, model, PASSES).ops["Pad"] == 1


def test_one_and_three_spatial_axes(engine: Engine) -> None:
    line = model_of(
        "g (float[1, 2, 8] x) => (float[1, 3, h] y) { p = Pad(x, around)\n y = Conv(p, w) }",
        weights={
            "around": pads(0, 0, 2, 0, 0, 0),
            "w": RNG.standard_normal((3, 2, 3)).astype(np.float32),
        },
    )
    assert check(engine, line, PASSES).ops == {"Conv": 1}
    volume = model_of(
        """g (float[1, 2, 4, 4, 4] x) => (float[1, 3, h, v, d] y) {
            p = Pad(x, around)
            y = Conv(p, w)
        }""",
        weights={
            "around": pads(0, 0, 1, 0, 1, 0, 0, 0, 2, 1),
            "w": RNG.standard_normal((3, 2, 2, 2, 2)).astype(np.float32),
        },
    )
    assert check(engine, volume, PASSES).ops == {"Conv": 1}
