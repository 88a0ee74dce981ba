"""Error figures of one tensor against another: what `compare` and the reports print."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import ml_dtypes
import numpy as np

QUANTILE_SAMPLE = 1 << 20  # quantiles of larger tensors are taken from an evenly spaced sample
SIGNIFICANT = 1e-3  # relative errors are taken where |reference| is at least this part of the peak
LEAST_CLASSES = 3
LEAST_VOCABULARY = 32  # (batch, position, class) counts as a classifier from this many classes on


@dataclass(frozen=True)
class ErrorFigures:
    """Errors of a tensor against its reference, over the elements that are finite in both.

    `max_rel` is taken over elements whose reference is at least 1e-3 of the peak (elsewhere the
    ratio says nothing). `p50`, `p90`, `p99` are quantiles of the absolute error. `snr_db` is
    10 log10(sum ref^2 / sum err^2), infinite when equal. `top1` is the share of rows whose largest
    element is the same one, None where the tensor does not look like a classifier's.
    """

    max_abs: float
    max_rel: float
    mean_abs: float
    p50: float
    p90: float
    p99: float
    cosine: float
    snr_db: float
    top1: float | None

    def as_plain(self) -> dict[str, float | None]:
        """Plain data for JSON: None for what is not finite (the SNR of equal tensors)."""
        return {
            key: None if value is None or not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` is a real floating type, those of ml_dtypes included."""
    if dtype.kind == "f":
        return True
    return dtype.kind == "V" and "float" in dtype.name


def machine_epsilon(dtype: np.dtype[Any]) -> float:
    """The distance from 1 to the next number of a floating type."""
    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def measure(expected: np.ndarray, found: np.ndarray) -> ErrorFigures:
    """Error figures of `found` against `expected`: same shape, any real numeric types."""
    top1 = _top1_agreement(expected, found)
    if is_float(expected.dtype):
        finite = np.isfinite(expected) & np.isfinite(found)
        if not finite.all():
            expected, found = expected[finite], found[finite]
    if expected.size == 0 or np.array_equal(expected, found):
        return ErrorFigures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, math.inf, top1)
    e = expected.ravel().astype(np.float64)
    f = found.ravel().astype(np.float64)
    error = np.abs(f - e)
    magnitude = np.abs(e)
    significant = magnitude >= max(SIGNIFICANT * float(magnitude.max()), 1e-300)
    max_rel = float((error[significant] / magnitude[significant]).max(initial=0.0))
    sample = error[:: math.ceil(error.size / QUANTILE_SAMPLE)]
    p50, p90, p99 = (float(q) for q in np.quantile(sample, (0.5, 0.9, 0.99)))
    e_power, f_power, noise = float(e @ e), float(f @ f), float(error @ error)
    norm = math.sqrt(e_power) * math.sqrt(f_power)
    return ErrorFigures(
        max_abs=float(error.max()),
        max_rel=max_rel,
        mean_abs=float(error.mean()),
        p50=p50,
        p90=p90,
        p99=p99,
        cosine=float(np.clip(float(e @ f) / norm, -1, 1)) if norm > 0 else 0.0,
        snr_db=_decibel(e_power, noise),
        top1=top1,
    )


def _decibel(power: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0 else -math.inf


def _top1_agreement(expected: np.ndarray, found: np.ndarray) -> float | None:
    """Share of rows with the same largest element, where the tensor looks like class scores.

    That is (batch, classes), with trailing axes of 1 allowed, or (batch, position, vocabulary).
    """
    shape = list(expected.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    looks_like_classes = (len(shape) == 2 and shape[-1] >= LEAST_CLASSES) or (
        len(shape) == 3 and shape[-1] >= LEAST_VOCABULARY
    )
    if not looks_like_classes or not is_float(expected.dtype) or expected.size == 0:
        return None
    rows = (-1, shape[-1])
    return float(
        np.mean(expected.reshape(rows).argmax(axis=1) == found.reshape(rows).argmax(axis=1))
    )
