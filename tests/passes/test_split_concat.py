from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, split_concat
from tests.passes.harness import check, model_of

PASSES = (split_concat.PASS, dead_code.PASS)


def _i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("dims", ["2, 6", "N, M"])
def test_a_split_put_together_again_goes(engine: Engine, dims: str) -> None:
    model = model_of(
        f"g (float[{dims}] x) => (float[{dims}] y) "
        "{ s = Neg(x)\n a, b, c = Split<axis = 1>(s)\n"
        " t = Concat<axis = -1>(a, b, c)\n y = Abs(t) }",
        opset=13,
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.ones((2, 6), np.float32)})
    assert outcome.ops == {"Neg": 1, "Abs": 1}


def test_parts_in_another_order_stay(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 6] x) => (float[2, 6] y) "
        "{ a, b, c = Split<axis = 1>(x)\n y = Concat<axis = 1>(b, a, c) }",
        opset=13,
    )
    assert check(engine, model, PASSES).ops == {"Split": 1, "Concat": 1}


@pytest.mark.parametrize("dims", ["7", "N"])
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 9), min_size=2, max_size=5), to_end=st.booleans())
def test_consecutive_slices_are_put_together(
    engine: Engine, dims: str, cuts: list[int], to_end: bool
) -> None:
    cuts = sorted(cuts)
    if to_end:
        cuts = [0, *cuts, 2**63 - 1]
    parts = [f"p{i} = Slice(s, c{i}, c{i + 1})" for i in range(len(cuts) - 1)]
    names = ", ".join(f"p{i}" for i in range(len(cuts) - 1))
    model = model_of(
        f"g (float[{dims}] x) => (float[P] y) "
        f"{{ s = Neg(x)\n {chr(10).join(parts)}\n t = Concat<axis = 0>({names})\n y = Abs(t) }}",
        weights={f"c{i}": _i64(cut) for i, cut in enumerate(cuts)},
    )
    ops = check(engine, model, PASSES, feeds={"x": np.arange(7, dtype=np.float32)}).ops
    if to_end:
        assert ops == {"Neg": 1, "Abs": 1}
    elif dims == "7" and len(cuts) > 2 and cuts[0] < 7:
        assert ops["Concat"] == 0


def test_a_run_among_other_inputs_is_put_together(engine: Engine) -> None:
    model = model_of(
        "g (float[7] x, float[2] z) => (float[P] y) "
        "{ a = Slice(x, n, p)\n b = Slice(x, p, q)\n c = Slice(x, n, q)\n d = Slice(x, q, r)\n"
        " y = Concat<axis = 0>(z, a, b, z, c, d) }",
        weights={"n": _i64(0), "p": _i64(2), "q": _i64(5), "r": _i64(7)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Slice": 1, "Concat": 1}


def test_slices_that_are_read_elsewhere_stay(engine: Engine) -> None:
    model = model_of(
        "g (float[7] x) => (float[5] y, float[2] a, float[3] b) "
        "{ a = Slice(x, n, p)\n b = Slice(x, p, q)\n y = Concat<axis = 0>(a, b) }",
        weights={"n": _i64(0), "p": _i64(2), "q": _i64(5)},
    )
    assert check(engine, model, PASSES).ops == {"Slice": 2, "Concat": 1}


def test_a_part_that_is_an_output_stays_when_the_whole_is_read(engine: Engine) -> None:
    model = model_of(
        "g (float[7] x, float[1] z) => (float[8] y, float[3] a) "
        "{ a = Slice(x, n, p)\n b = Slice(x, p, q)\n y = Concat<axis = 0>(z, a, b) }",
        weights={"n": _i64(0), "p": _i64(3), "q": _i64(7)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Slice": 1, "Concat": 1}


def test_a_gap_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[7] x) => (float[P] y) "
        "{ a = Slice(x, n, p)\n b = Slice(x, q, r)\n y = Concat<axis = 0>(a, b) }",
        weights={"n": _i64(0), "p": _i64(2), "q": _i64(3), "r": _i64(7)},
    )
    assert check(engine, model, PASSES).ops == {"Slice": 2, "Concat": 1}


@pytest.mark.parametrize("opset", [11, 13])
def test_a_concat_taken_apart_again_goes(engine: Engine, opset: int) -> None:
    split = "Split<axis = -1, split = [3, 1]>(t)" if opset < 13 else "Split<axis = -1>(t, c)"
    model = model_of(
        "g (float[2, 3] x, float[2, 1] z) => (float[2, 3] y, float[2, 1] w) "
        f"{{ t = Concat<axis = 1>(x, z)\n a, b = {split}\n y = Neg(a)\n w = Neg(b) }}",
        opset=opset,
        weights={"c": _i64(3, 1)} if opset >= 13 else {},
    )
    assert check(engine, model, PASSES).ops == {"Neg": 2}


def test_a_concat_cut_elsewhere_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3] x, float[2, 1] z) => (float[2, 2] y, float[2, 2] w) "
        "{ t = Concat<axis = 1>(x, z)\n a, b = Split<axis = 1>(t)\n y = Neg(a)\n w = Neg(b) }",
        opset=13,
    )
    outcome = check(engine, model, PASSES)
    assert outcome.reasons == ["it cuts elsewhere than the Concat before it joins"]


def test_a_slice_that_is_one_part_of_a_concat_reads_that_part(engine: Engine) -> None:
    model = model_of(
        "g (float[3] x, float[2] z) => (float[2] y, float[5] w) "
        "{ t = Concat<axis = 0>(x, z)\n a = Slice(t, p, q)\n y = Neg(a)\n w = Neg(t) }",
        weights={"p": _i64(-2), "q": _i64(9)},
    )
    assert check(engine, model, PASSES).ops == {"Concat": 1, "Neg": 2}
