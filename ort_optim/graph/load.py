"""Reads a model file, and says in one line what is wrong with one that can't be read.

External data stays on disk, but for small tensors, whose values shape inference needs. That the
files are there, long enough and inside the model's folder is checked here, so that nothing later
stumbles over it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto

from ort_optim.errors import InputError
from ort_optim.graph.skeleton import SKELETON_BYTES
from ort_optim.graph.walk import tensors
from ort_optim.graph.weights import LFS_POINTER, external_range, is_external, make_inline

PROTOBUF_LIMIT_BYTES = 2**31 - 1
ORT_FORMAT_MARK = b"ORTM"  # at byte 4 of a model in ORT's own format


@dataclass(frozen=True)
class LoadedModel:
    """A model as it is in its file, without its external data.

    `folder` is where external locations start; `size_bytes` counts model and external data.
    """

    path: Path
    model: ModelProto
    folder: Path
    size_bytes: int
    data_files: tuple[Path, ...] = ()


def load_model(path: Path) -> LoadedModel:
    """Read a model. Raises InputError with one line that says what is wrong."""
    raw = _read(path)
    model = ModelProto()
    try:
        model.ParseFromString(raw)
    except (DecodeError, UnicodeDecodeError):  # the latter is protobuf's in Python
        raise InputError(_not_a_model(path, raw)) from None
    if not model.HasField("graph"):
        raise InputError(_not_a_model(path, raw))
    # A hub's cache names the model by a link too: external data lies beside the link.
    folder = path.absolute().parent
    _check_text(path, model)
    _check_tensors(path, model)
    external = [(t, external_range(t, folder)) for t in tensors(model) if is_external(t)]
    files = tuple(dict.fromkeys(where.path for _, where in external))
    for tensor, where in external:
        if where.length_bytes <= SKELETON_BYTES:
            make_inline(tensor, folder)
    size = len(raw) + sum(_size_bytes(file) for file in files)
    return LoadedModel(path, model, folder, size, files)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory: name the .onnx file in it")
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise InputError(f"{path} is not a regular file: name an .onnx file")
        if path.stat().st_size > PROTOBUF_LIMIT_BYTES:
            raise InputError(
                f"{path} is larger than 2 GB, which protobuf does not allow: "
                "export it again with external data"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None


def _size_bytes(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"external data '{path}' can't be read: {error.strerror}") from None


def _not_a_model(path: Path, raw: bytes) -> str:
    if not raw:
        return f"{path} is empty"
    if raw.startswith(LFS_POINTER):
        return f"{path} is a git-lfs pointer, not the model: run `git lfs pull`"
    if raw[4:8] == ORT_FORMAT_MARK:
        return f"{path} is in ORT format: give the .onnx file that it was made from"
    head = raw[:4096].decode(errors="replace")
    if all(letter.isprintable() or letter.isspace() for letter in head):
        return f"{path} is a text file, not an ONNX model"
    return f"{path} is not an ONNX model, or it is truncated or damaged"


def _check_text(path: Path, message: Message) -> None:
    """Refuse strings that are not UTF-8: protobuf hands them out as bytes."""
    for field, value in message.ListFields():
        if field.type not in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING):
            continue
        for each in (value,) if isinstance(value, (Message, str, bytes)) else value:
            if isinstance(each, Message):
                _check_text(path, each)
            elif isinstance(each, bytes):
                raise InputError(f"{path} holds names that are not UTF-8: it is damaged")


def _check_tensors(path: Path, model: ModelProto) -> None:
    for tensor in tensors(model):
        if any(dim < 0 for dim in tensor.dims):
            raise InputError(
                f"{path}: tensor '{tensor.name}' has a negative dimension: {[*tensor.dims]}"
            )
        if tensor.data_type not in TensorProto.DataType.values():
            raise InputError(
                f"{path}: tensor '{tensor.name}' has an element type unknown to onnx: "
                f"{tensor.data_type}"
            )
