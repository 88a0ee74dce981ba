"""Strict reading of YAML: what is there is named by file, line and field when it is wrong.

    read_document(path) -> Value     the whole file
    Value                            one place in it; `.text()`, `.integer(...)`, ... check its type

The scalars are those of YAML 1.2's core schema, so `no` is a text, and a field that takes a text
takes `123` as it is written. Duplicate keys, which YAML forbids and most readers let pass, are
refused; so are aliases, tags and several documents, which no file of ours needs.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from ort_optim.cluster.units import parse_duration, parse_size
from ort_optim.errors import InputError

T = TypeVar("T")

MOST_BYTES = 64 * 2**20
"""The largest file that is read; 100,000 jobs take about 20 MB."""

DEEPEST = 20
"""Levels of nesting."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?")
_NULLS = {"", "~", "null", "Null", "NULL"}
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Value:
    """One value of a document: a mapping, a list or a scalar, and where it stands.

    Attributes:
        content: dict[str, Value], list[Value], or a scalar as its type in the core schema.
        raw: A scalar as it is written.
    """

    __slots__ = ("content", "file", "key", "line", "parent", "raw")

    def __init__(
        self,
        content: Any,
        raw: str,
        file: Path,
        line: int,
        parent: Value | None = None,
        key: str | int | None = None,
    ) -> None:
        self.content = content
        self.raw = raw
        self.file = file
        self.line = line
        self.parent = parent
        self.key = key

    @property
    def field(self) -> str:
        """Such as "jobs[3].resources.cpus"; empty for the whole document."""
        before = self.parent.field if self.parent else ""
        if self.key is None:
            return before
        if isinstance(self.key, int):
            return f"{before}[{self.key}]"
        return f"{before}.{self.key}" if before else self.key

    def error(self, message: str) -> InputError:
        """An error to be raised about this value."""
        place = f"{self.field}: " if self.field else ""
        return InputError(f"{self.file}:{self.line}: {place}{message}")

    def mapping(self, known: Collection[str] | None = None) -> dict[str, Value]:
        """The values of a mapping by key; with `known`, any other key is an error."""
        if not isinstance(self.content, dict):
            raise self.error(f"must be a mapping of fields, not {self._told()}")
        if known is not None:
            for name, value in self.content.items():
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                    raise value.error(f"unknown field; {hint}")
        return self.content

    def items(self) -> list[Value]:
        """The values of a list."""
        if not isinstance(self.content, list):
            raise self.error(f"must be a list, not {self._told()}")
        return self.content

    def text(self) -> str:
        """Any scalar but null, as it is written."""
        if isinstance(self.content, (dict, list)) or self.content is None:
            raise self.error(f"must be a text, not {self._told()}")
        if "\0" in self.raw:
            raise self.error("holds a zero byte")
        return self.raw

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(each.text() for each in self.items())

    def text_mapping(self) -> dict[str, str]:
        """Texts by key."""
        return {key: value.text() for key, value in self.mapping().items()}

    def flag(self) -> bool:
        """true or false."""
        if not isinstance(self.content, bool):
            raise self.error(f"must be true or false, not {self._told()}")
        return self.content

    def integer(self, least: int, most: int) -> int:
        """A whole number within [least, most]."""
        if not isinstance(self.content, int) or isinstance(self.content, bool):
            raise self.error(f"must be a whole number, not {self._told()}")
        if not least <= self.content <= most:
            raise self.error(f"must be from {least} to {most}, not {self.raw}")
        return self.content

    def milli(self, most: int) -> int:
        """A number within [0, most] of at most three decimals, in thousandths."""
        if not isinstance(self.content, (int, float)) or isinstance(self.content, bool):
            raise self.error(f"must be a number, not {self._told()}")
        value = Decimal(self.raw)
        if not 0 <= value <= most:
            raise self.error(f"must be from 0 to {most}, not {self.raw}")
        milli = value * 1000
        if milli != int(milli):
            raise self.error(f"{self.raw} has more than three decimals")
        return int(milli)

    def size(self) -> int:
        """Bytes, from a number or a text such as 2GiB."""
        return self._parsed(parse_size)

    def duration(self) -> float:
        """Seconds, from a number or a text such as 90s."""
        return self._parsed(parse_duration)

    def plain(self) -> Any:
        """Dicts, lists and scalars."""
        if isinstance(self.content, dict):
            return {key: value.plain() for key, value in self.content.items()}
        if isinstance(self.content, list):
            return [value.plain() for value in self.content]
        return self.content

    def _parsed(self, parse: Callable[[str], T]) -> T:
        try:
            return parse(self.text())
        except ValueError as error:
            raise self.error(str(error)) from None

    def _told(self) -> str:
        if isinstance(self.content, dict):
            return "a mapping"
        if isinstance(self.content, list):
            return "a list"
        return "nothing" if self.content is None else f"'{self.raw[:50]}'"


def read_document(path: Path) -> Value:
    """The one document of a YAML file.

    Raises InputError if the file can't be read or is not YAML as described at the top of this file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}): give another file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path}: larger than {MOST_BYTES >> 20} MiB: split it")
    yaml = _yaml()
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return _Builder(yaml, path).build(events)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


class _Builder:
    """Values from PyYAML's events, without recursion, so that no nesting can exhaust the stack."""

    def __init__(self, yaml: Any, file: Path) -> None:
        self.yaml = yaml
        self.file = file

    def build(self, events: Iterator[Any]) -> Value:
        yaml = self.yaml
        root: Value | None = None
        stack: list[Value] = []
        key: str | None = None
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent and stack and isinstance(stack[-1].content, dict):
                if key is None:
                    key = self._key(event, stack[-1])
                    continue
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                stack.pop()
                continue
            elif kind not in (
                yaml.ScalarEvent,
                yaml.MappingStartEvent,
                yaml.SequenceStartEvent,
                yaml.AliasEvent,
            ):  # the start or the end of the stream or of a document
                continue
            line = event.start_mark.line + 1
            if root is not None and not stack:
                raise InputError(f"{self.file}:{line}: a second document: give each its own file")
            value = self._value(event, line)
            if stack:
                self._attach(value, stack[-1], key)
                key = None
            else:
                root = value
            if kind is not yaml.ScalarEvent:
                if len(stack) == DEEPEST:
                    raise value.error(f"nested deeper than {DEEPEST} levels")
                stack.append(value)
        if root is None:
            raise InputError(f"{self.file}: is empty")
        return root

    def _key(self, event: Any, mapping: Value) -> str:
        key: str = event.value
        if key in mapping.content:
            line = event.start_mark.line + 1
            twice = Value(None, "", self.file, line, mapping, key)
            raise twice.error(f"given twice, first on line {mapping.content[key].line}")
        return key

    def _attach(self, value: Value, parent: Value, key: str | None) -> None:
        value.parent = parent
        if isinstance(parent.content, list):
            value.key = len(parent.content)
            parent.content.append(value)
        elif key is None:
            raise parent.error(f"line {value.line}: a key must be a text")
        else:
            value.key = key
            parent.content[key] = value

    def _value(self, event: Any, line: int) -> Value:
        if isinstance(event, self.yaml.AliasEvent) or event.anchor is not None:
            raise InputError(f"{self.file}:{line}: anchors and aliases can't be used: write it out")
        if event.tag not in (None, "!"):
            raise InputError(f"{self.file}:{line}: tags such as {event.tag} can't be used")
        if isinstance(event, self.yaml.ScalarEvent):
            content = _scalar(event.value) if event.implicit[0] else event.value
            return Value(content, event.value, self.file, line)
        mapping = isinstance(event, self.yaml.MappingStartEvent)
        return Value({} if mapping else [], "", self.file, line)


def _scalar(raw: str) -> bool | int | float | str | None:
    """A plain scalar as YAML 1.2's core schema reads it; not a number stays a text."""
    if raw in _NULLS:
        return None
    if raw in _FLAGS:
        return _FLAGS[raw]
    if _INTEGER.fullmatch(raw):
        return int(raw)
    return float(raw) if _NUMBER.fullmatch(raw) else raw


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise InputError('PyYAML is missing: pip install "ort_optim[cluster]"') from None
