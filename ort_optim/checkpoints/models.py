"""Candidate models as content files, without the weights that the original has anyway.

KeptModels      `put` a model, `get` it again
TooLargeError   a model does not go into one file

What a heavy model shares with the original, which lies unloaded in the spill of each run, is kept
by name; what a pass has made is kept with its data. A model with external data refers to that.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError as ParseError
from onnx import ModelProto, TensorProto

from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.engine import Spill
from ort_optim.graph import LoadedModel
from ort_optim.graph.walk import tensors
from ort_optim.graph.weights import is_external, make_inline

MOST_BYTES = 2**31 - 1  # of a protobuf message

Entries = dict[str, str]
"""The fields of `external_data`."""


class TooLargeError(Exception):
    """A model does not go into one file."""


class KeptModels:
    """Models made of `original`, whose heavy weights lie in `spill`."""

    def __init__(self, folder: WorkFolder, original: LoadedModel, spill: Spill) -> None:
        self._folder = folder
        self._spill = spill
        self._is_unloaded = original.folder == spill.folder
        self._places: dict[str, Entries] = {}
        if self._is_unloaded:
            heavy = filter(is_external, original.model.graph.initializer)
            self._places = {tensor.name: _entries(tensor) for tensor in heavy}
        self._names = {tuple(where.items()): name for name, where in self._places.items()}
        self._latest: tuple[str, ModelProto] | None = None  # most steps share their model

    def put(self, model: ModelProto) -> str:
        """Keep a model, and return the name of its file. Raises TooLargeError, and InputError
        where it can't be written."""
        if self._latest is not None and self._latest[1] is model:
            return self._latest[0]
        named = self._with_names(model) if self._is_unloaded else model
        if named.ByteSize() > MOST_BYTES:
            raise TooLargeError
        self._latest = self._folder.put(named.SerializeToString(), ".onnx"), model
        return self._latest[0]

    def get(self, name: object) -> ModelProto:
        """The model that `put` kept. Raises DamagedError if the file is not what was written."""
        if self._latest is not None and self._latest[0] == name:
            return self._latest[1]
        raw = self._folder.get(name)
        try:
            model = ModelProto.FromString(raw)
        except ParseError:
            raise DamagedError(f"{name} is not a model") from None
        if self._is_unloaded:
            self._find_named(model)
        self._latest = str(name), model
        return model

    def _with_names(self, model: ModelProto) -> ModelProto:
        """A copy whose external tensors are inline, or name the tensor of the original."""
        copy = ModelProto()
        copy.CopyFrom(model)
        for tensor in filter(is_external, tensors(copy)):
            name = self._names.get(tuple(_entries(tensor).items()))
            if name is None:
                make_inline(tensor, self._spill.folder)
            else:
                _set_entries(tensor, {"location": name})
        return copy

    def _find_named(self, model: ModelProto) -> None:
        """Let tensors that name one of the original refer to its data."""
        for tensor in filter(is_external, tensors(model)):
            name = _entries(tensor).get("location", "")
            if name not in self._places:
                raise DamagedError(f"the original has no tensor '{name}'")
            _set_entries(tensor, self._places[name])


def _entries(tensor: TensorProto) -> Entries:
    return {entry.key: entry.value for entry in tensor.external_data}


def _set_entries(tensor: TensorProto, entries: Entries) -> None:
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
