from __future__ import annotations

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import affine, long_rows
from tests.passes.harness import Outcome, apply, check, feeds_for, model_of

PASSES = (long_rows.PASS,)


def arithmetic(
    op: str, x: str, c: tuple[int, ...], *, order: str = "x, c", opset: int = 17
) -> onnx.ModelProto:
    values = np.random.default_rng(1).uniform(0.5, 2, c).astype(np.float32)
    y = ", ".join(f"Y{axis}" for axis in range(max(len(x.split(",")), len(c))))
    return model_of(
        f"g (float[{x}] x) => (float[{y}] y) {{ y = {op}({order}) }}",
        opset=opset,
        weights={"c": values},
    )


def shape_of_constant(outcome: Outcome) -> tuple[int, ...]:
    (constant,) = outcome.model.graph.initializer
    return tuple(constant.dims)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("order", ["x, c", "c, x"])
@pytest.mark.parametrize("opset", [8, 17])
def test_a_constant_per_channel_is_repeated_along_a_row(
    engine: Engine, op: str, order: str, opset: int
) -> None:
    model = arithmetic(op, "1, 16, 128, 3", (3,), order=order, opset=opset)
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {op: 1}
    assert shape_of_constant(outcome) == (128, 3)


@pytest.mark.parametrize(
    ("x", "c", "repeated"),
    [
        ("2, 40, 20, 4", (1, 1, 1, 4), (40, 20, 4)),
        ("300, 2", (2,), (300, 2)),
        ("N, 100, 5, 8", (1, 8), (100, 5, 8)),
        ("N, H, 256, 2", (2,), (256, 2)),
        ("1, 300, 1, 32", (32,), (300, 1, 32)),
        ("8, 64, 7, 3", (3,), (64, 7, 3)),
    ],
)
def test_it_is_repeated_until_a_run_is_long(
    engine: Engine, x: str, c: tuple[int, ...], repeated: tuple[int, ...]
) -> None:
    model = arithmetic("Mul", x, c)
    outcome = check(engine, model, PASSES, feeds=feeds_for(model))
    assert shape_of_constant(outcome) == repeated


@pytest.mark.parametrize(
    ("x", "c"),
    [
        ("1, 16, 128, 3", (1,)),
        ("1, 16, 128, 33", (33,)),
        ("1, 16, 128, 1", (3,)),
        ("16, 3", (1, 1, 16, 3)),
        ("1, 3, 16, 128", (3, 1, 1)),
        ("1, 5, 51, 3", (3,)),
        ("1, 2, 3, 16", (1, 1, 3, 16)),
        ("512, W, 3", (3,)),
        ("20000, 4", (4,)),
    ],
    ids=["scalar", "long", "enlarged", "more axes", "NCHW", "few runs", "rows", "open", "large"],
)
def test_others_stay(engine: Engine, x: str, c: tuple[int, ...]) -> None:
    model = arithmetic("Mul", x, c)
    assert shape_of_constant(check(engine, model, PASSES, feeds=feeds_for(model))) == c


def test_doubles_and_biases_of_a_matrix_product_stay(engine: Engine) -> None:
    doubles = model_of(
        "g (double[512, 3] x) => (double[512, 3] y) { y = Mul(x, c) }", weights={"c": np.ones(3)}
    )
    assert apply(engine, doubles, PASSES).context.rewrites == []
    product = model_of(
        "g (float[512, 6] x) => (float[512, 3] y) { a = MatMul(x, w)  y = Add(a, c) }",
        weights={"c": np.ones(3, np.float32), "w": np.ones((6, 3), np.float32)},
    )
    outcome = check(engine, product, PASSES)
    assert outcome.context.rewrites == []
    assert "MatMul" in outcome.reasons[0]


def test_a_constant_that_others_read_keeps_its_form_for_them(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 16, 128, 3] x, float[4, 3] z) => (float[1, 16, 128, 3] y, float[4, 3] t) {
            y = Mul(x, c)
            t = Mul(z, c)
        }""",
        weights={"c": np.array([2, 3, 4], np.float32)},
    )
    outcome = check(engine, model, PASSES)
    assert {tuple(each.dims) for each in outcome.model.graph.initializer} == {(3,), (128, 3)}


def test_it_waits_until_a_layer_has_taken_the_constant(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    model = model_of(
        """g (float[400, 6] x) => (float[400, 3] y) {
            a = Gemm(x, w)
            y = Mul(a, c)
        }""",
        weights={
            "c": rng.uniform(0.5, 2, 3).astype(np.float32),
            "w": rng.standard_normal((6, 3)).astype(np.float32),
        },
    )
    outcome = check(engine, model, (long_rows.PASS, affine.PASS))
    assert [each.pass_name for each in outcome.context.rewrites] == ["affine"]
    assert outcome.ops == {"Gemm": 1}
