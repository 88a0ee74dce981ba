"""The user's own samples: `--data SAMPLES.npz` or `--data FOLDER`.

    load_samples    a file or folder, and the model's inputs -> feeds, one dict per sample

A folder holds .npz files, or ONNX test data (`test_data_set_0/input_0.pb`, ...). In an .npz file
the arrays are named like the inputs. An array of the input's shape is one sample; with one more
axis in front, or with a first axis that is a multiple of the input's fixed batch, it is several.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from ort_optim.engine import TensorInfo, Value
from ort_optim.errors import InputError
from ort_optim.verify.values import ELEMENT_TYPES

Feeds = dict[str, Value]


def load_samples(path: Path, infos: Sequence[TensorInfo]) -> list[Feeds]:
    """Samples for a model with the inputs `infos`, at least one.

    Raises InputError, one line, for whatever does not fit: a missing path, no samples, wrong
    names, element types, ranks or shapes, arrays of Python objects, numbers of samples that differ
    between inputs.
    """
    if not path.exists():
        raise InputError(f"--data {path}: no such file or folder")
    if path.is_dir():
        samples = _from_folder(path, infos)
    elif path.suffix == ".npz":
        samples = _from_npz(path, infos)
    else:
        raise InputError(f"--data {path}: give a .npz file or a folder of samples")
    if not samples:
        raise InputError(f"--data {path}: holds no samples")
    return samples


def _from_folder(folder: Path, infos: Sequence[TensorInfo]) -> list[Feeds]:
    archives = sorted(folder.glob("*.npz"))
    if archives:
        return [sample for archive in archives for sample in _from_npz(archive, infos)]
    sets = sorted(folder.glob("test_data_set_*"), key=lambda p: (len(p.name), p.name))
    if not sets and any(folder.glob("input_*.pb")):
        sets = [folder]
    if not sets:
        raise InputError(
            f"--data {folder}: neither .npz files nor test_data_set_* folders in there"
        )
    return [_from_protobufs(one, infos) for one in sets]


def _from_npz(path: Path, infos: Sequence[TensorInfo]) -> list[Feeds]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError(f"--data {path}: one bare array; save it by name in a .npz file")
        with loaded as archive:
            _check_names(path, archive.files, infos)
            arrays = {info.name: _read_array(path, archive, info.name) for info in infos}
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise InputError(f"--data {path}: can't be read: {_one_line(error)}") from None
    split = {info.name: _split(path, info, arrays[info.name]) for info in infos}
    counts = {name: len(parts) for name, parts in split.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise InputError(f"--data {path}: different numbers of samples per input ({told})")
    count = next(iter(counts.values()), 0)
    return [{name: parts[i] for name, parts in split.items()} for i in range(count)]


def _read_array(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        array: np.ndarray = archive[name]
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(
                f"--data {path}: '{name}' holds Python objects; save numbers, or fixed-width "
                "strings"
            ) from None
        raise
    return array


def _from_protobufs(folder: Path, infos: Sequence[TensorInfo]) -> Feeds:
    """One sample of ONNX test data: the files bear the inputs' names, or come in their order."""
    files = sorted(folder.glob("input_*.pb"), key=lambda p: int(re.sub(r"\D", "", p.stem) or 0))
    if len(files) != len(infos):
        raise InputError(
            f"--data {folder}: {len(files)} input_*.pb files for a model with {len(infos)} inputs"
        )
    by_name = {info.name: info for info in infos}
    feeds: Feeds = {}
    for file, positional in zip(files, infos, strict=True):
        if not positional.type.startswith("tensor("):
            feeds[positional.name] = _read_other(file, positional)
            continue
        tensor = TensorProto()
        try:
            tensor.ParseFromString(file.read_bytes())
            array = numpy_helper.to_array(tensor)
        except (OSError, DecodeError, TypeError, ValueError) as error:
            raise InputError(f"--data {file}: can't be read: {_one_line(error)}") from None
        info = by_name.get(tensor.name, positional)
        if array.dtype.kind in "SU":
            array = array.astype(object)
        _check_type(file, info, array)
        if not _fits(array.shape, info.shape):
            raise InputError(_shape_message(file, info, array))
        feeds[info.name] = array
    return feeds


def _read_other(file: Path, info: TensorInfo) -> Value:
    """A sequence or optional of ONNX test data."""
    try:
        if info.type.startswith("seq("):
            return numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(file.read_bytes()))
    except (OSError, DecodeError, TypeError, ValueError) as error:
        raise InputError(
            f"--data {file}: can't be read as {info.type}: {_one_line(error)}"
        ) from None


def _check_names(path: Path, found: Sequence[str], infos: Sequence[TensorInfo]) -> None:
    wanted = [info.name for info in infos]
    if not found:
        raise InputError(f"--data {path}: the archive is empty")
    if missing := [name for name in wanted if name not in found]:
        raise InputError(
            f"--data {path}: no array named {_listed(missing)} "
            f"(found {_listed(found)}; the model's inputs are {_listed(wanted)})"
        )
    if unknown := [name for name in found if name not in wanted]:
        raise InputError(
            f"--data {path}: {_listed(unknown)} is not an input of the model "
            f"(its inputs are {_listed(wanted) or 'none'})"
        )


def _check_type(path: Path, info: TensorInfo, array: np.ndarray) -> None:
    element = info.type.removeprefix("tensor(").removesuffix(")")
    wanted = ELEMENT_TYPES.get(element)
    if wanted is None:
        raise InputError(f"--data {path}: inputs of type {info.type} ('{info.name}') can't be read")
    same = array.dtype == wanted or (wanted.kind == "O" and array.dtype.kind in "OSU")
    if not same:
        raise InputError(
            f"--data {path}: '{info.name}' is {array.dtype}, the model wants {wanted.name}"
            if wanted.kind != "O"
            else f"--data {path}: '{info.name}' is {array.dtype}, the model wants strings"
        )


def _split(path: Path, info: TensorInfo, array: np.ndarray) -> list[np.ndarray]:
    """The samples in one array of an archive."""
    if array.dtype.kind in "SU":
        array = array.astype(object)
    elif array.dtype.kind == "V":  # np.save writes bfloat16 and the like as nameless bytes
        element = ELEMENT_TYPES.get(info.type.removeprefix("tensor(").removesuffix(")"))
        if element is not None and element.itemsize == array.dtype.itemsize:
            array = array.view(element)
    _check_type(path, info, array)
    declared = info.shape
    if _fits(array.shape, declared):
        return [array]
    if array.ndim == len(declared) + 1 and _fits(array.shape[1:], declared):
        return list(array)  # (samples, *shape) -> samples x (*shape)
    batch = declared[0] if declared else None
    if (
        isinstance(batch, int)
        and batch > 0
        and array.ndim == len(declared)
        and array.shape[0] > 0
        and array.shape[0] % batch == 0
        and _fits(array.shape[1:], declared[1:])
    ):
        return np.split(array, array.shape[0] // batch)
    raise InputError(_shape_message(path, info, array))


def _fits(shape: Sequence[int], declared: Sequence[int | str | None]) -> bool:
    """Whether every fixed dimension is as declared."""
    return len(shape) == len(declared) and all(
        not isinstance(dim, int) or dim < 0 or dim == size
        for size, dim in zip(shape, declared, strict=True)
    )


def _shape_message(path: Path, info: TensorInfo, array: np.ndarray) -> str:
    wanted = "x".join("?" if d is None else str(d) for d in info.shape) or "scalar"
    found = "x".join(map(str, array.shape)) or "scalar"
    return f"--data {path}: '{info.name}' has shape {found}, the model wants {wanted}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
