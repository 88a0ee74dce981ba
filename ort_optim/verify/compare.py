"""How far two sets of outputs lie apart, and whether that is near enough.

    Tolerance           what the user allows, or the defaults that follow from the element type
    OutputComparison    one tensor compared: error figures, verdict, and which bound decided
    compare_outputs     all outputs of one run against those of the reference

The rules, in this order:

 1. Structure, element type and shape must be the same. Outputs that depend on random ops are
    asked for nothing more.
 2. Integers, booleans and strings must be equal.
 3. NaN and the two infinities must stand where the reference has them and nowhere else. Where
    the reference holds nothing else, or nothing at all, there is nothing to compare.
 4. Floats: |candidate - reference| <= atol + rtol * |reference|, element by element. Unless the
    user says otherwise `atol` is a fraction of the peak of the element's slice (its channel, row,
    column, whichever is least), so that class scores are not passed for standing beside boxes of
    hundreds of pixels. It is at least LEAST_ATOL, and in a tensor with larger numbers as many
    roundings of the largest: below that, tiny numbers do pass for being tiny.
 5. Where that fails and the caller hands in what ONNX Runtime's own optimizations make of the
    original ("own"): an error of up to twice theirs is accepted. Where theirs is so large that
    twice it would accept anything (quantized models, mostly), SNR and top-1 decide instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ort_optim.engine import Value
from ort_optim.verify.metrics import ErrorFigures, blocks, is_float, machine_epsilon, measure, peak
from ort_optim.verify.origins import Origin

EXACT = "exact"
PLAIN = "rtol/atol"
TWICE_OWN = "twice ORT's own optimizations"
SNR = "SNR"
TOP1 = "top-1"
NON_FINITE = "non-finite mismatch"
SHAPE = "shape/type"
RANDOM = "random ops: shapes and types only"
NEAR_TIE = "near tie"
NOTHING = "nothing to compare"

FP32_EPSILON = 2.0**-23
DEFAULT_RTOL = 1e-3
DEFAULT_ATOL_OF_PEAK = 1e-4
EPSILONS_RTOL = 8  # of a coarse type: a handful of roundings one after the other
EPSILONS_ATOL_OF_PEAK = 4
MOST_RTOL = 1 / 16  # a type so coarse that its own would accept any numbers is judged as bf16 is
MOST_ATOL_OF_PEAK = 1 / 32
LEAST_ATOL = 8 * FP32_EPSILON
"""Sigmoid and Softmax are exact to a few roundings of 1, not of their own tiny results.

An output whose numbers all stay below it is therefore not told from zeros.
"""

SLICE_EXTENTS = range(2, 1025)  # an axis of such an extent may hold different things side by side
LEAST_SLICE = 64  # elements: the peak of fewer may be small by chance

# ORT's own error beyond this many plain tolerances says nothing about rewrites any more.
OWN_NOISE_LIMIT = 10.0
SNR_MARGIN_DB = 6.0  # twice the noise amplitude
SNR_FLOOR_DB = 10.0
TOP1_MARGIN = 0.01


@dataclass(frozen=True)
class Tolerance:
    """Absolute `atol` and relative `rtol`; None stands for the default of the element type.

    fp32 and fp64: rtol 1e-3, atol 1e-4 of the peak of the element's slice but at least 1e-6. fp16,
    bf16, and fp32 outputs of models that compute in these: 8 and 4 machine epsilons of the coarsest
    type. float8: as bf16, 1/16 and 1/32.
    """

    rtol: float | None = None
    atol: float | None = None

    @property
    def is_stated(self) -> bool:
        """Whether the user says anything."""
        return self.rtol is not None or self.atol is not None

    def relative(self, epsilon: float) -> float:
        """rtol for values computed in a type of machine epsilon `epsilon`."""
        if self.rtol is not None:
            return self.rtol
        return min(max(DEFAULT_RTOL, EPSILONS_RTOL * epsilon), MOST_RTOL)

    def absolute(self, epsilon: float, expected: np.ndarray) -> np.ndarray:
        """atol for each element of `expected` (finite numbers), in an array that broadcasts."""
        if self.atol is not None:
            return np.array(self.atol)
        of_peak = max(DEFAULT_ATOL_OF_PEAK, EPSILONS_ATOL_OF_PEAK * epsilon)
        peaks = slice_peaks(expected)
        least = LEAST_ATOL * max(1.0, peak(expected.ravel()))
        return np.maximum(min(of_peak, MOST_ATOL_OF_PEAK) * peaks, least)


@dataclass(frozen=True)
class OutputComparison:
    """One tensor of the candidate against the reference.

    `name` is the output's name, with the place inside it for sequences and maps (`out[2]`,
    `out['key']`). `bound` is the largest absolute error that was allowed (by the rule named in
    `decided_by`: one of the constants of this module) at the element that came nearest to it; for
    SNR in dB, for top-1 a fraction. `figures` is None where there is nothing to measure.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    passed: bool
    decided_by: str
    reason: str = ""
    bound: float | None = None
    figures: ErrorFigures | None = None
    set_index: int = 0

    @property
    def is_telling(self) -> bool:
        """Whether values were compared: not only types, shapes and the places of NaN."""
        return self.decided_by not in (NOTHING, RANDOM)

    @property
    def max_abs(self) -> float:
        """Largest absolute error; 0 where nothing was measured."""
        return self.figures.max_abs if self.figures else 0.0

    def as_plain(self) -> dict[str, Any]:
        """Plain data for JSON, named as in reports; figures that are not finite become None."""
        figures = self.figures.as_plain() if self.figures else {}
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": self.shape,
            "passed": self.passed,
            "decided_by": self.decided_by,
            "reason": self.reason,
            "bound": self.bound if self.bound is None or np.isfinite(self.bound) else None,
            "set_index": self.set_index,
            **figures,
        }


def compare_outputs(
    reference: Mapping[str, Value],
    candidate: Mapping[str, Value],
    tolerance: Tolerance,
    *,
    origins: Mapping[str, Origin] | None = None,
    own: Mapping[str, Value] | None = None,
) -> list[OutputComparison]:
    """Every output of `reference` against its namesake in `candidate`, in the reference's order.

    `origins` (of `ort_optim.verify.origins`) tells which outputs depend on random ops or coarse
    types; an output that is missing there is taken for plain fp32. `own` are the outputs of the
    original under ONNX Runtime's own optimizations; without them rule 5 does not apply.
    """
    result: list[OutputComparison] = []
    for name, expected in reference.items():
        if name not in candidate:
            result.append(_mismatch(name, expected, "the candidate has no such output"))
            continue
        origin = (origins or {}).get(name, Origin())
        compared = _compare(name, expected, candidate[name], tolerance, origin)
        if own is not None and name in own and any(c.figures and not c.passed for c in compared):
            leaves, own_leaves = _leaves(name, candidate[name]), _leaves(name, own[name])
            expected_leaves = _leaves(name, expected)
            compared = [
                _second_opinion(
                    c,
                    expected_leaves[c.name],
                    leaves[c.name],
                    own_leaves.get(c.name),
                    tolerance,
                    origin,
                )
                if c.figures and not c.passed
                else c
                for c in compared
            ]
        result += compared
    return result


def worst(comparisons: list[OutputComparison]) -> OutputComparison:
    """Of several comparisons of one output the failed, then the telling, then the one most off."""
    return max(comparisons, key=lambda c: (not c.passed, c.is_telling, c.max_abs))


def at_set(comparisons: list[OutputComparison], set_index: int) -> list[OutputComparison]:
    """The same comparisons, marked as belonging to input set number `set_index`."""
    return [replace(comparison, set_index=set_index) for comparison in comparisons]


def _compare(
    name: str, expected: Value, found: Value, tolerance: Tolerance, origin: Origin
) -> list[OutputComparison]:
    """Compare two values of any type; a sequence or map gives one comparison per leaf."""
    if isinstance(expected, list) or isinstance(found, list):
        if not (isinstance(expected, list) and isinstance(found, list)):
            return [_mismatch(name, expected, f"expected {_kind(expected)}, got {_kind(found)}")]
        if len(expected) != len(found) and not origin.random:
            return [
                _mismatch(name, expected, f"sequence of {len(found)} instead of {len(expected)}")
            ]
        pairs = [
            _compare(f"{name}[{i}]", e, f, tolerance, origin)
            for i, (e, f) in enumerate(zip(expected, found, strict=False))
        ]
        return [c for pair in pairs for c in pair] or [_empty(name, "sequence")]
    if isinstance(expected, dict) or isinstance(found, dict):
        if not (isinstance(expected, dict) and isinstance(found, dict)):
            return [_mismatch(name, expected, f"expected {_kind(expected)}, got {_kind(found)}")]
        if expected.keys() != found.keys() and not origin.random:
            return [_mismatch(name, expected, "the maps have different keys")]
        pairs = [
            _compare(f"{name}[{key!r}]", expected[key], found[key], tolerance, origin)
            for key in expected
            if key in found
        ]
        return [c for pair in pairs for c in pair] or [_empty(name, "map")]
    if expected is None or found is None:
        if expected is None and found is None:
            return [_empty(name, "optional")]
        return [_mismatch(name, expected, f"expected {_kind(expected)}, got {_kind(found)}")]
    return [_compare_tensor(name, np.asarray(expected), np.asarray(found), tolerance, origin)]


def _compare_tensor(
    name: str, expected: np.ndarray, found: np.ndarray, tolerance: Tolerance, origin: Origin
) -> OutputComparison:
    if expected.dtype.kind == "c" and found.dtype == expected.dtype:  # (...) -> (..., 2) reals
        expected = np.stack([expected.real, expected.imag], axis=-1)
        found = np.stack([found.real, found.imag], axis=-1)
    same_kind = expected.dtype == found.dtype or (
        expected.dtype.kind in "OSU" and found.dtype.kind in "OSU"
    )
    if not same_kind:
        return _mismatch(name, expected, f"element type {found.dtype} instead of {expected.dtype}")
    if expected.ndim != found.ndim or (
        expected.shape != found.shape and not (origin.random and origin.data_dependent_shape)
    ):
        return _mismatch(name, expected, f"shape {found.shape} instead of {expected.shape}")
    base = OutputComparison(name, str(expected.dtype), expected.shape, True, EXACT)
    if origin.random:
        return replace(base, decided_by=RANDOM)
    if not expected.size:
        return replace(base, decided_by=NOTHING)
    if not is_float(expected.dtype):
        differing = int(np.count_nonzero(expected != found))
        if not differing:
            return base
        return replace(
            base,
            passed=False,
            reason=f"{differing} of {expected.size} elements differ",
            figures=measure(expected, found) if expected.dtype.kind in "iu" else None,
        )
    figures = measure(expected, found)
    base = replace(base, figures=figures, decided_by=PLAIN)
    if misplaced := _misplaced_non_finite(expected, found):
        return replace(base, passed=False, decided_by=NON_FINITE, reason=misplaced)
    if not np.isfinite(expected).any():
        return replace(base, decided_by=NOTHING)
    if figures.max_abs == 0:
        return replace(base, bound=0.0, decided_by=EXACT)
    excess, bound, error = _nearest_to_bound(expected, found, tolerance, origin)
    if excess <= 0:
        return replace(base, bound=bound)
    return replace(
        base, passed=False, bound=bound, reason=f"error {error:.3g} where {bound:.3g} is allowed"
    )


def _second_opinion(
    failed: OutputComparison,
    expected: np.ndarray,
    found: np.ndarray,
    own: np.ndarray | None,
    tolerance: Tolerance,
    origin: Origin,
) -> OutputComparison:
    """Rule 5 for one float tensor that rule 4 refused; `own` is ORT's own optimized output."""
    if failed.decided_by != PLAIN or own is None or own.shape != expected.shape:
        return failed
    if _misplaced_non_finite(expected, own):
        return failed
    own_figures, figures = measure(expected, own), measure(expected, found)
    _, own_bound, own_error = _nearest_to_bound(expected, own, tolerance, origin)
    if not origin.quantized and own_error <= OWN_NOISE_LIMIT * own_bound:
        bound = 2 * own_figures.max_abs
        if figures.max_abs <= bound:
            return replace(failed, passed=True, decided_by=TWICE_OWN, bound=bound, reason="")
        return failed
    least_db = max(own_figures.snr_db - SNR_MARGIN_DB, SNR_FLOOR_DB)
    if figures.snr_db < least_db:
        reason = f"SNR {figures.snr_db:.1f} dB where {least_db:.1f} dB are needed"
        return replace(failed, decided_by=SNR, bound=least_db, reason=reason)
    if figures.top1 is not None and own_figures.top1 is not None:
        least_top1 = own_figures.top1 - TOP1_MARGIN
        if figures.top1 < least_top1:
            reason = f"top-1 agreement {figures.top1:.1%} where {least_top1:.1%} is needed"
            return replace(failed, decided_by=TOP1, bound=least_top1, reason=reason)
    return replace(failed, passed=True, decided_by=SNR, bound=least_db, reason="")


def slice_peaks(values: np.ndarray) -> np.ndarray:
    """For each element the least peak among the slices it lies in, in an array that broadcasts.

    A slice is all of the tensor at one index of an axis. Axes that are no SLICE_EXTENTS, and those
    with slices of fewer than LEAST_SLICE elements, have none; the tensor itself is one.
    """
    magnitudes = np.abs(values if values.dtype == np.float64 else values.astype(np.float32))
    peaks = np.array(magnitudes.max(initial=0.0))
    for axis, extent in enumerate(values.shape):
        if extent in SLICE_EXTENTS and values.size // extent >= LEAST_SLICE:
            others = tuple(other for other in range(values.ndim) if other != axis)
            peaks = np.minimum(peaks, magnitudes.max(axis=others, keepdims=True))
    return peaks


def _nearest_to_bound(
    expected: np.ndarray, found: np.ndarray, tolerance: Tolerance, origin: Origin
) -> tuple[float, float, float]:
    """(error - bound, bound, error) at the element where error - bound is largest.

    Elements that are not finite in the reference are left out: they are rule 3's.
    """
    finite = np.isfinite(expected)
    if not finite.all():
        zero = expected.dtype.type(0)
        expected, found = np.where(finite, expected, zero), np.where(finite, found, zero)
    epsilon = max(origin.epsilon, FP32_EPSILON, machine_epsilon(expected.dtype))
    rtol = tolerance.relative(epsilon)
    atol = np.broadcast_to(tolerance.absolute(epsilon, expected), expected.shape)
    nearest = (-math.inf, 0.0, 0.0)
    for e, f, least in blocks(expected.ravel(), found.ravel(), atol.ravel()):
        error = np.abs(f - e)
        bound = least + rtol * np.abs(e)
        excess = error - bound
        at = int(np.argmax(excess))
        nearest = max(nearest, (float(excess[at]), float(bound[at]), float(error[at])))
    return nearest


def _misplaced_non_finite(expected: np.ndarray, found: np.ndarray) -> str:
    """Where NaN or an infinity stands in one but not the other, in words; empty if nowhere."""
    e_finite, f_finite = np.isfinite(expected), np.isfinite(found)
    if e_finite.all() and f_finite.all():
        return ""
    e_nan, f_nan = np.isnan(expected), np.isnan(found)
    new_nan, lost_nan = int((f_nan & ~e_nan).sum()), int((e_nan & ~f_nan).sum())
    either_inf = (~e_finite & ~e_nan) | (~f_finite & ~f_nan)
    wrong_inf = int((either_inf & ~e_nan & ~f_nan & (expected != found)).sum())
    parts = [
        f"{count} {what}"
        for count, what in (
            (new_nan, "NaN where the reference has none"),
            (lost_nan, "NaN of the reference missing"),
            (wrong_inf, "infinities not as in the reference"),
        )
        if count
    ]
    return ", ".join(parts)


def _leaves(name: str, value: Value) -> dict[str, np.ndarray]:
    """All tensors inside a value, by the names that comparisons give them."""
    if isinstance(value, list):
        parts = [_leaves(f"{name}[{i}]", v) for i, v in enumerate(value)]
        return {key: leaf for part in parts for key, leaf in part.items()}
    if isinstance(value, dict):
        parts = [_leaves(f"{name}[{key!r}]", v) for key, v in value.items()]
        return {key: leaf for part in parts for key, leaf in part.items()}
    return {} if value is None else {name: np.asarray(value)}


def _kind(value: Value) -> str:
    if value is None:
        return "an empty optional"
    if isinstance(value, list):
        return "a sequence"
    return "a map" if isinstance(value, dict) else "a tensor"


def _mismatch(name: str, expected: Value, reason: str) -> OutputComparison:
    dtype = str(expected.dtype) if isinstance(expected, np.ndarray) else _kind(expected)
    shape = expected.shape if isinstance(expected, np.ndarray) else ()
    return OutputComparison(name, dtype, shape, False, SHAPE, reason)


def _empty(name: str, kind: str) -> OutputComparison:
    return OutputComparison(name, f"empty {kind}", (), True, NOTHING)
