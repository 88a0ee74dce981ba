"""Types that no report has, and other records of plain data do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ort_optim.report.codec import DecodeError, decode_value, encode


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (frozenset[str], frozenset({"b", "a"})),
        (frozenset[tuple[str, str]], frozenset({("p", "n"), ("a", "z")})),
        (list[float], [1.5, float("inf")]),
        (tuple[str, int], ("x", 3)),
        (tuple[tuple[str, bool], ...], (("x", True), ("y", False))),
        (list[int] | None, None),
    ],
    ids=str,
)
def test_what_is_encoded_is_decoded_to_an_equal_value(hint: Any, value: Any) -> None:
    found = decode_value(hint, json.loads(json.dumps(encode(value))))
    assert found == value
    assert type(found) is type(value)


def test_a_set_is_written_in_one_order() -> None:
    assert encode(frozenset({"c", "a", "b"})) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("hint", "data", "said"),
    [
        (tuple[str, int], ["x"], "expected 2 items"),
        (tuple[str, int], ["x", 1, 2], "expected 2 items"),
        (frozenset[str], {"a": 1}, "expected a list"),
        (list[int], ["x"], r"\[0\]: expected an integer"),
    ],
)
def test_what_does_not_fit_names_the_place(hint: Any, data: Any, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        decode_value(hint, data, "here")
