from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, scale_shift
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, scale_shift.PASS)
RNG = np.random.default_rng(17)


def graph(
    body: str,
    *,
    shape: str = "2, 3, 4, 5",
    out: str = "2, 3, 4, 5",
    dtype: str = "float",
    opset: int = 17,
    **sizes: tuple[int, ...],
) -> Any:
    element: Any = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    return model_of(
        f"g ({dtype}[{shape}] x) => ({dtype}[{out}] y) {{ {body} }}",
        opset=opset,
        weights={
            name: np.asarray(RNG.uniform(0.5, 2, size)).astype(element)
            for name, size in sizes.items()
        },
    )


@pytest.mark.parametrize("product", ["Mul(x, c)", "Mul(c, x)", "Div(x, c)"])
@pytest.mark.parametrize("total", ["Add(p, d)", "Add(d, p)", "Sub(p, d)"])
@pytest.mark.parametrize(
    ("c", "d"), [((3, 1, 1), (1, 3, 1, 1)), ((), (3, 1, 1)), ((1, 3, 1, 1), (1,))]
)
def test_a_scale_and_a_shift_per_channel_are_one_normalization(
    engine: Engine, product: str, total: str, c: tuple[int, ...], d: tuple[int, ...]
) -> None:
    model = graph(f"p = {product}\n y = {total}", c=c, d=d)
    assert check(engine, model, PASSES).ops == {"BatchNormalization": 1}


def test_double_and_a_symbolic_batch(engine: Engine) -> None:
    model = graph(
        "p = Mul(x, c)\n y = Add(p, d)",
        shape="N, 3, H, 5", out="N, 3, H, 5", dtype="double", c=(3, 1, 1), d=(3, 1, 1),
    )  # fmt: skip
    assert check(engine, model, PASSES, rtol=1e-14).ops == {"BatchNormalization": 1}


@pytest.mark.parametrize(
    ("body", "c", "d"),
    [
        ("p = Mul(x, c)\n y = Add(p, d)", (), ()),
        ("p = Mul(x, c)\n y = Add(p, d)", (5,), (3, 1, 1)),
        ("p = Mul(x, c)\n y = Add(p, d)", (3, 1, 1), (4, 1)),
        ("p = Mul(x, c)\n y = Sub(d, p)", (3, 1, 1), (3, 1, 1)),
        ("p = Div(c, x)\n y = Add(p, d)", (3, 1, 1), (3, 1, 1)),
        ("p = Mul(x, c)\n q = Add(p, d)\n y = Add(q, p)", (3, 1, 1), (3, 1, 1)),
    ],
)
def test_other_constants_and_orders_stay(
    engine: Engine, body: str, c: tuple[int, ...], d: tuple[int, ...]
) -> None:
    assert not check(engine, graph(body, c=c, d=d), PASSES).context.rewrites


def test_other_ranks_half_precision_and_old_opsets_stay(engine: Engine) -> None:
    body = "p = Mul(x, c)\n y = Add(p, d)"
    rank_3 = graph(body, shape="2, 3, 4", out="2, 3, 4", c=(3, 1), d=(3, 1))
    assert not check(engine, rank_3, PASSES).context.rewrites
    half = graph(body, dtype="float16", c=(3, 1, 1), d=(3, 1, 1))
    assert not check(engine, half, PASSES, rtol=1e-2).context.rewrites
    old = graph(body, opset=8, c=(3, 1, 1), d=(3, 1, 1))
    assert not check(engine, old, PASSES).context.rewrites
    one_channel = graph(body, shape="2, 1, 4, 5", c=(3, 1, 1), d=(3, 1, 1))
    assert not check(engine, one_channel, PASSES).context.rewrites
