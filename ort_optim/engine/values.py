"""NumPy values to ONNX Runtime values and back, the types NumPy lacks included."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ort_optim.engine.wire import Blob, Value

EXOTIC_TYPES = ("bfloat16", "float8", "int4", "int2", "float4")
"""Element types that ORT's Python binding cannot turn into NumPy arrays."""

PACKED_BITS = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4}


def numpy_can_hold(ort_type: str) -> bool:
    """Whether `InferenceSession.run` can return a value of this type, such as "tensor(float)"."""
    return not any(exotic in ort_type for exotic in EXOTIC_TYPES)


def to_ort(feeds: Mapping[str, Value], *, always: bool = False) -> dict[str, Any]:
    """Feeds for a session: arrays of ml_dtypes become OrtValues, with `always` all arrays do."""
    return {name: _to_ort(value, always) for name, value in feeds.items()}


def _to_ort(value: Value, always: bool) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind in "OSU":
        return value
    if type(value.dtype.type(0)).__module__ != "numpy":  # bfloat16 and the float8 family
        raw = np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}")
        element_type = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, element_type)
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) if always else value


def from_ort(value: Any) -> Value:
    """The array behind an OrtValue that `OrtValue.numpy` refuses; None for an empty optional."""
    if value is None or not value.has_value():
        return None
    element_type = value.element_type()
    shape = tuple(value.shape())
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element_type)
    count = math.prod(shape)
    bits = PACKED_BITS.get(element_type, dtype.itemsize * 8)
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), (count * bits + 7) // 8), np.uint8)
    if bits == 4:  # two elements a byte, the low half first
        halves = np.stack([raw & 0xF, raw >> 4], axis=-1).reshape(-1)[:count].astype(np.int8)
        if element_type == onnx.TensorProto.INT4:
            halves = np.where(halves > 7, halves - 16, halves)
        return halves.astype(dtype).reshape(shape)
    return raw.view(dtype).reshape(shape)


def map_blob(blob: Blob) -> Any:
    """The tensor's bytes as an OrtValue over a read-only mapping of its file."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(blob.data_type)
    raw = np.memmap(
        blob.path, np.uint8, mode="r", offset=blob.offset_bytes, shape=(blob.length_bytes,)
    )
    if type(dtype.type(0)).__module__ != "numpy":
        array = raw.view(f"u{dtype.itemsize}").reshape(blob.shape)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, blob.data_type)
    return ort.OrtValue.ortvalue_from_numpy(raw.view(dtype).reshape(blob.shape))
