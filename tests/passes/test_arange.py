from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import arange, dead_code
from tests.passes.harness import Outcome, check, model_of

PASSES = (arange.PASS, dead_code.PASS)


def counted(engine: Engine, chain: str, *, opset: int = 17, fill: int = 1) -> Outcome:
    squeeze = "Squeeze(t, axes)" if opset >= 13 else "Squeeze<axes = [1]>(t)"
    first = "Squeeze(z, first)" if opset >= 13 else "Squeeze<axes = [0]>(z)"
    model = model_of(
        f"""g (float[n, 3] x) => (int64[n] y) {{
            s = Shape(x)
            n = Slice(s, first, axes)
            f = ConstantOfShape<value = int64[1] {{{fill}}}>(n)
            z = NonZero(f)
            {chain.replace("SQUEEZE", squeeze).replace("FIRST", first)}
        }}""",
        opset=opset,
        weights={"first": np.array([0]), "axes": np.array([1]), "flat": np.array([-1])},
    )
    outcome = None
    for rows in (4, 1, 0) if fill else (0,):
        outcome = check(engine, model, PASSES, feeds={"x": np.zeros((rows, 3), np.float32)})
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(
    "chain",
    [
        "t = Transpose<perm = [1, 0]>(z)  y = SQUEEZE",
        "t = Transpose(z)  y = Reshape(t, flat)",
        "y = FIRST",
        "y = Reshape(z, flat)",
    ],
)
def test_counting_becomes_range(engine: Engine, chain: str, opset: int) -> None:
    outcome = counted(engine, chain, opset=opset)
    assert outcome.ops == {"Shape": 1, "Slice": 1, "Squeeze": 1, "Range": 1}


def test_a_size_that_was_a_scalar_needs_no_squeeze(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 3] x) => (int64[n] y) {
            s = Size(x)
            u = Unsqueeze(s, first)
            f = ConstantOfShape<value = float[1] {1}>(u)
            z = NonZero(f)
            y = Squeeze(z, first)
        }""",
        weights={"first": np.array([0])},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.zeros((2, 3), np.float32)})
    assert outcome.ops == {"Size": 1, "Range": 1}


def test_before_opset_11_there_is_no_range(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 3] x) => (int64[n] y) {
            s = Shape(x)
            n = Gather(s, first)
            f = ConstantOfShape<value = int64[1] {1}>(n)
            z = NonZero(f)
            y = Squeeze<axes = [0]>(z)
        }""",
        opset=10,
        weights={"first": np.array([0])},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.zeros((2, 3), np.float32)})
    assert outcome.reasons == ["Range needs opset 11"]


def test_the_positions_among_zeros_are_none(engine: Engine) -> None:
    outcome = counted(engine, "y = FIRST", fill=0)
    assert outcome.reasons == ["not a vector of ones"]


def test_a_row_that_is_read_elsewhere_stays(engine: Engine) -> None:
    outcome = counted(engine, "t = Transpose(z)  u = SQUEEZE  v = Size(z)  y = Add(u, v)")
    assert outcome.reasons == ["its result is not made a vector straight away"]


def test_ones_that_are_read_elsewhere_stay(engine: Engine) -> None:
    outcome = counted(engine, "u = FIRST  y = Add(u, f)")
    assert outcome.ops["NonZero"] == 1


def test_without_fuel_nothing_changes(engine: Engine) -> None:
    model = model_of(
        """g (int64[1] n) => (int64[k] y) {
            f = ConstantOfShape<value = int64[1] {1}>(n)
            z = NonZero(f)
            y = Squeeze(z, first)
        }""",
        weights={"first": np.array([0])},
    )
    assert check(engine, model, PASSES, limit=0).ops["NonZero"] == 1
