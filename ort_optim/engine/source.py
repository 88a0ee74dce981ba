"""Makes a model ready to travel to the worker: its bytes, and where its large tensors lie.

Two things do not fit into one protobuf message: external data, which ORT looks for beside a file
that does not exist yet, and new weights of a model near 2 GB. Both are handed over as blobs that
the worker maps into memory.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from ort_optim.engine.wire import Blob, ModelSource
from ort_optim.graph.load import inner_tensors
from ort_optim.graph.weights import (
    ByteRange,
    external_range,
    is_external,
    make_inline,
    size_bytes,
    to_array,
)

MESSAGE_LIMIT_BYTES = 1_500_000_000
SPILLED_BYTES = 1 << 20  # when a model is too large, tensors from this size on go to a file


def make_source(model: ModelProto, folder: Path, scratch: Path) -> ModelSource:
    """What `Engine.open` takes for a model whose external data lies in `folder`.

    Weights that must leave a message that is too large are written to a new file in `scratch`,
    which must outlive the session. The model itself stays as it is.
    """
    inner = [tensor for tensor in inner_tensors(model) if is_external(tensor)]
    odd = [t for t in model.graph.initializer if is_external(t) and not _can_be_mapped(t)]
    too_large = model.ByteSize() > MESSAGE_LIMIT_BYTES
    if inner or odd or too_large:
        copy = ModelProto()
        copy.CopyFrom(model)
        model = copy
        for tensor in inner_tensors(model):
            if is_external(tensor):
                make_inline(tensor, folder)
    blobs = []
    for tensor in model.graph.initializer:
        if is_external(tensor):
            if _can_be_mapped(tensor):
                blobs.append(_blob(tensor, external_range(tensor, folder)))
            else:
                make_inline(tensor, folder)
    if too_large:
        blobs.extend(_spill(model, scratch))
    return ModelSource(proto=model.SerializeToString(), blobs=tuple(blobs))


def _dtype(tensor: TensorProto) -> np.dtype[np.generic]:
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)


def _can_be_mapped(tensor: TensorProto) -> bool:
    """Whether each element takes a whole number of bytes, and there is at least one."""
    return 0 < size_bytes(tensor) == int(_dtype(tensor).itemsize) * math.prod(tensor.dims)


def _blob(tensor: TensorProto, where: ByteRange) -> Blob:
    return Blob(
        tensor.name,
        _dtype(tensor).name,
        tuple(tensor.dims),
        where.path,
        where.offset_bytes,
        where.length_bytes,
    )


def _spill(model: ModelProto, scratch: Path) -> list[Blob]:
    """Move the large inline initializers of `model` to a file; it must be a copy."""
    blobs = []
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".weights", delete=False) as file:
        for tensor in model.graph.initializer:
            length = size_bytes(tensor)
            if is_external(tensor) or length < SPILLED_BYTES or not _can_be_mapped(tensor):
                continue
            offset = file.tell()
            file.write(to_array(tensor, scratch).tobytes())
            blobs.append(_blob(tensor, ByteRange(Path(file.name), offset, length)))
            bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            bare.data_location = TensorProto.EXTERNAL
            bare.external_data.add(key="location", value=Path(file.name).name)
            tensor.CopyFrom(bare)
    return blobs
