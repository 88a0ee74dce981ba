from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.verify.speed import compare_times, look_twice


def timings(median_ms: float, noise: float, rounds: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return list(median_ms * np.exp(noise * rng.standard_normal(rounds)))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_a_model_is_the_same_as_itself(times: list[float]) -> None:
    ratio = compare_times(times, times)
    assert (ratio.low, ratio.ratio, ratio.high) == (1, 1, 1)
    assert ratio.verdict == "same"


@given(st.floats(0.2, 5), st.integers(0, 1000))
def test_interval_holds_the_median_ratio(factor: float, seed: int) -> None:
    a = timings(10, 0.1, 20, seed)
    b = timings(10 * factor, 0.1, 20, seed + 1)
    ratio = compare_times(a, b, seed)
    assert ratio.low <= ratio.ratio <= ratio.high


def test_drift_common_to_both_cancels() -> None:
    drift = np.linspace(1, 3, 20)  # the machine slows down threefold
    ratio = compare_times(list(10 * drift), list(11 * drift))
    assert ratio.low == pytest.approx(10 / 11)
    assert ratio.high == pytest.approx(10 / 11)
    assert ratio.verdict == "slower"


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.25, "slower"), (1.0, "same"), (1.02, "same"), (0.8, "faster")]
)
def test_verdict_beyond_noise(factor: float, verdict: str) -> None:
    ratio = compare_times(timings(10, 0.02, 20, 1), timings(10 * factor, 0.02, 20, 2))
    assert ratio.verdict == verdict


def test_noise_hides_a_small_difference() -> None:
    ratio = compare_times(timings(10, 0.4, 20, 1), timings(10.5, 0.4, 20, 2))
    assert ratio.verdict == "same"


def test_tiny_models_are_judged_by_the_difference() -> None:
    assert compare_times([0.010] * 9, [0.013] * 9).verdict == "same"  # 30% of nothing
    assert compare_times([0.050] * 9, [0.060] * 9).verdict == "slower"
    assert compare_times([0.060] * 9, [0.050] * 9).verdict == "faster"


def test_same_seed_gives_the_same_interval() -> None:
    a, b = timings(3, 0.1, 15, 1), timings(3, 0.1, 15, 2)
    assert compare_times(a, b, 7) == compare_times(a, b, 7)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])])
def test_timings_that_are_no_pairs_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match=r"timings|time"):
        compare_times(a, b)


def test_slower_is_believed_only_when_seen_twice() -> None:
    slow, same = compare_times([1.0] * 9, [2.0] * 9), compare_times([1.0] * 9, [1.0] * 9)
    assert look_twice(slow, lambda: same) is same
    assert look_twice(slow, lambda: slow).verdict == "slower"


def test_no_second_look_without_suspicion() -> None:
    same = compare_times([1.0] * 9, [1.0] * 9)

    def never() -> None:
        raise AssertionError("measured again")

    assert look_twice(same, never) is same  # type: ignore[arg-type]
