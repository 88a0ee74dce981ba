"""YAML is read strictly: every fault is one line with file, line and field."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ort_optim.cluster.documents import DEEPEST, MOST_BYTES, Value, read_document
from ort_optim.cluster.units import parse_duration, parse_size
from ort_optim.errors import InputError


def read(tmp_path: Path, text: str | bytes) -> Value:
    path = tmp_path / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(path)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a: 1", {"a": 1}),
        ("a: [1, 2.5, x, true, null, '3']", {"a": [1, 2.5, "x", True, None, "3"]}),
        ("- no\n- on\n- 1:30\n- 0x10\n- 2020-01-01", ["no", "on", "1:30", "0x10", "2020-01-01"]),
        ("a: {b: {c: [[]]}}", {"a": {"b": {"c": [[]]}}}),
        ("a:\n- b: 1\n  c: 2\n- d", {"a": [{"b": 1, "c": 2}, "d"]}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("just text", "just text"),
        ("---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_scalars_are_those_of_the_core_schema(tmp_path: Path, text: str, plain: object) -> None:
    assert read(tmp_path, text).plain() == plain


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("# nothing", "is empty"),
        ("a: 1\nb: 2\na: 3", "file.yaml:3: a: given twice, first on line 1"),
        ("a: &x 1\nb: *x", ":1: anchors and aliases"),
        ("b: *x", "anchors and aliases"),
        ("a: !!python/object:os.system 1", "tags such as"),
        ("a: 1\n---\nb: 2", ":3: a second document"),
        ("a: [1", "not YAML"),
        ("a: 1\n\tb: 2", ":2: not YAML"),
        ("? [1]\n: 2", "a key must be a text"),
        ("? {a: 1}\n: 2", "a key must be a text"),
        (b"a: \xff", "not UTF-8 at byte 3"),
        ("a: \x00", "not YAML"),
        ("[" * (DEEPEST + 1), "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 100_000, "nested deeper"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_in_one_line(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_can_not_be_read_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=r"can't be read"):
            read_document(path)
    large = tmp_path / "large"
    large.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(InputError, match="larger than"):
        read_document(large)


def test_a_missing_library_is_told_with_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(InputError, match=r'pip install "ort_optim\[cluster\]"'):
        read(tmp_path, "a: 1")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda v: v.mapping(), "must be a mapping of fields, not a list"),
        (lambda v: v.items()[0].items(), "[0]: must be a list, not '1'"),
        (
            lambda v: v.items()[1].mapping(("threads",)),
            "[1].treads: unknown field; did you mean th",
        ),
        (lambda v: v.items()[1].mapping(("x", "y")), "unknown field; known: x, y"),
        (lambda v: v.items()[2].text(), "[2]: must be a text, not nothing"),
        (lambda v: v.items()[1].text(), "must be a text, not a mapping"),
        (lambda v: v.items()[0].flag(), "must be true or false"),
        (lambda v: v.items()[3].integer(0, 9), "must be a whole number, not '2.5'"),
        (lambda v: v.items()[4].integer(0, 9), "must be a whole number, not 'true'"),
        (lambda v: v.items()[0].integer(2, 9), "must be from 2 to 9, not 1"),
        (lambda v: v.items()[5].milli(9), "has more than three decimals"),
        (lambda v: v.items()[6].milli(9), "must be from 0 to 9, not -1"),
        (lambda v: v.items()[7].milli(9), "must be a number, not 'nan'"),
        (lambda v: v.items()[8].milli(9), "must be from 0 to 9, not 1e400"),
        (lambda v: v.items()[7].size(), "'nan' is no size"),
        (lambda v: v.items()[7].duration(), "'nan' is no duration"),
    ],
)
def test_a_wrong_type_is_told_with_its_place(tmp_path: Path, call: object, told: str) -> None:
    value = read(tmp_path, "[1, {treads: 1}, null, 2.5, true, 0.0001, -1, nan, 1e400]")
    with pytest.raises(InputError) as caught:
        call(value)  # type: ignore[operator]
    assert told in str(caught.value)
    assert "file.yaml:1: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("12", 12),
        ("1B", 1),
        ("2GiB", 2 << 30),
        ("1.5 KiB", 1536),
        ("3gb", 3 * 10**9),
        ("1MB", 10**6),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "2G", "x", "-1", "0.5", "1e3", "2GiBs", "99999999TiB", "\u0661GiB"]
)
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10min", 600), ("2h", 7200), ("1.5 h", 5400), ("250ms", 0.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5s", "5m", "inf", "1:30", "99999d", "1 h 5 min"])
def test_bad_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


TEXT = st.text(st.characters(categories=("L", "M", "N", "P", "S")), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLAIN)
def test_what_json_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, plain: object
) -> None:
    """JSON is YAML."""
    path = tmp_path_factory.mktemp("d") / "file.yaml"
    path.write_text(json.dumps(plain, ensure_ascii=False))
    assert read_document(path).plain() == plain


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("d") / "file.yaml"
    path.write_bytes(data)
    error = None
    try:
        read_document(path)
    except InputError as caught:
        error = caught
    assert "\n" not in str(error)
