"""Is one model slower than another? Decided on interleaved timings by a paired bootstrap.

    compare_times   two lists of timings -> Ratio with its 95% interval
    look_twice      a "slower" is believed only when a second measurement says it again

Two sessions of one and the same model can differ by several per cent, and tiny models by more, so
a ratio has a margin before it counts, models under 100 us are judged by the difference in
microseconds, and the second look is to be taken with fresh sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Speed = Literal["faster", "same", "slower"]

SAME_WITHIN = 0.97  # a ratio whose interval reaches past this is not "slower" (1/this: "faster")
TINY_MODEL_MS = 0.1  # below this, calls cost more than the model: judge in absolute time
TINY_DIFFERENCE_MS = 0.005
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """How the time of `b` compares with that of `a`, with 95% bootstrap intervals.

    `ratio` is the median over rounds of a/b: above 1, `b` is faster. `difference_ms` is the median
    over rounds of b - a: above 0, `b` is slower. `rounds` is the number of pairs.
    """

    ratio: float
    low: float
    high: float
    difference_ms: float
    difference_low_ms: float
    difference_high_ms: float
    median_a_ms: float
    median_b_ms: float
    rounds: int

    @property
    def verdict(self) -> Speed:
        """What the interval allows to say of `b`: beyond noise, or "same"."""
        if self.median_a_ms < TINY_MODEL_MS:
            if self.difference_low_ms > TINY_DIFFERENCE_MS:
                return "slower"
            return "faster" if self.difference_high_ms < -TINY_DIFFERENCE_MS else "same"
        if self.high < SAME_WITHIN:
            return "slower"
        return "faster" if self.low > 1 / SAME_WITHIN else "same"


def compare_times(a_ms: Sequence[float], b_ms: Sequence[float], seed: int = 0) -> Ratio:
    """Compare timings of `a` and `b` taken in the same rounds: a_ms[i] and b_ms[i] are a pair.

    Whole rounds are resampled, so what slows down both models of a round (another process, the
    clock) cancels. Deterministic for a given `seed`. Raises ValueError for lists that are empty or
    of different lengths, or hold a time that is not positive.
    """
    a = np.asarray(a_ms, np.float64)
    b = np.asarray(b_ms, np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError("timings must be two lists of the same length, at least one round")
    if not (np.all(a > 0) and np.all(b > 0)):
        raise ValueError("every time must be positive")
    rounds = a.size
    picks = np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, rounds))
    tail = (1 - CONFIDENCE) / 2

    def interval(samples: np.ndarray) -> tuple[float, float]:
        medians = np.median(samples[picks], axis=1)  # (RESAMPLES, rounds) -> (RESAMPLES,)
        low, high = np.quantile(medians, (tail, 1 - tail))
        return float(low), float(high)

    ratios, differences = a / b, b - a
    low, high = interval(ratios)
    difference_low, difference_high = interval(differences)
    return Ratio(
        ratio=float(np.median(ratios)),
        low=low,
        high=high,
        difference_ms=float(np.median(differences)),
        difference_low_ms=difference_low,
        difference_high_ms=difference_high,
        median_a_ms=float(np.median(a)),
        median_b_ms=float(np.median(b)),
        rounds=rounds,
    )


def look_twice(first: Ratio, measure_again: Callable[[], Ratio]) -> Ratio:
    """The ratio to go by: `first`, unless it says "slower" and a second look does not.

    `measure_again` should open new sessions: where a session's memory happens to lie is part of
    the noise that the first interval cannot see.
    """
    if first.verdict != "slower":
        return first
    return measure_again()
