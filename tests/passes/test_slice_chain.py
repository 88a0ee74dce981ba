from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.engine import Engine
from ort_optim.passes import slice_chain
from tests.passes.harness import check, model_of

PASSES = (slice_chain.PASS,)

bound = st.integers(-9, 9) | st.just(2**63 - 1) | st.just(2**31 - 1)


@pytest.mark.parametrize("shape", ["5, 7", "N, M"])
@settings(max_examples=40, deadline=None)
@given(
    first=st.tuples(bound, bound, st.sampled_from([0, 1]), st.sampled_from([1, 1, 2, -1])),
    second=st.tuples(bound, bound, st.sampled_from([0, 1, -1]), st.sampled_from([1, 1, 3])),
)
def test_two_slices_take_what_they_took(
    engine: Engine, shape: str, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    weights = {}
    for letter, numbers in (("p", first), ("q", second)):
        for name, number in zip("seat", numbers, strict=True):
            weights[letter + name] = np.array([number], np.int64)
    model = model_of(
        f"g (float[{shape}] x) => (float[A, B] y) "
        "{ t = Slice(x, ps, pe, pa, pt)\n y = Slice(t, qs, qe, qa, qt) }",
        weights=weights,
    )
    feeds = {"x": np.arange(35, dtype=np.float32).reshape(5, 7)}
    ops = check(engine, model, PASSES, feeds=feeds).ops
    if first[2] != second[2] % 2:
        assert ops == {"Slice": 1}


def test_on_one_axis_from_the_front_no_length_is_needed(engine: Engine) -> None:
    model = model_of(
        "g (float[N] x) => (float[M] y) { t = Slice(x, a, b)\n y = Slice(t, a, c) }",
        weights={"a": np.array([2]), "b": np.array([2**63 - 1]), "c": np.array([4])},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.arange(9, dtype=np.float32)})
    assert outcome.ops == {"Slice": 1}


def test_old_slices_have_attributes(engine: Engine) -> None:
    model = model_of(
        "g (float[5, 7] x) => (float[2, 3] y) { t = Slice<starts = [1], ends = [3]>(x)\n"
        " y = Slice<starts = [-3], ends = [99], axes = [1]>(t) }",
        opset=9,
    )
    assert check(engine, model, PASSES).ops == {"Slice": 1}


def test_a_slice_that_is_read_elsewhere_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[5] x) => (float[2] y, float[3] t) { t = Slice(x, a, b)\n y = Slice(t, a, b) }",
        weights={"a": np.array([1]), "b": np.array([4])},
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_bounds_known_only_at_run_time_stay(engine: Engine) -> None:
    model = model_of(
        "g (float[5] x, int64[1] e) => (float[M] y) { t = Slice(x, a, e)\n y = Slice(t, a, b) }",
        weights={"a": np.array([1]), "b": np.array([4])},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.reasons == ["bounds or axes are known only at run time"]


def test_one_slice_goes_into_all_that_read_it(engine: Engine) -> None:
    """As in the first layer of YOLOv5: every second row, then every second column."""
    model = model_of(
        """g (float[4, 6] x) => (float[2, 3] y, float[2, 3] z) {
            t = Slice(x, n, e, n, p)
            y = Slice(t, n, e, o, p)
            z = Slice(t, o, e, o, p)
        }""",
        weights={
            name: np.array([value]) for name, value in zip("nope", (0, 1, 2, 99), strict=True)
        },
    )
    assert check(engine, model, PASSES).ops == {"Slice": 2}


def test_a_slice_that_something_else_reads_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[5] x) => (float[2] y, float[3] z) "
        "{ t = Slice(x, a, b)\n y = Slice(t, a, b)\n z = Neg(t) }",
        weights={"a": np.array([1]), "b": np.array([4])},
    )
    assert check(engine, model, PASSES).reasons == ["not only Slices read it"]
