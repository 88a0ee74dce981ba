from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from ort_optim.engine import Engine
from ort_optim.passes import cast_chain, dead_code
from tests.passes.harness import check, model_of

PASSES = (cast_chain.PASS, dead_code.PASS)

NAMES = {"float32": "float", "float64": "double"}


def _model(a: str, b: str, c: str) -> object:
    to_b, to_c = (helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in (b, c))
    out = NAMES.get(c, c)
    return model_of(
        f"g ({NAMES.get(a, a)}[6] x) => ({out}[6] y) "
        f"{{ s = Unsqueeze(x, i)\n u = Cast<to = {to_b}>(s)\n v = Cast<to = {to_c}>(u)\n"
        f" y = Squeeze(v, i) }}",
        weights={"i": np.array([0])},
    )


@pytest.mark.parametrize(
    ("a", "b", "c", "left"),
    [
        ("int32", "int64", "float32", 1),
        ("int32", "int64", "int32", 0),
        ("float16", "float32", "float64", 1),
        ("float32", "float64", "float32", 0),
        ("bool", "int64", "float32", 1),
        ("bool", "float32", "bool", 0),
        ("uint8", "float16", "float32", 1),
        ("int64", "int32", "int64", 2),
        ("int64", "float32", "int64", 2),
        ("float32", "float16", "float32", 2),
        ("float32", "int64", "float32", 2),
        ("int16", "float32", "uint8", 2),
        ("int32", "float32", "float64", 2),
        ("uint8", "int32", "bool", 1),
    ],
)
def test_casts_merge_only_where_the_first_loses_nothing(
    engine: Engine, a: str, b: str, c: str, left: int
) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random(6) * 100).astype(a)
    outcome = check(engine, _model(a, b, c), PASSES, feeds={"x": x})  # type: ignore[arg-type]
    assert outcome.ops["Cast"] == left
    assert bool(outcome.reasons) == (left == 2)


def test_a_cast_that_is_read_elsewhere_stays_but_can_be_undone(engine: Engine) -> None:
    model = model_of(
        "g (int32[2] x) => (int32[2] y, int64[2] z, float[2] w) "
        "{ s = Neg(x)\n u = Cast<to = 7>(s)\n v = Cast<to = 6>(u)\n y = Abs(v)\n z = Neg(u)\n"
        " w = Cast<to = 1>(u) }"
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Neg": 2, "Cast": 2, "Abs": 1}
    assert outcome.reasons == ["something else reads the Cast before it"]
