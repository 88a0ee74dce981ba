"""What travels between the engine's client and its worker process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Value = Any
"""A graph input or output: np.ndarray | list (sequence) | dict (map) | None (empty optional)."""


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output as ONNX Runtime declares it.

    `type` is ORT's spelling, such as "tensor(float)"; `shape` has an int for a fixed dimension,
    a str for a symbolic one and None for an unnamed one. `shape` is empty for scalars and for
    anything that is not a tensor.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Blob:
    """Where the bytes of one tensor lie in a file."""

    name: str
    dtype: str  # NumPy's or ml_dtypes' name, such as "float32" or "bfloat16"
    shape: tuple[int, ...]
    path: Path
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True)
class Extension:
    """A custom operator library, and what it is to do for one model.

    `library` exports `ort_optim_stage(bytes, length)`, which readies `blob` for the registration
    that follows on the same thread and returns what is wrong with it, or NULL.
    """

    library: Path
    blob: bytes


@dataclass(frozen=True)
class ModelSource:
    """A model for the worker: a file, or serialized bytes with the blobs it refers to.

    `blobs` are handed to ORT as memory-mapped initializers, so external data is neither copied
    nor subject to ORT's refusal of linked files. `extension` is registered with its sessions.
    """

    path: Path | None = None
    proto: bytes | None = None
    blobs: tuple[Blob, ...] = field(default_factory=tuple)
    extension: Extension | None = None


@dataclass(frozen=True)
class Reply:
    """A worker's answer: a value, or the one-line reason why ORT refused."""

    value: Any = None
    error: str | None = None
