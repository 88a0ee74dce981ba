"""One kernel's machine code as a file that is mapped and run where it lies.

A header of 64 bytes: magic, version of the format, bytes before the code, bytes of code, and the
SHA-256 of all that follows it. Then the offsets of the functions as JSON, then at a multiple of 64
the code. Offsets count from the start of the file, so the file is mapped whole.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from ort_optim.compiler.image import ALIGNMENT, Image

FORMAT = 1
_MAGIC = b"OrtOptim"
_HEADER = struct.Struct("<8sIIQ8x32s")
assert _HEADER.size == ALIGNMENT


@dataclass(frozen=True)
class CodeFile:
    """A file of machine code, and where in it the kernel's function begins."""

    path: Path
    entry: int


def pack(image: Image) -> bytes:
    """The contents of the file of an image."""
    table = json.dumps(image.entries, sort_keys=True).encode()
    start = -(-(_HEADER.size + len(table)) // ALIGNMENT) * ALIGNMENT
    rest = table.ljust(start - _HEADER.size) + image.code
    digest = hashlib.sha256(rest).digest()
    return _HEADER.pack(_MAGIC, FORMAT, start, len(image.code), digest) + rest


def entry_of(contents: bytes, name: str) -> int | None:
    """Where the function `name` begins, or None where these are no sound contents of its file."""
    if digest_of(contents) is None:
        return None
    _, _, start, _, _ = _HEADER.unpack_from(contents)
    table: dict[str, int] = json.loads(contents[_HEADER.size : start])
    return start + table[name] if name in table else None


def digest_of(contents: bytes) -> str | None:
    """The digest that the header of a file states, or None where its contents are not sound."""
    if len(contents) < _HEADER.size:
        return None
    magic, version, start, code_bytes, digest = _HEADER.unpack_from(contents)
    if magic != _MAGIC or version != FORMAT or len(contents) != start + code_bytes:
        return None
    stated: bytes = digest
    return stated.hex() if hashlib.sha256(contents[_HEADER.size :]).digest() == stated else None
