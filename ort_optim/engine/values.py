"""NumPy values to ONNX Runtime values and back, the types NumPy lacks included.

Part of the worker, which starts without importing onnx: hence the table of element types.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort

from ort_optim.engine.wire import Blob, Value

ELEMENT_TYPES = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4_e2m1fn": 23,
    "float8_e8m0fnu": 24,
    "uint2": 25,
    "int2": 26,
}
"""onnx.TensorProto.DataType of the element types that ORT's binding can't make arrays of."""

PACKED_BITS = {"uint4": 4, "int4": 4, "float4_e2m1fn": 4, "uint2": 2, "int2": 2}

_NAMES = {code: name for name, code in ELEMENT_TYPES.items()}
_STEMS = ("bfloat16", "float8", "float4", "int4", "int2")


def numpy_can_hold(ort_type: str) -> bool:
    """Whether `InferenceSession.run` can return a value of this type, such as "tensor(float)"."""
    return not any(stem in ort_type for stem in _STEMS)


def to_ort(feeds: Mapping[str, Value], *, always: bool = False) -> dict[str, Any]:
    """Feeds for a session: arrays of ml_dtypes become OrtValues, with `always` all arrays do."""
    return {name: _to_ort(value, always) for name, value in feeds.items()}


def _to_ort(value: Value, always: bool) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OSU":
        return value
    if value.dtype.name in ELEMENT_TYPES:
        return _from_bits(np.ascontiguousarray(value), value.dtype.name)
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) if always else value


def _from_bits(array: np.ndarray[Any, Any], dtype_name: str) -> Any:
    raw = array.view(f"u{array.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, ELEMENT_TYPES[dtype_name])


def from_ort(value: Any) -> Value:
    """The array behind an OrtValue that `OrtValue.numpy` refuses; None for an empty optional."""
    if value is None or not value.has_value():
        return None
    name = _NAMES[value.element_type()]
    dtype = np.dtype(getattr(ml_dtypes, name))
    shape = tuple(value.shape())
    count = math.prod(shape)
    bits = PACKED_BITS.get(name, dtype.itemsize * 8)
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), (count * bits + 7) // 8), np.uint8)
    if bits < 8:
        raw = _unpack(raw, bits, count)
    return raw.view(dtype).reshape(shape)


def _unpack(raw: np.ndarray[Any, Any], bits: int, count: int) -> np.ndarray[Any, Any]:
    """Packed elements, the lowest bits first, to one byte each, as ml_dtypes holds them."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count].astype(np.uint8)


def map_blob(blob: Blob) -> Any:
    """The tensor's bytes as an OrtValue over a read-only mapping of its file."""
    raw = np.memmap(
        blob.path, np.uint8, mode="r", offset=blob.offset_bytes, shape=(blob.length_bytes,)
    )
    if blob.dtype in ELEMENT_TYPES:
        dtype = np.dtype(getattr(ml_dtypes, blob.dtype))
        return _from_bits(raw.view(dtype).reshape(blob.shape), blob.dtype)
    return ort.OrtValue.ortvalue_from_numpy(raw.view(blob.dtype).reshape(blob.shape))
