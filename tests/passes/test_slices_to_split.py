from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import slices_to_split
from tests.passes.harness import check, model_of

PASSES = (slices_to_split.PASS,)


def _i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("opset", [11, 17])
def test_slices_that_cover_an_axis_become_a_split(engine: Engine, opset: int) -> None:
    model = model_of(
        """g (float[2, 7] x) => (float[2, 3] y, float[2, 1] z, float[2, 3] w) {
            z = Slice(x, p, q, a)
            y = Slice(x, n, p, a)
            w = Slice(x, q, r, b)
        }""",
        opset=opset,
        weights={
            "n": _i64(0),
            "p": _i64(3),
            "q": _i64(-3),
            "r": _i64(2**63 - 1),
            "a": _i64(1),
            "b": _i64(-1),
        },
    )
    assert check(engine, model, PASSES).ops == {"Split": 1}


@pytest.mark.parametrize(
    ("dims", "second"), [("7", (4, 7)), ("7", (2, 7)), ("7", (3, 6)), ("N", (3, 99))]
)
def test_gaps_overlaps_and_unknown_lengths_stay(
    engine: Engine, dims: str, second: tuple[int, int]
) -> None:
    model = model_of(
        f"g (float[{dims}] x) => (float[P] y, float[Q] z) "
        "{ y = Slice(x, n, p)\n z = Slice(x, q, r) }",
        weights={"n": _i64(0), "p": _i64(3), "q": _i64(second[0]), "r": _i64(second[1])},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.arange(7, dtype=np.float32)})
    assert outcome.ops == {"Slice": 2}


def test_other_readers_do_not_matter(engine: Engine) -> None:
    model = model_of(
        "g (float[4] x) => (float[2] y, float[2] z, float[4] w, float[2] v) "
        "{ y = Slice(x, n, p)\n z = Slice(x, p, q)\n w = Neg(x)\n v = Slice(x, n, q, n, p) }",
        weights={"n": _i64(0), "p": _i64(2), "q": _i64(4)},
    )
    assert check(engine, model, PASSES).ops == {"Split": 1, "Neg": 1, "Slice": 1}


def test_slices_in_a_branch_are_not_mixed_with_those_outside(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[4] x) => (float[2] y) {
            u = Slice(x, n, p)
            v = If(b) <
                then_branch = t () => (float[2] k) { k = Slice(x, p, q) },
                else_branch = e () => (float[2] l) { l = Neg(u) }
            >
            y = Add(u, v)
        }""",
        weights={"n": _i64(0), "p": _i64(2), "q": _i64(4)},
    )
    assert check(engine, model, PASSES).ops["Split"] == 0
