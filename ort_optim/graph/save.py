"""Writes a model whole or not at all.

The file is written beside its place under a temporary name, flushed to the disk and renamed.
External data goes first, into a file named by its content, so that at any instant the model in
place refers to data that is there. Whatever a killed run left behind is removed by the next one.

    OUT.onnx                              the model
    OUT.onnx.<sha256>.data                its external data, if it has any
    .OUT.onnx.<pid>-<place>-<n>.tmp       the model being written, from before its data is in place
    .OUT.onnx.data.<pid>-<place>-<n>.tmp  the data being written

A link as OUT is replaced, never written through: what it leads to may belong to a hub's cache, and
external data must lie beside the name that the model is opened by.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto, numpy_helper

from ort_optim.errors import InputError
from ort_optim.graph.leftovers import remove_leftovers, temporary_beside
from ort_optim.graph.load import PROTOBUF_LIMIT_BYTES, LoadedModel, load_model
from ort_optim.graph.walk import inner_tensors, tensors
from ort_optim.graph.weights import external_range, is_external, make_inline, size_bytes

EXTERNAL_FROM_BYTES = 1024  # smaller tensors stay in the model file
INLINE_LIMIT_BYTES = 1_800_000_000  # a larger model gets external data
ALIGNMENT_BYTES = 4096  # a page, so that the data can be mapped
CHUNK_BYTES = 1 << 24

_DATA_NAME = r"\.[0-9a-f]{64}\.data"


def check_writable(out: Path) -> None:
    """Raise InputError if `out` can't be written; nothing is changed."""
    folder = out.parent
    try:
        if out.is_dir():
            raise InputError(f"{out} is a directory: name the file to write")
        if out.exists() and not out.is_file():
            raise InputError(f"{out} is not a regular file: name the file to write")
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from None
    if not folder.is_dir():
        raise InputError(f"the output folder {folder} does not exist: make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"the output folder {folder} is read-only")


def _place(out: Path) -> Path:
    """The path without links among its folders."""
    return out.parent.resolve() / out.name


def clean_up(out: Path) -> None:
    """Remove what earlier runs for `out` left: temporary files and data nothing refers to.

    Files that a running process writes are left alone, so is data that any file in the folder
    names (the model may have been copied or renamed), and all data if the model in place can't be
    read or another one is about to take its place.
    """
    out = _place(out)
    with _one_line_errors(out):
        pattern = re.escape(out.name) + _DATA_NAME
        # Data first: what is put there from now on belongs to a temporary file seen hereafter.
        stale = {path for path in out.parent.iterdir() if re.fullmatch(pattern, path.name)}
        if remove_leftovers(out) or not stale:
            return
        if out.exists():
            try:
                stale -= set(load_model(out).data_files)
            except InputError:
                return
        for path in stale - _named_in_files(stale, out.parent):
            with suppress(PermissionError):  # Windows: something still has it open
                path.unlink(missing_ok=True)


def _named_in_files(paths: set[Path], folder: Path) -> set[Path]:
    """Those of `paths` whose names occur in files of the folder that could be models."""
    found: set[Path] = set()
    for file in folder.iterdir():
        if re.search(_DATA_NAME + "$", file.name) or not file.is_file():
            continue
        if 0 < file.stat().st_size <= PROTOBUF_LIMIT_BYTES:
            with (
                file.open("rb") as opened,
                mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as raw,
            ):
                found |= {path for path in paths - found if raw.find(path.name.encode()) >= 0}
    return found


def save_model(
    model: ModelProto,
    folder: Path,
    out: Path,
    *,
    external: bool = False,
    apart: Collection[str] = (),
) -> int:
    """Write `model`, whose external data lies in `folder`, and return the bytes written.

    Data goes to an external file if `external` is set or the model is too large for one message;
    else only that of the main graph's initializers named in `apart`, and all other data into the
    model file. Raises InputError if the disk is full or may not be written; `out` is then as it
    was.
    """
    out = _place(out)
    total = model.ByteSize() + sum(size_bytes(t) for t in tensors(model) if is_external(t))
    with _one_line_errors(out):
        if external or total > INLINE_LIMIT_BYTES:
            return _write_external(model, folder, out, _is_large)
        if not any(_is_among(tensor, apart) for tensor in model.graph.initializer):
            return _write_inline(model, folder, out)
        return _write_external(
            _with_inline_data(model, folder, apart), folder, out, lambda t: _is_among(t, apart)
        )


def _is_large(tensor: TensorProto) -> bool:
    return is_external(tensor) or size_bytes(tensor) >= EXTERNAL_FROM_BYTES


def _is_among(tensor: TensorProto, names: Collection[str]) -> bool:
    return tensor.name in names and size_bytes(tensor) > 0  # strings can't be external


def copy_model(loaded: LoadedModel, out: Path) -> int:
    """Put the original in the place of `out`, byte for byte, and return the bytes written.

    With external data and another folder the data is written anew beside `out`, and the model
    refers to it there.
    """
    out = _place(out)
    if loaded.data_files and loaded.folder.resolve() != out.parent:
        fresh = load_model(loaded.path)
        return save_model(fresh.model, fresh.folder, out, external=True)
    if out.exists() and out.samefile(loaded.path):
        return loaded.size_bytes
    with _one_line_errors(out), _replacing(out) as file, loaded.path.open("rb") as source:
        shutil.copyfileobj(source, file, CHUNK_BYTES)
    return loaded.size_bytes


def _write_inline(model: ModelProto, folder: Path, out: Path) -> int:
    inlined = _with_inline_data(model, folder)
    raw = inlined.SerializeToString()
    with _replacing(out) as file:
        file.write(raw)
    return len(raw)


def _with_inline_data(model: ModelProto, folder: Path, apart: Collection[str] = ()) -> ModelProto:
    """The model, or a copy that has all data but that of the initializers `apart` inside."""
    if not any(_moving(model, apart)):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in _moving(copy, apart):
        make_inline(tensor, folder)
    return copy


def _moving(model: ModelProto, apart: Collection[str]) -> Iterator[TensorProto]:
    """The external tensors but the initializers `apart`."""
    yield from (t for t in model.graph.initializer if is_external(t) and t.name not in apart)
    yield from (t for t in inner_tensors(model) if is_external(t))


def _write_external(
    model: ModelProto, folder: Path, out: Path, goes: Callable[[TensorProto], bool]
) -> int:
    """Write the model, and the data of initializers that `goes` picks to a file of its own."""
    slim = ModelProto()
    slim.CopyFrom(model)
    try:
        # The model's temporary file keeps others from taking the data for stale.
        with _replacing(out) as file:
            data_bytes = _write_data(slim, folder, out, goes)
            raw = slim.SerializeToString()
            file.write(raw)
    except BaseException:
        with suppress(InputError):
            clean_up(out)
        raise
    return len(raw) + data_bytes


def _write_data(
    slim: ModelProto, folder: Path, out: Path, goes: Callable[[TensorProto], bool]
) -> int:
    """Move initializers that `goes` picks, and what is external, into a data file for `out`; the
    bytes written."""
    temporary = temporary_beside(out.with_name(out.name + ".data"))
    placed: list[TensorProto] = []
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for tensor in slim.graph.initializer:
                if goes(tensor):
                    _append(file, digest, tensor, folder)
                    placed.append(tensor)
            for tensor in inner_tensors(slim):
                if is_external(tensor):
                    _append(file, digest, tensor, folder)
                    placed.append(tensor)
            data_bytes = file.tell()
            _flush(file)
        data = out.with_name(f"{out.name}.{digest.hexdigest()}.data")
        try:
            temporary.replace(data)
        except PermissionError:  # Windows: the same data is there already, and mapped
            if not data.is_file() or data.stat().st_size != data_bytes:
                raise
    finally:
        temporary.unlink(missing_ok=True)
    for tensor in placed:
        tensor.external_data[0].value = data.name
    return data_bytes


def _append(file: BinaryIO, digest: hashlib._Hash, tensor: TensorProto, folder: Path) -> None:
    """Write one tensor's bytes at the next aligned offset and let the tensor refer to them."""
    padding = bytes(-file.tell() % ALIGNMENT_BYTES)
    file.write(padding)
    digest.update(padding)
    offset = file.tell()
    for chunk in _chunks(tensor, folder):
        file.write(chunk)
        digest.update(chunk)
    length = file.tell() - offset
    name, data_type, dims = tensor.name, tensor.data_type, list(tensor.dims)
    notes = tensor.doc_string, list(tensor.metadata_props)
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.doc_string = name, data_type, notes[0]
    tensor.dims.extend(dims)
    tensor.metadata_props.extend(notes[1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", ""), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _chunks(tensor: TensorProto, folder: Path) -> Iterator[bytes]:
    """The tensor's bytes as they are in raw data."""
    if not is_external(tensor):
        if not tensor.HasField("raw_data"):
            tensor = numpy_helper.from_array(numpy_helper.to_array(tensor))
        yield tensor.raw_data
        return
    where = external_range(tensor, folder)
    left = where.length_bytes
    with where.path.open("rb") as source:
        source.seek(where.offset_bytes)
        while left > 0 and (chunk := source.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` in one step if the block ends well."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            yield file
            _flush(file)
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _one_line_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(f"the disk is full: {out} was not written") from None
        raise InputError(f"{out} can't be written: {error.strerror}") from None
