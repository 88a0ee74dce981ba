"""The bytes of constant tensors, wherever they lie: inline, in external data, or sparse.

External data stays on disk: `to_array` maps the file, `external_range` says where a tensor lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ort_optim.errors import InputError

LONGEST_SHOWN = 200  # letters of a location in an error
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

Array = NDArray[np.generic]

_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    getattr(TensorProto, "INT2", -1): 2,
    getattr(TensorProto, "UINT2", -1): 2,
}


@dataclass(frozen=True)
class ByteRange:
    """Half-open byte interval [offset, offset + length) of a file."""

    path: Path
    offset_bytes: int
    length_bytes: int


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's data lies in a file of its own."""
    return tensor.data_location == TensorProto.EXTERNAL


def size_bytes(tensor: TensorProto) -> int:
    """What the tensor's elements take in memory; 0 for strings, whose size is not fixed."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * bits + 7) // 8


def external_range(tensor: TensorProto, folder: Path) -> ByteRange:
    """Where an external tensor's bytes lie.

    Raises InputError if the location leaves `folder`, is missing, or is too short. A link in the
    folder may lead elsewhere only as model hubs' caches have it: into a sibling folder `blobs`.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = resolve_location(location, folder, tensor.name)
    length = size_bytes(tensor)
    with _readable(path):
        available = path.stat().st_size
    try:
        offset = int(entries.get("offset") or 0)
        stated = int(entries.get("length") or length)
    except ValueError:
        raise InputError(
            f"tensor '{tensor.name}': offset or length of its external data is not a number"
        ) from None
    if offset < 0 or stated < length or offset + length > available:
        if _is_lfs_pointer(path):
            raise InputError(
                f"external data '{location}' is a git-lfs pointer, not the data: run `git lfs pull`"
            )
        raise InputError(
            f"external data '{location}' is too short for tensor '{tensor.name}': "
            f"needs bytes {offset} to {offset + length} of {available}"
        )
    return ByteRange(path, offset, length)


def _is_lfs_pointer(path: Path) -> bool:
    with _readable(path), path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


@contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    """Turns what the system says against reading external data into an InputError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"external data '{path}' can't be read: {reason}") from None


def resolve_location(location: str, folder: Path, tensor_name: str) -> Path:
    """The file an external location names. Raises InputError as `external_range` says."""
    pure = PurePosixPath(location.replace("\\", "/"))
    if not location or pure.is_absolute() or ".." in pure.parts or Path(location).is_absolute():
        raise InputError(
            f"external data '{location}' of tensor '{tensor_name}' leaves the model's folder"
        )
    named = folder / pure
    with _readable(location if len(location) < LONGEST_SHOWN else f"{location[:LONGEST_SHOWN]}..."):
        is_there = named.is_file()
    if not is_there:
        raise InputError(
            f"external data file '{named}' of tensor '{tensor_name}' is missing: "
            "put it beside the model"
        )
    real = named.resolve()
    if real.is_relative_to(folder.resolve()) or _is_hub_blob(real, folder):
        return real
    raise InputError(
        f"external data '{location}' of tensor '{tensor_name}' is a link that leaves the "
        "model's folder"
    )


def _is_hub_blob(real: Path, folder: Path) -> bool:
    """Hub caches lay out REPO/snapshots/REVISION/FILE -> REPO/blobs/HASH."""
    for above in folder.resolve().parents:
        if above.name == "snapshots":
            return real.parent == above.parent / "blobs"
    return False


def to_array(tensor: TensorProto, folder: Path) -> Array:
    """The tensor's values; external data is mapped read-only, not copied."""
    if not is_external(tensor):
        return numpy_helper.to_array(tensor)
    where = external_range(tensor, folder)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if tensor.data_type in _BITS or where.length_bytes == 0:
        inline = TensorProto()
        inline.CopyFrom(tensor)
        make_inline(inline, folder)
        return numpy_helper.to_array(inline)
    with _readable(where.path):
        raw = np.memmap(
            where.path, np.uint8, mode="r", offset=where.offset_bytes, shape=(where.length_bytes,)
        )
    return raw.view(dtype).reshape(tuple(tensor.dims))


def make_inline(tensor: TensorProto, folder: Path) -> None:
    """Read an external tensor's bytes into the proto itself."""
    where = external_range(tensor, folder)
    with _readable(where.path), where.path.open("rb") as file:
        file.seek(where.offset_bytes)
        tensor.raw_data = file.read(where.length_bytes)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def sparse_to_array(sparse: onnx.SparseTensorProto, folder: Path) -> Array:
    """The dense array, shape `sparse.dims`, of a sparse tensor with 1-D or 2-D indices."""
    values = to_array(sparse.values, folder)
    indices = to_array(sparse.indices, folder)
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:  # (NNZ,) positions in the flattened tensor
        dense.reshape(-1)[indices] = values
    else:  # (NNZ, rank) coordinates
        dense[tuple(indices.T)] = values
    return dense
