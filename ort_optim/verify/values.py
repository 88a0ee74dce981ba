"""Random values of one graph input, fit for what the model does with them.

Draw          what a drawing goes by: random generator, variant (number of the input set) and
              level (how narrow the ranges are: raised when the reference answers NaN)
draw_value    a value of any ORT type: tensor, sequence, map or optional
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ort_optim.engine import Value
from ort_optim.verify.metrics import is_float
from ort_optim.verify.uses import Extent, Use

LEVELS = 4
"""Level 0 draws freely, each further one from a narrower range."""

ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "string": np.dtype(object),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    **{name: np.dtype(name) for name in ("float16", "bool", "complex64", "complex128")},
    **{
        f"{sign}int{bits}": np.dtype(f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    **{
        name.replace("_", ""): np.dtype(getattr(ml_dtypes, name))
        for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
    },
    "int4": np.dtype(ml_dtypes.int4),
    "uint4": np.dtype(ml_dtypes.uint4),
}
"""NumPy types by ORT's name for the element type."""

WORDS = ("the", "quick", "brown", "fox", "Über", "a", "42")
IMAGE_CHANNELS = (1, 3, 4)
SEQUENCE_LENGTH = 3

_MASK = re.compile(r"mask")
_LENGTH = re.compile(r"(^|[_.])(len|lens|length|lengths|seqlens?)($|[_.\d])")
_SEGMENT = re.compile(r"type|segment")
_POSITION = re.compile(r"position|pos_ids")
_RATE = re.compile(r"^sr$|sample_?rate")
_SCALE = re.compile(r"scale")
_ZERO_POINT = re.compile(r"zero_?point")
_FRACTION = re.compile(r"prob|score|conf|thresh|iou|penalty")


@dataclass(frozen=True)
class Draw:
    """How to draw. `resolve` turns an Extent into the dimension it names (None: unknown)."""

    rng: np.random.Generator
    variant: int = 0
    level: int = 0
    resolve: Callable[[Extent], int | None] = lambda extent: None
    dims_of: Callable[[str], tuple[int, ...] | None] = lambda tensor: None


def draw_value(
    name: str,
    ort_type: str,
    shape: tuple[int, ...],
    uses: Sequence[Use],
    draw: Draw,
    element_shapes: Sequence[tuple[int, ...]] = ((2, 3),),
) -> Value:
    """A value of the ORT type `ort_type`, such as "tensor(float)" or "seq(tensor(int64))".

    `element_shapes` gives the tensors of a sequence their shapes, in turn. Raises ValueError for
    a type that nothing can be drawn for.
    """
    if match := re.fullmatch(r"optional\((.*)\)", ort_type):
        return draw_value(name, match[1], shape, uses, draw, element_shapes)
    if match := re.fullmatch(r"seq\((.*)\)", ort_type):
        return [
            draw_value(name, match[1], element_shapes[i % len(element_shapes)], uses, draw)
            for i in range(SEQUENCE_LENGTH)
        ]
    if match := re.fullmatch(r"map\((\w+),\s*(?:tensor\()?(\w+)\)?\)", ort_type):
        return _draw_map(match[1], match[2], uses, draw)
    match = re.fullmatch(r"tensor\((\w+)\)", ort_type)
    if match is None or match[1] not in ELEMENT_TYPES:
        raise ValueError(f"input '{name}': no values can be made up for the type {ort_type}")
    return draw_tensor(name, ELEMENT_TYPES[match[1]], shape, uses, draw)


def draw_tensor(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], uses: Sequence[Use], draw: Draw
) -> np.ndarray:
    """An array of `dtype` and `shape`; never all zeros where other values are allowed."""
    if dtype.kind == "O":
        return _strings(shape, uses, draw)
    for use in sorted(uses, key=lambda use: _PRIORITY.index(use.kind)):
        special = _drawn_for(use, dtype, shape, uses, draw)
        if special is not None:
            return _as_type(special, dtype, shape)
    named = _drawn_for_name(name.lower(), dtype, shape, uses, draw)
    if named is not None:
        return _as_type(named, dtype, shape)
    if dtype.kind == "b":
        return _booleans(shape, draw)
    if dtype.kind in "iu" or "int" in dtype.name:
        return _as_type(_integers(dtype, shape, draw), dtype, shape)
    if dtype.kind == "c":
        return _as_type(_floats(shape, draw) + 1j * _floats(shape, draw), dtype, shape)
    return _as_type(_floats(shape, draw), dtype, shape)


_PRIORITY = (
    "reshape",
    "like",
    "split",
    "pads",
    "batched",
    "axes",
    "one",
    "corners",
    "keys",
    "length",
    "index",
    "compared",
    "range",
    "mask",
    "added",
)


def _drawn_for(
    use: Use, dtype: np.dtype[Any], shape: tuple[int, ...], uses: Sequence[Use], draw: Draw
) -> np.ndarray | None:
    """Values for one use; None where it does not apply to this type or shape."""
    count = math.prod(shape)
    rng = draw.rng
    limit = draw.resolve(use.limit) if isinstance(use.limit, Extent) else use.limit
    match use.kind:
        case "reshape":
            return np.array([-1] + [1] * (count - 1))[:count]
        case "like":
            dims = draw.dims_of(use.limit.tensor) if isinstance(use.limit, Extent) else None
            return np.array(dims) if dims is not None and len(dims) == count else None
        case "split":
            if limit is None or count == 0:
                return None
            return np.array([limit // count] * (count - 1) + [limit - limit // count * (count - 1)])
        case "pads":
            pads = np.asarray(rng.integers(0, 2, (2, count // 2)))  # (before and after, axis)
            if count >= 6:
                pads[:, :2] = 0
            return pads if pads.size == count else None
        case "batched":
            return np.array([limit or 1] + [3] * (count - 1))[:count]
        case "axes":
            return np.arange(count)
        case "one":
            return np.ones(shape)
        case "corners":
            return _boxes(shape, rng)
        case "keys":
            numbers = [k for k in use.values if isinstance(k, (int, float))]
            return rng.choice(numbers, shape) if numbers else None
        case "length":
            lengths = rng.integers(1, (limit or 1) + 1, count)
            lengths[:1] = limit or 1
            return lengths
        case "index":
            return _indices(use, limit, uses, shape, draw) if not is_float(dtype) else None
        case "compared":
            if count > 1:
                return None
            return np.full(shape, use.values[draw.variant % len(use.values)])
        case "range":
            low, high = _common_range(uses)
            if is_float(dtype) or dtype.kind == "c":
                return rng.uniform(low, high, shape)
            return _integers_within(low, high, shape, rng)
        case "mask":
            return _mask(shape, draw)
        case _:
            return None


def _drawn_for_name(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], uses: Sequence[Use], draw: Draw
) -> np.ndarray | None:
    """Values that an input's name suggests when no use has told."""
    rng = draw.rng
    if _MASK.search(name):
        mask = _mask(shape, draw)
        if is_float(dtype) and any(use.kind == "added" for use in uses):
            return (1 - mask) * (-1e4 if dtype.itemsize <= 2 else -1e9)
        return mask
    if _ZERO_POINT.search(name):
        return _integers_within(0, 10, shape, rng)
    if is_float(dtype):
        if _SCALE.search(name):
            return rng.uniform(0.01, 0.05, shape)
        return rng.uniform(0.1, 0.9, shape) if _FRACTION.search(name) else None
    if dtype.kind not in "iu":
        return None
    if _RATE.search(name):
        return np.full(shape, (16000, 8000)[draw.variant % 2])
    if _LENGTH.search(name):
        return _integers_within(1, 4, shape, rng)
    if _SEGMENT.search(name):
        return _integers_within(0, 1, shape, rng)
    if _POSITION.search(name) and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    return None


def _common_range(uses: Sequence[Use]) -> tuple[float, float]:
    """The range that all "range" uses allow; the first one's where they contradict each other."""
    ranges = [(use.low, use.high) for use in uses if use.kind == "range"]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    return (low, high) if low <= high else ranges[0]


def _indices(
    use: Use, limit: int | None, uses: Sequence[Use], shape: tuple[int, ...], draw: Draw
) -> np.ndarray:
    """Integers whose consumers see [0, limit), for all index uses of the input at once."""
    low, high = -math.inf, math.inf
    for other in uses:
        if other.kind != "index":
            continue
        n = draw.resolve(other.limit) if isinstance(other.limit, Extent) else other.limit
        ends = sorted((end - other.shift) / other.scale for end in (0, (n or 2) - 1))
        low, high = max(low, ends[0]), min(high, ends[1])
    if low > high:
        low, high = 0, (limit or 1) - 1
    if draw.level:
        high = min(high, low + 1)
    whole_low, whole_high = math.ceil(low), math.floor(high)
    count = math.prod(shape)
    if use.op.startswith("Scatter") and 0 < count <= whole_high - whole_low + 1:
        # an index met twice is written in no particular order
        picked = draw.rng.permutation(whole_high - whole_low + 1)[:count] + whole_low
        return picked.reshape(shape)
    return _integers_within(whole_low, whole_high, shape, draw.rng)


def _integers_within(
    low: float, high: float, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    first, last = math.ceil(low), math.floor(high)
    drawn = rng.integers(first, max(first, last) + 1, shape)
    drawn = np.asarray(drawn)
    if drawn.size and last > 0 and not drawn.any():
        drawn.reshape(-1)[-1] = last
    return drawn


def _mask(shape: tuple[int, ...], draw: Draw) -> np.ndarray:
    """Ones, then zeros, along the last axis; at least half are ones, all in the first row."""
    if not shape or draw.level:
        return np.ones(shape)
    length = shape[-1]
    rows = math.prod(shape[:-1])
    kept = draw.rng.integers((length + 1) // 2, length + 1, rows)
    kept[:1] = length if draw.variant % 2 == 0 else max(1, length - 1)
    return (np.arange(length) < kept[:, None]).astype(np.float64).reshape(shape)


def _boxes(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray | None:
    """(..., 4) corners with the first below the second, in the unit square."""
    if not shape or shape[-1] != 4:
        return None
    first = rng.uniform(0.0, 0.5, (*shape[:-1], 2))
    return np.concatenate([first, first + rng.uniform(0.1, 0.5, first.shape)], axis=-1)


def _booleans(shape: tuple[int, ...], draw: Draw) -> np.ndarray:
    """Single conditions go one way in even sets and the other in odd ones."""
    if math.prod(shape) <= 1:
        return np.full(shape, draw.variant % 2 == 0)
    if draw.level:
        return np.ones(shape, np.bool_)
    drawn = draw.rng.random(shape) < 0.5
    drawn.reshape(-1)[0] = True
    return drawn


def _integers(dtype: np.dtype[Any], shape: tuple[int, ...], draw: Draw) -> np.ndarray:
    if draw.level:
        return _integers_within(1, 2 if draw.level == 1 else 1, shape, draw.rng)
    if dtype.name == "uint8" or (len(shape) >= 3 and _is_image(shape)):
        return np.round(_pixels(shape, draw.rng) * 255)
    if dtype.name == "int8":
        return _integers_within(-100, 100, shape, draw.rng)
    if dtype.name in ("int4", "uint4"):
        return _integers_within(0, 7, shape, draw.rng)
    return _integers_within(1, (10, 4, 3)[draw.variant % 3], shape, draw.rng)


def _floats(shape: tuple[int, ...], draw: Draw) -> np.ndarray:
    """Images: 0..1, 0..255, standard normal, in different sets. Else normal, 0..1, wider normal."""
    rng = draw.rng
    if draw.level:
        low, high = ((0.1, 1.0), (0.5, 1.5), (0.001, 0.01))[draw.level - 1]
        return rng.uniform(low, high, shape)
    if _is_image(shape):
        if draw.variant % 3 == 2:
            return rng.standard_normal(shape)
        return _pixels(shape, rng) * (1.0, 255.0)[draw.variant % 3]
    if draw.variant % 3 == 1:
        return rng.uniform(0.0, 1.0, shape)
    return np.asarray(rng.standard_normal(shape)) * (1.0, 1.0, 3.0)[draw.variant % 3]


def _is_image(shape: tuple[int, ...]) -> bool:
    """Whether (N, C, H, W), (N, H, W, C) or one of them without N, by its channels and extent."""
    if len(shape) not in (3, 4):
        return False
    first, last = shape[-3], shape[-1]
    return (first in IMAGE_CHANNELS and min(shape[-2:]) > 4) or (
        last in IMAGE_CHANNELS and min(shape[-3:-1]) > 4
    )


def _pixels(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values 0..1 that vary slowly over the picture, with a little noise, as photographs do."""
    if not _is_image(shape):
        return np.asarray(rng.uniform(0.0, 1.0, shape))
    channels_last = shape[-1] in IMAGE_CHANNELS and shape[-3] not in IMAGE_CHANNELS
    planes = (*shape[:-3], shape[-1], *shape[-3:-1]) if channels_last else shape  # (.., C, H, W)
    coarse = rng.uniform(0.0, 1.0, (*planes[:-2], 8, 8))
    rows, columns = (_stretch(8, n) for n in planes[-2:])  # (H, 8), (W, 8)
    smooth = rows @ coarse @ columns.T  # (.., C, H, W)
    picture = np.clip(0.9 * smooth + 0.1 * rng.uniform(0.0, 1.0, planes), 0.0, 1.0)
    return np.moveaxis(picture, -3, -1) if channels_last else picture


def _stretch(coarse: int, fine: int) -> np.ndarray:
    """(fine, coarse) matrix of linear interpolation."""
    at = np.linspace(0, coarse - 1, fine)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(coarse)))


def _strings(shape: tuple[int, ...], uses: Sequence[Use], draw: Draw) -> np.ndarray:
    known = [k for use in uses for k in use.values if isinstance(k, str)]
    pool = np.array([*known, "unheard-of"] if known else WORDS, dtype=object)
    return np.asarray(pool[draw.rng.integers(0, len(pool), shape)], dtype=object).reshape(shape)


def _draw_map(key_type: str, value_type: str, uses: Sequence[Use], draw: Draw) -> dict[Any, Any]:
    """A map with the keys that the model's vocabulary knows, some of them left out."""
    known: list[Any] = [k for use in uses for k in use.values]
    keys = known or (["a", "b", "c"] if key_type == "string" else [0, 1, 2])
    kept = [key for i, key in enumerate(keys) if i == 0 or draw.rng.random() < 0.8]
    if value_type == "string":
        return {key: str(draw.rng.choice(WORDS)) for key in kept}
    if "int" in value_type:
        return {key: int(draw.rng.integers(1, 10)) for key in kept}
    return {key: float(draw.rng.uniform(0.1, 2.0)) for key in kept}


def _as_type(values: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """The values as `dtype`, kept within what the type can hold."""
    values = np.asarray(values)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(np.round(values.astype(np.float64)), info.min, info.max)
    elif dtype.name in ("int4", "uint4"):
        values = np.clip(np.round(values), 0, 7).astype(np.int8)
    return np.ascontiguousarray(values.astype(dtype)).reshape(shape)
