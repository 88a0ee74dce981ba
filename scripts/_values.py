"""Values of ONNX Runtime sessions: passing them in and out, and how far two of them are apart.

run_once                       one run, also with types that NumPy does not have
difference, first_difference   where two values, or two lists of outputs, disagree
unusable                       an output that proves nothing
"""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

RTOL = 1e-3
ATOL_OF_RANGE = 1e-4

# Types that NumPy itself does not have, and so ORT's Python interface does not convert.
SMALL_FLOATS = {
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(ml_dtypes.float8_e4m3fn): TensorProto.FLOAT8E4M3FN,
    np.dtype(ml_dtypes.float8_e4m3fnuz): TensorProto.FLOAT8E4M3FNUZ,
    np.dtype(ml_dtypes.float8_e5m2): TensorProto.FLOAT8E5M2,
    np.dtype(ml_dtypes.float8_e5m2fnuz): TensorProto.FLOAT8E5M2FNUZ,
}

EXOTIC = ("bfloat16", "float8", "float4", "int4", "int2")

Value = Any  # ndarray, list (sequence), dict (map), None (empty optional) or a scalar of a map


def run_once(session: ort.InferenceSession, feeds: dict[str, Value]) -> list[Value]:
    """The outputs for `feeds`, also of types that NumPy does not have."""
    inputs = [value for value in feeds.values() if is_exotic(value)]
    outputs = [v for v in session.get_outputs() if any(t in v.type for t in EXOTIC)]
    if not inputs and not outputs:
        return list(session.run(None, feeds))
    values = {name: to_ort(value) for name, value in feeds.items()}
    return [from_ort(value) for value in session.run_with_ort_values(None, values)]


def is_exotic(value: Value) -> bool:
    """Whether `value` is an array of a type from ml_dtypes."""
    return isinstance(value, np.ndarray) and type(value.dtype.type(0)).__module__ != "numpy"


def to_ort(value: Value) -> ort.OrtValue:
    """`value` as ORT holds it."""
    if not is_exotic(value):
        return ort.OrtValue.ortvalue_from_numpy(np.asarray(value))
    # Packed types cannot be handed over from Python: a model that only outputs them can.
    tensor = numpy_helper.from_array(value, "value")
    info = helper.make_tensor_value_info("value", tensor.data_type, value.shape)
    graph = helper.make_graph([], "constant", [], [info], [tensor])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run_with_ort_values(None, {})[0]


def from_ort(value: ort.OrtValue) -> Value:
    """The array; of a packed type (int4, say) its bytes; both only read once ORT has run."""
    kind = value.data_type()
    if not any(name in kind for name in EXOTIC):
        return value.numpy()
    size = value.tensor_size_in_bytes()
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), size), np.uint8)
    by_name = {TensorProto.DataType.Name(code).lower(): t for t, code in SMALL_FLOATS.items()}
    known = by_name.get(kind.removeprefix("tensor(").removesuffix(")"))
    return raw if known is None else raw.view(known).reshape(value.shape())


def difference(want: Value, got: Value, where: str = "output", slack: Value = None) -> str:
    """Empty if the two values agree, else one line that says where and how they differ.

    Numbers that are not floats, and strings, must be equal. Floats may differ by
    `RTOL * |want| + ATOL_OF_RANGE * (max - min of want)`; NaN and Inf must stand at the
    same places. `slack`, a value like `want`, widens that to twice its largest distance from it.
    """
    if want is None or got is None:
        return "" if want is got else f"{where}: one side is empty"
    if isinstance(want, dict):
        if set(want) != set(got):
            return f"{where}: other keys"
        return next((d for k in want if (d := difference(want[k], got[k], f"{where}[{k}]"))), "")
    if isinstance(want, list):
        if not isinstance(got, list) or len(want) != len(got):
            return f"{where}: a sequence of another length"
        pairs = enumerate(zip(want, got, strict=True))
        return next((d for i, (w, g) in pairs if (d := difference(w, g, f"{where}[{i}]"))), "")
    want, got = np.asarray(want), np.asarray(got)
    if want.dtype != got.dtype:
        return f"{where}: type {got.dtype} instead of {want.dtype}"
    if want.shape != got.shape:
        return f"{where}: shape {got.shape} instead of {want.shape}"
    small = want.dtype in SMALL_FLOATS
    if want.dtype.kind not in "fc" and not small:
        unequal = int(np.count_nonzero(want != got))
        return f"{where}: {unequal} of {want.size} elements not equal" if unequal else ""
    if small:  # NumPy's functions do not take these types
        epsilon = float(ml_dtypes.finfo(want.dtype).eps)
        want, got = want.astype(np.float32), got.astype(np.float32)
    else:
        epsilon = float(np.finfo(want.dtype).eps)
    finite = np.isfinite(want)
    if not np.array_equal(want[~finite], got[~finite], equal_nan=True):
        return f"{where}: NaN or Inf not where the original has them"
    if not np.isfinite(got[finite]).all():
        return f"{where}: NaN or Inf where the original has none"
    if not finite.any():
        return ""
    kind = np.complex128 if want.dtype.kind == "c" else np.float64
    w, g = want[finite].astype(kind), got[finite].astype(kind)
    spread = float(np.ptp(w.real)) or float(np.abs(w).max())
    # Two neighbours of the output's own type (a float16 output, say) may always differ.
    absolute = max(ATOL_OF_RANGE * spread, epsilon * float(np.abs(w).max()))
    if isinstance(slack, np.ndarray) and slack.shape == want.shape:
        absolute = max(absolute, 2 * float(np.nanmax(np.abs(slack[finite].astype(kind) - w))))
    excess = np.abs(g - w) - (RTOL * np.abs(w) + absolute)
    worst = int(excess.argmax())
    if excess[worst] <= 0:
        return ""
    return f"{where}: {g[worst]:.6g} instead of {w[worst]:.6g} (range of the output {spread:.3g})"


def first_difference(
    names: list[str], want: list[Value], got: list[Value], slack: list[Value] | None = None
) -> str:
    """As `difference`, over the outputs of one run."""
    rows = zip(names, want, got, slack or [None] * len(want), strict=True)
    return next((d for name, w, g, s in rows if (d := difference(w, g, name, s))), "")


def unusable(value: Value) -> bool:
    """Whether an output is float and nowhere finite, so that it proves nothing."""
    array = np.asarray(value) if isinstance(value, np.ndarray) else np.zeros(1)
    return array.dtype.kind == "f" and array.size > 0 and not np.isfinite(array).any()
