"""What reads a computed shape: Reshape, Expand and Slice get constants in its place."""

from __future__ import annotations

import numpy as np
import onnx

from ort_optim.engine import Engine
from tests.passes.harness import check, model_of
from tests.passes.sizes import BATCHED, PASSES, check_sizes, i64, target


def test_one_size_by_name_is_written_minus_one_or_copied(engine: Engine) -> None:
    weights = {"zero": np.int64(0), "first": i64(0), "rest": i64(3, 8)}
    outcome = check_sizes(
        engine, model_of(BATCHED, weights=weights), [(5, 4, 6), (1, 4, 6), (0, 4, 6)]
    )
    assert outcome.ops == {"Reshape": 1}
    assert target(outcome) == [0, 3, 8]


def test_a_size_that_moves_is_written_minus_one(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 4, 6] x) => (float[a, b] y) {
            s = Shape(x)
            i = Gather(s, zero)
            j = Mul(i, two)
            u = Unsqueeze(j, first)
            t = Concat<axis = 0>(u, rest)
            y = Reshape(x, t)
        }""",
        weights={"zero": np.int64(0), "two": np.int64(2), "first": i64(0), "rest": i64(12)},
    )
    outcome = check_sizes(engine, model, [(5, 4, 6), (0, 4, 6)])
    assert outcome.ops == {"Reshape": 1}
    assert target(outcome) == [-1, 12]


def test_two_sizes_copied_from_their_places_need_no_minus_one(engine: Engine) -> None:
    model = model_of(
        """g (float[n, l, 8] x) => (float[a, b, c, d] y) {
            s = Shape(x)
            head = Slice(s, zero, two)
            t = Concat<axis = 0>(head, rest)
            y = Reshape(x, t)
        }""",
        weights={"zero": i64(0), "two": i64(2), "rest": i64(2, 4)},
    )
    outcome = check_sizes(engine, model, [(3, 5, 8), (0, 5, 8), (3, 0, 8)])
    assert outcome.ops == {"Reshape": 1}
    assert target(outcome) == [0, 0, 2, 4]


def test_minus_one_is_not_put_beside_a_copied_size(engine: Engine) -> None:
    model = model_of(
        """g (float[n, l, 8] x) => (float[a, b, c] y) {
            s = Shape(x)
            n = Slice(s, zero, one)
            l = Slice(s, one, two)
            m = Mul(l, two)
            t = Concat<axis = 0>(n, m, four)
            y = Reshape(x, t)
        }""",
        weights={"zero": i64(0), "one": i64(1), "two": i64(2), "four": i64(4)},
    )
    outcome = check_sizes(engine, model, [(3, 5, 8), (0, 5, 8)])
    assert outcome.ops["Concat"] == 1
    assert "-1 beside a copied size would fail on an empty tensor" in outcome.reasons


def test_a_minus_one_of_the_model_may_stand_beside_a_copied_size(engine: Engine) -> None:
    model = model_of(
        """g (float[n, l, 8] x) => (float[a, b, c] y) {
            s = Shape(x)
            n = Slice(s, zero, one)
            t = Concat<axis = 0>(n, minus, four)
            y = Reshape(x, t)
        }""",
        weights={"zero": i64(0), "one": i64(1), "minus": i64(-1), "four": i64(4)},
    )
    outcome = check_sizes(engine, model, [(3, 5, 8), (1, 2, 8)])
    assert outcome.ops == {"Reshape": 1}
    assert target(outcome) == [0, -1, 4]


def test_a_target_with_one_element_of_unknown_origin_becomes_constant(engine: Engine) -> None:
    model = model_of(
        """g (float[n] x, int64[1] k) => (float[a, b] y) {
            t = Concat<axis = 0>(k, six)
            y = Reshape(x, t)
        }""",
        weights={"six": i64(6)},
    )
    feeds = {"x": np.arange(24, dtype=np.float32), "k": i64(4)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == {"Reshape": 1}
    assert target(outcome) == [-1, 6]


def test_a_zero_of_allowzero_is_not_taken_for_a_copy(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 0] x, int64[1] k) => (float[a, b] y) {
            t = Concat<axis = 0>(zero, k)
            y = Reshape<allowzero = 1>(x, t)
        }""",
        weights={"zero": i64(0)},
    )
    feeds = {"x": np.zeros((2, 0), np.float32), "k": i64(7)}
    assert check(engine, model, PASSES, feeds=feeds).ops == {"Concat": 1, "Reshape": 1}


def test_a_target_that_nothing_is_known_of_stays(engine: Engine) -> None:
    model = model_of("g (float[n] x, int64[2] t) => (float[a, b] y) { y = Reshape(x, t) }")
    feeds = {"x": np.arange(6, dtype=np.float32), "t": i64(2, 3)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == {"Reshape": 1}
    assert "2 sizes of the target are not known" in outcome.reasons


def test_the_expand_that_exporters_write_becomes_constant(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 1, 4] x) => (float[a, b, c] y) {
            s = Shape(x)
            n = Gather(s, first)
            t = Concat<axis = 0>(n, rest)
            isone = Equal(t, minus)
            size = Where(isone, ones, t)
            y = Expand(x, size)
        }""",
        weights={
            "first": i64(0),
            "rest": i64(3, -1),
            "minus": i64(-1),
            "ones": i64(1, 1, 1),
        },
    )
    outcome = check_sizes(engine, model, [(2, 1, 4), (0, 1, 4)])
    assert outcome.ops == {"Expand": 1}
    assert target(outcome) == [1, 3, 4]


def test_an_expand_to_an_unknown_size_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[1, 4] x, int64[1] k) => (float[a, b] y) {
            t = Concat<axis = 0>(k, four)
            y = Expand(x, t)
        }""",
        weights={"four": i64(4)},
    )
    feeds = {"x": np.ones((1, 4), np.float32), "k": i64(3)}
    assert check(engine, model, PASSES, feeds=feeds).ops == {"Concat": 1, "Expand": 1}


def test_a_slice_to_the_size_of_its_axis_gets_a_constant_end(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 4] x) => (float[a, 4] y) {
            s = Shape(x)
            n = Slice(s, zero, one)
            y = Slice(x, one, n, zero)
        }""",
        weights={"zero": i64(0), "one": i64(1)},
    )
    outcome = check_sizes(engine, model, [(5, 4), (1, 4), (0, 4)])
    assert outcome.ops == {"Slice": 1}
    assert np.iinfo(np.int64).max in [
        int(onnx.numpy_helper.to_array(t)[0]) for t in outcome.model.graph.initializer
    ]


def test_a_slice_to_less_than_its_axis_keeps_its_end(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 4] x) => (float[a, 4] y) {
            s = Shape(x)
            n = Slice(s, zero, one)
            m = Sub(n, one)
            y = Slice(x, one, m, zero)
        }""",
        weights={"zero": i64(0), "one": i64(1)},
    )
    assert check_sizes(engine, model, [(5, 4), (1, 4)]).ops["Sub"] == 1
