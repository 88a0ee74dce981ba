"""Weights that are too heavy to be copied: they lie in one file of the run and are mapped.

Spill           the file; equal bytes are written once, however many models hold them
without_data    a model whose heavy initializers refer to that file
unload          the same for a model just loaded

Copies of a model, and messages that carry it, then cost what its structure costs.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from ort_optim.errors import InputError
from ort_optim.graph.load import LoadedModel
from ort_optim.graph.skeleton import copy_fields
from ort_optim.graph.weights import ByteRange, is_external, size_bytes, to_array

HEAVY_MODEL_BYTES = 64_000_000  # a model with more inline weights is handed over without them
HEAVY_TENSOR_BYTES = 1 << 20  # its smaller tensors stay where they are
ALIGNMENT_BYTES = 64

_numbers = itertools.count()


class Spill:
    """A file in `folder` that holds weights; `folder` must outlive all sessions that map it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / f"{next(_numbers)}.weights"  # a folder may have several
        self._places: dict[bytes, ByteRange] = {}
        self._end = 0

    def place(self, raw: bytes) -> ByteRange:
        """Where `raw` lies in the file. Raises InputError where the disk has no room for it."""
        digest = hashlib.sha256(raw).digest()
        if digest not in self._places:
            offset = self._end + -self._end % ALIGNMENT_BYTES
            try:
                with self.path.open("ab") as file:
                    file.truncate(offset)
                    file.write(raw)
            except OSError as error:
                raise InputError(
                    f"no room for {len(raw) >> 20} MB of weights in {self.folder} "
                    f"({error.strerror}): set TMPDIR to a folder that has it"
                ) from None
            self._end = offset + len(raw)
            self._places[digest] = ByteRange(self.path, offset, len(raw))
        return self._places[digest]


def is_heavy(model: ModelProto) -> bool:
    """Whether the main graph's inline initializers are too much to be copied at each turn."""
    inline = (size_bytes(t) for t in model.graph.initializer if not is_external(t))
    return sum(inline) > HEAVY_MODEL_BYTES


def can_be_mapped(tensor: TensorProto) -> bool:
    """Whether each element takes a whole number of bytes, and there is at least one."""
    size = size_bytes(tensor)
    if size == 0:
        return False
    itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return size == itemsize * math.prod(tensor.dims)


def without_data(model: ModelProto, spill: Spill) -> ModelProto:
    """A copy whose heavy inline initializers are external tensors, with `spill.folder` as the
    folder where their locations start. All else is as it was."""
    copy = ModelProto()
    copy_fields(model, copy, skip=frozenset({"graph"}))
    copy_fields(model.graph, copy.graph, skip=frozenset({"initializer"}))
    for tensor in model.graph.initializer:
        if (
            is_external(tensor)
            or size_bytes(tensor) < HEAVY_TENSOR_BYTES
            or not can_be_mapped(tensor)
        ):
            copy.graph.initializer.append(tensor)
            continue
        where = spill.place(_raw_data(tensor))
        bare = copy.graph.initializer.add(name=tensor.name, data_type=tensor.data_type)
        if tensor.HasField("doc_string"):
            bare.doc_string = tensor.doc_string
        bare.dims.extend(tensor.dims)
        bare.metadata_props.extend(tensor.metadata_props)
        bare.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", where.path.name),
            ("offset", where.offset_bytes),
            ("length", where.length_bytes),
        ):
            bare.external_data.add(key=key, value=str(value))
    return copy


def unload(loaded: LoadedModel, spill: Spill) -> LoadedModel:
    """`loaded`, without its weights in memory if they are heavy and all inline.

    The caller should forget what it gave: a part of a message can't be freed.
    """
    if loaded.data_files or not is_heavy(loaded.model):
        return loaded
    return replace(loaded, model=without_data(loaded.model, spill), folder=spill.folder)


def _raw_data(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    values = to_array(tensor, Path())
    return np.ascontiguousarray(values).tobytes()
