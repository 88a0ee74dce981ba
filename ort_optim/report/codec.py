"""Frozen dataclasses to plain JSON data and back, and their JSON Schema.

encode        a dataclass -> dicts, lists, strings and numbers
decode        plain data -> the dataclass; DecodeError names the place that is wrong
decode_value  plain data -> a value of any type that is understood
json_schema   the JSON Schema (draft 2020-12) of a dataclass

The types understood are str, bool, int, float, JsonValue, Literal, `X | None`, tuple[X, ...],
Mapping[str, X] and dataclasses of these; in what has no schema also tuple[X, Y], list[X] and
frozenset[X]. JSON has no NaN and no infinity: they are written as the
strings "NaN", "Infinity" and "-Infinity" wherever a float may stand.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

T = TypeVar("T")
JsonValue = Any
"""Any value that JSON can hold: None, bool, int, float, str, lists and dicts of these."""

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class DecodeError(ValueError):
    """Plain data that does not fit the dataclass; the message starts with the place."""


def encode(value: Any) -> JsonValue:
    """Plain data of a dataclass: tuples become lists, non-finite floats become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's integers among them
        return int(value)
    if isinstance(value, numbers.Real):
        return _encode_float(float(value))
    if isinstance(value, frozenset):
        return [encode(item) for item in sorted(value)]
    if isinstance(value, Sequence):
        return [encode(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no place in a report")


def _encode_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def decode(cls: type[T], data: JsonValue, place: str = "") -> T:
    """The dataclass `cls` that `data` describes.

    Unknown keys are ignored, as a newer writer may have added them. Raises DecodeError, which
    names the place ("timing.ratio: expected a number"), on a missing key or a wrong type.
    """
    if not isinstance(data, Mapping):
        raise DecodeError(f"{place or 'report'}: expected an object")
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        inner = f"{place}.{field.name}" if place else field.name
        if field.name in data:
            values[field.name] = decode_value(hints[field.name], data[field.name], inner)
        elif _is_required(field):
            raise DecodeError(f"{inner}: missing")
    return cls(**values)


def decode_value(hint: Any, data: JsonValue, place: str = "") -> Any:
    """The value of type `hint` that `data` describes. Raises DecodeError as `decode` does."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type[Any], hint), data, place)
    if origin is Literal:
        if not isinstance(data, str) or data not in arguments:
            raise DecodeError(f"{place}: expected one of {', '.join(map(repr, arguments))}")
        return data
    if origin is types.UnionType:
        (inner,) = (item for item in arguments if item is not type(None))
        return None if data is None else decode_value(inner, data, place)
    if origin in (tuple, list, frozenset):
        if not isinstance(data, list):
            raise DecodeError(f"{place}: expected a list")
        if origin is not tuple or arguments[-1] is ...:
            arguments = (arguments[0],) * len(data)
        if len(arguments) != len(data):
            raise DecodeError(f"{place}: expected {len(arguments)} items")
        return origin(
            decode_value(each, item, f"{place}[{i}]")
            for i, (each, item) in enumerate(zip(arguments, data, strict=True))
        )
    if origin is Mapping:
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            raise DecodeError(f"{place}: expected an object")
        return {
            key: decode_value(arguments[1], item, f"{place}.{key}") for key, item in data.items()
        }
    return _decode_scalar(hint, data, place)


def _decode_scalar(hint: Any, data: JsonValue, place: str) -> Any:
    if hint is float:
        if isinstance(data, str) and data in NON_FINITE:
            return NON_FINITE[data]
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            return float(data)
        raise DecodeError(f"{place}: expected a number")
    if hint is int and isinstance(data, bool):
        raise DecodeError(f"{place}: expected an integer")
    if not isinstance(data, hint):
        names = {str: "a string", int: "an integer", bool: "true or false"}
        raise DecodeError(f"{place}: expected {names[hint]}")
    return data


def json_schema(cls: type[Any]) -> dict[str, JsonValue]:
    """The JSON Schema of `cls`; nested dataclasses are under `$defs`, by class name."""
    definitions: dict[str, JsonValue] = {}
    body = _object_schema(cls, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.__name__,
        **body,
        "$defs": dict(sorted(definitions.items())),
    }


def _object_schema(cls: type[Any], definitions: dict[str, JsonValue]) -> dict[str, JsonValue]:
    hints, fields = _hints(cls), dataclasses.fields(cls)
    return {
        "description": (cls.__doc__ or "").strip().partition("\n")[0],
        "type": "object",
        "properties": {f.name: _schema(hints[f.name], definitions) for f in fields},
        "required": [f.name for f in fields if _is_required(f)],
    }


def _schema(hint: Any, definitions: dict[str, JsonValue]) -> dict[str, JsonValue]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if dataclasses.is_dataclass(hint):
        cls = typing.cast(type[Any], hint)
        if cls.__name__ not in definitions:
            definitions[cls.__name__] = {}  # claimed first, so that recursion ends
            definitions[cls.__name__] = _object_schema(cls, definitions)
        return {"$ref": f"#/$defs/{cls.__name__}"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is types.UnionType:
        (inner,) = (item for item in arguments if item is not type(None))
        return {"anyOf": [_schema(inner, definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if hint is float:
        return {"anyOf": [{"type": "number"}, {"enum": list(NON_FINITE)}]}
    return {"type": {str: "string", int: "integer", bool: "boolean"}[hint]}


def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing
