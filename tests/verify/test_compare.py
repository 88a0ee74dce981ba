from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ort_optim.engine import Value
from ort_optim.report.model import OutputResult
from ort_optim.verify.compare import (
    EXACT,
    NON_FINITE,
    NOTHING,
    PLAIN,
    RANDOM,
    SHAPE,
    SNR,
    TOP1,
    TWICE_OWN,
    OutputComparison,
    Tolerance,
    compare_outputs,
    slice_peaks,
    worst,
)
from ort_optim.verify.metrics import measure
from ort_optim.verify.origins import Origin

RNG = np.random.default_rng(0)


def one(
    expected: Value,
    found: Value,
    tolerance: Tolerance | None = None,
    *,
    origin: Origin | None = None,
    own: Value | None = None,
) -> OutputComparison:
    (result,) = compare_outputs(
        {"y": expected},
        {"y": found},
        tolerance or Tolerance(),
        origins={"y": origin} if origin else None,
        own=None if own is None else {"y": own},
    )
    return result


@given(
    hnp.arrays(
        hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_every_tensor_equals_itself(array: np.ndarray) -> None:
    result = one(array, array.copy())
    assert result.passed
    assert result.decided_by == (EXACT if np.isfinite(array).any() else NOTHING)
    assert result.max_abs == 0


@given(
    hnp.arrays(np.float32, (4, 5), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, (4, 5), elements=st.floats(-1, 1, width=32)),
    st.floats(0, 0.1),
    st.floats(0, 0.1),
)
def test_stated_tolerances_mean_what_numpy_means_by_them(
    expected: np.ndarray, noise: np.ndarray, rtol: float, atol: float
) -> None:
    found = expected + noise
    e, f = expected.astype(np.float64), found.astype(np.float64)
    close = bool(np.all(np.abs(f - e) <= atol + rtol * np.abs(e)))
    assert one(expected, found, Tolerance(rtol, atol)).passed == close


def test_default_absolute_tolerance_follows_the_peak() -> None:
    expected = np.array([0.0, 1000.0], np.float32)
    assert one(expected, expected + np.array([0.09, 0], np.float32)).passed
    assert not one(expected, expected + np.array([0.2, 0], np.float32)).passed


def head(scores: np.ndarray) -> np.ndarray:
    """(1, 4 + classes, anchors): boxes in pixels, and class scores below them."""
    boxes = np.random.default_rng(1).uniform(0, 640, (1, 4, scores.shape[2]))
    return np.concatenate([boxes, scores], axis=1).astype(np.float32)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1)])
def test_class_scores_beside_boxes_are_judged_by_their_own_size(axes: tuple[int, ...]) -> None:
    scores = np.random.default_rng(0).uniform(0, 0.05, (1, 80, 500))
    expected = head(scores).transpose(axes)
    for wrong in (np.zeros_like(scores), scores[:, ::-1], -scores / 2, scores * 1.02):
        assert not one(expected, head(wrong).transpose(axes)).passed
    rounded = expected * (1 + 1e-6 * RNG.standard_normal(expected.shape)).astype(np.float32)
    assert one(expected, rounded).passed


def test_a_few_roundings_of_the_largest_number_pass_anywhere() -> None:
    expected = np.stack([np.full(100, 1e3, np.float32), np.zeros(100, np.float32)])
    assert one(expected, expected + np.float32(9e-4)).passed
    assert not one(expected, expected + np.float32(2e-3)).passed


def test_peaks_are_those_of_slices_with_enough_elements() -> None:
    values = np.ones((2, 70))
    values[1] = 5
    assert np.array_equal(slice_peaks(values), [[1], [5]])
    assert np.array_equal(slice_peaks(values[:, :10]), 5)
    assert np.array_equal(slice_peaks(np.zeros((2000, 0))), 0)


@pytest.mark.parametrize("epsilon", [2.0**-3, 2.0**-2])
def test_float8_models_can_fail(epsilon: float) -> None:
    origin = Origin(epsilon=epsilon)
    expected = RNG.standard_normal((4, 64)).astype(np.float32)
    for wrong in (np.zeros_like(expected), -expected, expected[::-1].copy(), expected * 1.2):
        assert not one(expected, wrong, origin=origin).passed
    assert one(expected, expected * np.float32(1.05), origin=origin).passed


def test_small_outputs_are_not_passed_for_being_small() -> None:
    expected = RNG.standard_normal(100).astype(np.float32) * np.float32(1e-3)
    result = one(expected, expected[::-1].copy())
    assert not result.passed
    assert result.decided_by == PLAIN
    assert result.bound is not None
    assert result.max_abs > result.bound


def test_rounding_of_saturated_probabilities_passes() -> None:
    assert one(np.full(9, 1e-9, np.float32), np.full(9, 2e-7, np.float32)).passed


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_and_booleans_must_be_equal(dtype: type) -> None:
    expected = np.array([0, 1, 1], dtype)
    assert one(expected, expected.copy()).decided_by == EXACT
    changed = one(expected, np.array([1, 1, 1], dtype))
    assert not changed.passed
    assert changed.reason == "1 of 3 elements differ"


def test_strings_must_be_equal() -> None:
    expected = np.array(["a", "b"], dtype=object)
    assert one(expected, np.array(["a", "b"])).passed
    assert not one(expected, np.array(["a", "c"], dtype=object)).passed


def test_nan_and_infinity_belong_where_the_reference_has_them() -> None:
    expected = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert one(expected, expected.copy()).passed
    for found in (
        [0, np.inf, -np.inf, 1],
        [np.nan, -np.inf, -np.inf, 1],
        [np.nan, np.inf, -np.inf, np.nan],
        [np.nan, 1e30, -np.inf, 1],
        [np.inf, np.inf, -np.inf, 1],
    ):
        result = one(expected, np.array(found, np.float32))
        assert not result.passed
        assert result.decided_by == NON_FINITE


@pytest.mark.parametrize("value", [[], np.zeros((0, 4), np.float32), np.full(3, np.nan)])
def test_emptiness_and_nan_tell_nothing(value: Value) -> None:
    result = one(value, value)
    assert result.passed
    assert result.decided_by == NOTHING
    assert not result.is_telling


def test_of_several_sets_the_one_that_tells_something_is_reported() -> None:
    silent, telling = one(np.zeros(0), np.zeros(0)), one(np.ones(1), np.ones(1))
    assert worst([silent, telling, silent]) is telling


def test_shape_and_type_must_be_the_same() -> None:
    expected = np.zeros((2, 3), np.float32)
    for found in (expected.reshape(3, 2), expected.astype(np.float64), expected[0]):
        result = one(expected, found)
        assert not result.passed
        assert result.decided_by == SHAPE


def test_a_missing_output_is_a_difference() -> None:
    (result,) = compare_outputs({"y": np.zeros(1)}, {}, Tolerance())
    assert not result.passed
    assert result.decided_by == SHAPE


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_tolerance_of_coarse_types_is_derived_from_their_epsilon(dtype: type) -> None:
    epsilon = float(ml_dtypes.finfo(dtype).eps)
    expected = np.ones(4, dtype)
    assert one(expected, expected * dtype(1 + 4 * epsilon)).passed
    assert not one(expected, expected * dtype(1 + 32 * epsilon)).passed


def test_a_float32_output_of_a_half_precision_model_gets_the_coarse_tolerance() -> None:
    expected = np.ones(4, np.float32)
    found = expected * np.float32(1.004)
    assert not one(expected, found).passed
    assert one(expected, found, origin=Origin(epsilon=2.0**-10)).passed


def test_random_outputs_are_compared_by_type_and_shape_only() -> None:
    origin = Origin(random=True)
    result = one(np.zeros(5, np.float32), np.ones(5, np.float32), origin=origin)
    assert result.passed
    assert result.decided_by == RANDOM
    assert not one(np.zeros(5, np.float32), np.ones(6, np.float32), origin=origin).passed
    loose = Origin(random=True, data_dependent_shape=True)
    assert one(np.zeros(5, np.float32), np.ones(6, np.float32), origin=loose).passed


def test_sequences_maps_and_optionals_are_compared_leaf_by_leaf() -> None:
    expected: Value = [{"a": np.float32(1), "b": np.float32(2)}, {"a": np.float32(3)}]
    found: Value = [{"a": np.float32(1), "b": np.float32(9)}, {"a": np.float32(3)}]
    results = compare_outputs({"y": expected}, {"y": found}, Tolerance())
    assert [(r.name, r.passed) for r in results] == [
        ("y[0]['a']", True),
        ("y[0]['b']", False),
        ("y[1]['a']", True),
    ]
    assert one(None, None).passed
    assert not one(None, np.zeros(1)).passed
    assert not one([np.zeros(1)], [np.zeros(1)] * 2).passed
    assert not one({"a": 1.0}, {"b": 1.0}).passed
    assert one([], []).passed
    assert not one([np.zeros(1)], np.zeros(1)).passed


def test_twice_the_error_of_orts_own_optimizations_is_allowed() -> None:
    expected = np.linspace(1, 2, 50, dtype=np.float32)
    own, found = expected + np.float32(0.004), expected + np.float32(0.007)
    assert not one(expected, found).passed
    result = one(expected, found, own=own)
    assert result.passed
    assert result.decided_by == TWICE_OWN
    assert not one(expected, expected + np.float32(0.009), own=own).passed


def test_where_orts_own_noise_is_large_snr_decides() -> None:
    expected = RNG.standard_normal(5000).astype(np.float32)
    noise = RNG.standard_normal((2, 5000)).astype(np.float32)
    own = expected + 0.1 * noise[0]
    similar, worse = expected + 0.15 * noise[1], expected + 0.3 * noise[1]
    accepted = one(expected, similar, own=own)
    assert accepted.passed
    assert accepted.decided_by == SNR
    refused = one(expected, worse, own=own)
    assert not refused.passed
    assert refused.decided_by == SNR


def test_noise_that_drowns_the_signal_is_never_accepted() -> None:
    expected = RNG.standard_normal(500).astype(np.float32)
    own = RNG.standard_normal(500).astype(np.float32)
    assert not one(expected, own.copy(), own=own).passed


def test_quantized_classifiers_must_keep_their_top_1() -> None:
    quantized = Origin(quantized=True)
    expected = np.tile(np.array([[1.0, 0.99, 0.0]], np.float32), (50, 1))
    own = expected + np.float32(0.01)
    flipped = expected[:, [1, 0, 2]].copy()
    result = one(expected, flipped, origin=quantized, own=own)
    assert not result.passed
    assert result.decided_by == TOP1
    assert one(expected, expected - np.float32(0.012), origin=quantized, own=own).passed


def test_figures_of_a_known_error() -> None:
    expected = np.array([[1.0, 2.0, 4.0, 0.0]])
    found = np.array([[1.0, 2.5, 3.0, 0.0]])
    figures = measure(expected, found)
    assert figures.max_abs == 1.0
    assert figures.max_rel == 0.25
    assert figures.mean_abs == pytest.approx(1.5 / 4)
    assert figures.p50 == pytest.approx(0.25)
    assert figures.snr_db == pytest.approx(10 * math.log10(21 / 1.25))
    assert figures.cosine == pytest.approx((1 + 5 + 12) / math.sqrt(21 * (1 + 6.25 + 9)))
    assert figures.top1 == 1.0


@pytest.mark.parametrize(
    ("shape", "is_classifier"),
    [((4, 10), True), ((4, 10, 1, 1), True), ((4, 2), False), ((1, 7, 50), True), ((9,), False)],
)
def test_top_1_only_where_it_looks_like_class_scores(
    shape: tuple[int, ...], is_classifier: bool
) -> None:
    scores = RNG.standard_normal(shape)
    assert (measure(scores, scores).top1 is not None) == is_classifier


def test_plain_data_fits_the_report_and_has_no_infinities() -> None:
    equal = one(np.ones(3, np.float32), np.ones(3, np.float32)).as_plain()
    assert equal["snr_db"] is None
    assert OutputResult(**equal).passed
    assert not OutputResult(**one(np.ones(3), np.ones(2)).as_plain()).passed


def test_quantiles_of_large_tensors_come_from_a_sample() -> None:
    expected = np.zeros(3_000_000, np.float32)
    found = np.full(3_000_000, 0.5, np.float32)
    assert measure(expected, found).p50 == 0.5
