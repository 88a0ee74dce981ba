from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, global_pooling
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, global_pooling.PASS)
WEIGHT = np.random.default_rng(19).standard_normal((8, 3, 3, 3)).astype(np.float32)


def graph(body: str, *, out: str = "2, 8, 1, 1", opset: int = 17, **weights: Any) -> Any:
    return model_of(
        f"g (float[2, 3, 6, 7] x) => (float[{out}] y) {{ {body} }}",
        opset=opset,
        weights={**({"w": WEIGHT} if "w)" in body else {}), **weights},
    )


@pytest.mark.parametrize("between", ["", "a = Relu(c)", "s = Sigmoid(c)\n a = Mul(c, s)"])
@pytest.mark.parametrize("axes", ["[2, 3]", "[-1, -2]"])
def test_a_mean_after_a_convolution_is_pooled(engine: Engine, between: str, axes: str) -> None:
    source = "a" if between else "c"
    body = f"c = Conv(x, w)\n {between}\n y = ReduceMean<axes={axes}>({source})"
    outcome = check(engine, graph(body), PASSES)
    assert outcome.ops["GlobalAveragePool"] == 1
    assert outcome.ops["ReduceMean"] == 0


def test_axes_as_an_input(engine: Engine) -> None:
    model = graph(
        "c = Conv(x, w)\n y = ReduceMean(c, axes)", opset=18, axes=np.array([3, 2], np.int64)
    )
    assert check(engine, model, PASSES).ops == {"Conv": 1, "GlobalAveragePool": 1}


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("y = ReduceMean<axes=[2, 3]>(x)", "2, 3, 1, 1"),
        ("c = Conv(x, w)\n y = ReduceMean<axes=[2]>(c)", "2, 8, 1, 5"),
        ("c = Conv(x, w)\n y = ReduceMean<axes=[1, 2, 3]>(c)", "2, 1, 1, 1"),
        ("c = Conv(x, w)\n y = ReduceMean<axes=[2, 3], keepdims=0>(c)", "2, 8"),
        ("c = Conv(x, w)\n y = ReduceMean(c)", "1, 1, 1, 1"),
    ],
)
def test_other_means_stay(engine: Engine, body: str, out: str) -> None:
    assert not check(engine, graph(body, out=out), PASSES).context.rewrites


def test_a_pooling_of_everything_is_global(engine: Engine) -> None:
    body = "y = AveragePool<kernel_shape=[6, 7], strides=[2, 2]>(x)"
    outcome = check(engine, graph(body, out="2, 3, 1, 1"), PASSES)
    assert outcome.ops == {"GlobalAveragePool": 1}


@pytest.mark.parametrize(
    ("attributes", "out"),
    [
        ("kernel_shape=[6, 6]", "2, 3, 1, 2"),
        ("kernel_shape=[6, 7], pads=[1, 0, 0, 0]", "2, 3, 2, 1"),
        ('kernel_shape=[6, 7], auto_pad="SAME_UPPER"', "2, 3, 6, 7"),
    ],
)
def test_other_poolings_stay(engine: Engine, attributes: str, out: str) -> None:
    model = graph(f"y = AveragePool<{attributes}>(x)", out=out)
    assert not check(engine, model, PASSES).context.rewrites


def test_a_pooling_of_an_unknown_size_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 3, H, 7] x) => (float[1, 3, h, v] y) {
            y = AveragePool<kernel_shape=[2, 7]>(x)
        }"""
    )
    assert not check(engine, model, PASSES).context.rewrites
