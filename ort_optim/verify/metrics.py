"""Error figures of one tensor against another: what `compare` and the reports print."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import ml_dtypes
import numpy as np

BLOCK = 1 << 13  # elements; BLAS would start threads for longer dot products
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
    if is_float(expected.dtype) and not np.array_equal(expected, found):
        finite = np.isfinite(expected) & np.isfinite(found)
        if not finite.all():
            expected, found = expected[finite], found[finite]
    if expected.size == 0 or np.array_equal(expected, found):
        return ErrorFigures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, math.inf, top1)
    e_flat, f_flat = expected.ravel(), found.ravel()
    significant = max(SIGNIFICANT * peak(e_flat), 1e-300)
    max_abs = max_rel = total = e_power = f_power = product = noise = 0.0
    for e, f in blocks(e_flat, f_flat):
        error, magnitude = np.abs(f - e), np.abs(e)
        relative = np.divide(error, magnitude, where=magnitude >= significant, out=np.zeros(e.size))
        max_abs = max(max_abs, float(error.max()))
        max_rel = max(max_rel, float(relative.max()))
        total += float(error.sum())
        e_power, f_power = e_power + float(e @ e), f_power + float(f @ f)
        product, noise = product + float(e @ f), noise + float(error @ error)
    every = math.ceil(e_flat.size / QUANTILE_SAMPLE)
    sample = np.abs(f_flat[::every].astype(np.float64) - e_flat[::every].astype(np.float64))
    p50, p90, p99 = (float(q) for q in np.quantile(sample, (0.5, 0.9, 0.99)))
    norm = math.sqrt(e_power) * math.sqrt(f_power)
    return ErrorFigures(
        max_abs=max_abs,
        max_rel=max_rel,
        mean_abs=total / e_flat.size,
        p50=p50,
        p90=p90,
        p99=p99,
        cosine=min(1.0, max(-1.0, product / norm)) if norm > 0 else 0.0,
        snr_db=_decibel(e_power, noise),
        top1=top1,
    )


def blocks(*flat: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Flat arrays of equal length piece by piece in fp64, each piece small enough for cache."""
    for start in range(0, flat[0].size, BLOCK):
        piece = slice(start, start + BLOCK)
        yield tuple(each[piece].astype(np.float64) for each in flat)


def peak(flat: np.ndarray) -> float:
    """The largest magnitude in a flat array of finite numbers, 0 if it is empty."""
    if flat.size == 0:
        return 0.0
    return max(abs(float(flat.max())), abs(float(flat.min())))


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
