"""Reads a model's file without the bytes of its weights: a hundred megabytes in a millisecond.

What a session needs to know is the graph and the shapes of weights. ONNX Runtime reads the weights
by itself, so they are skipped here, in the file's own encoding, before anything is parsed.
"""

from __future__ import annotations

from typing import BinaryIO

from onnx import GraphProto, ModelProto, TensorProto

from ort_optim.graph.skeleton import SKELETON_BYTES

GRAPH = ModelProto.GRAPH_FIELD_NUMBER
INITIALIZER = GraphProto.INITIALIZER_FIELD_NUMBER
HEAVY = frozenset({TensorProto.RAW_DATA_FIELD_NUMBER, TensorProto.FLOAT_DATA_FIELD_NUMBER})

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_LONGEST_VARINT = 10


class MalformedError(ValueError):
    """No model, or one that protobuf has to be asked about."""


def outline(file: BinaryIO) -> bytes:
    """The model without the data of the main graph's larger initializers, as protobuf bytes.

    The sizes of what is left out are not looked at. Raises MalformedError where the file is no
    message, OSError where it can't be read.
    """
    end = file.seek(0, 2)
    return _Outline(file).message(0, end, (GRAPH, INITIALIZER))


class _Outline:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0

    def message(self, start: int, end: int, path: tuple[int, ...]) -> bytes:
        """The message from `start` to `end`; `path` leads to the fields that lose their data."""
        self._at = start
        self._file.seek(start)
        parts: list[bytes] = []
        while self._at < end:
            tag = self._varint()
            number, kind = tag >> 3, tag & 7
            if kind != _BYTES:
                parts += [_varint(tag), self._number(kind)]
                continue
            size = self._varint()
            after = self._at + size
            if after > end:
                raise MalformedError("a field is longer than its message")
            if path and number == path[0]:
                inner = self.message(self._at, after, path[1:])
                parts += [_varint(tag), _varint(len(inner)), inner]
            elif path or number not in HEAVY or size <= SKELETON_BYTES:
                parts += [_varint(tag), _varint(size), self._read(size)]
            self._at = after
            self._file.seek(after)
        if self._at != end:
            raise MalformedError("a field is longer than its message")
        return b"".join(parts)

    def _number(self, kind: int) -> bytes:
        if kind == _VARINT:
            return _varint(self._varint())
        if kind in (_EIGHT_BYTES, _FOUR_BYTES):
            return self._read(8 if kind == _EIGHT_BYTES else 4)
        raise MalformedError("a group")

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            (byte,) = self._read(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedError("a number without end")

    def _read(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise MalformedError("the file ends within a message")
        self._at += size
        return found


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
