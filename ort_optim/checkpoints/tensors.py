"""Graph inputs and outputs as one .npz archive, without pickle, and back to equal values.

pack_values     tensors of all element types, sequences, maps, empty optionals -> bytes
unpack_values   the same values again

The archive holds each tensor's bytes, and as `structure` the JSON of what they are bytes of.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from ort_optim.engine import Value

STRUCTURE = "structure"

Json = Any


def pack_values(value: Value) -> bytes:
    """The archive of a value; dicts, lists and tuples of values are values, too."""
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(_pack(value, arrays))
    arrays[STRUCTURE] = np.frombuffer(structure.encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpack_values(raw: bytes) -> Value:
    """The value of an archive; tuples come back as lists. Raises ValueError if it is none."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            structure = json.loads(archive[STRUCTURE].tobytes())
            return _unpack(structure, archive)
    except (KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not an archive of tensors: {error}") from None


def _pack(value: Value, arrays: dict[str, np.ndarray]) -> Json:
    if value is None:
        return None
    if isinstance(value, dict):
        return {"map": [[_pack(k, arrays), _pack(v, arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_pack(each, arrays) for each in value]}
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        about: dict[str, Json] = {"dtype": array.dtype.name, "shape": list(array.shape)}
        if isinstance(value, np.generic):
            about["scalar"] = True
        if array.dtype.kind in "OSU":
            about["dtype"] = "object" if array.dtype.kind == "O" else array.dtype.str
            return {**about, "items": [_pack_text(each) for each in array.ravel().tolist()]}
        name = str(len(arrays))
        arrays[name] = np.frombuffer(array.tobytes(), np.uint8)
        return {**about, "bytes": name}
    return {"plain": _pack_text(value)}


def _pack_text(value: Any) -> Json:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise TypeError(f"a {type(value).__name__} is no element of a tensor")
    return value


def _unpack(found: Json, archive: np.lib.npyio.NpzFile) -> Value:
    if found is None:
        return None
    if "map" in found:
        return {_unpack(k, archive): _unpack(v, archive) for k, v in found["map"]}
    if "list" in found:
        return [_unpack(each, archive) for each in found["list"]]
    if "plain" in found:
        return _unpack_text(found["plain"])
    shape = tuple(int(size) for size in found["shape"])
    array: np.ndarray
    if "items" in found:
        array = np.empty(math.prod(shape), np.dtype(found["dtype"]))
        array[:] = [_unpack_text(each) for each in found["items"]]
    else:
        name = found["dtype"]
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        array = archive[found["bytes"]].view(dtype)
    array = array.reshape(shape)
    return array[()] if found.get("scalar") else array


def _unpack_text(found: Json) -> Any:
    return bytes.fromhex(found["hex"]) if isinstance(found, dict) else found
