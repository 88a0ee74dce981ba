"""Numbers and names as people read them."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.report.units import (
    HIDDEN_CATEGORIES,
    count_text,
    delta_text,
    error_text,
    percent_text,
    plural,
    printable,
    size_text,
    time_text,
)


@given(st.text(st.characters()))
def test_printable_text_is_one_visible_encodable_line(text: str) -> None:
    found = printable(text)
    found.encode("utf-8")
    assert not any(unicodedata.category(char) in HIDDEN_CATEGORIES for char in found)
    assert len(found.splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/model/conv.0", "/model/conv.0"),
        ("Größe_层", "Größe_层"),
        ("a\x1b[31mb\n", "a\\x1b[31mb\\n"),
        ("x\u202ey", "x\\u202ey"),
        ("\udc80", "\\udc80"),
    ],
)
def test_printable_escapes_what_moves_the_cursor_and_keeps_the_rest(
    text: str, expected: str
) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (size_text(0), "0 B"),
        (size_text(1023), "1023 B"),
        (size_text(1024), "1.00 KiB"),
        (size_text(3_712_345), "3.54 MiB"),
        (size_text(1024**2 - 1), "1.00 MiB"),
        (size_text(5 * 1024**4), "5.00 TiB"),
        (count_text(999), "999"),
        (count_text(11_700), "11.7 k"),
        (count_text(999_960), "1.00 M"),
        (count_text(1.82e9), "1.82 G"),
        (time_text(0.00821), "8.21 us"),
        (time_text(0), "0 ms"),
        (time_text(15.49), "15.5 ms"),
        (time_text(2300), "2.30 s"),
        (time_text(None), "-"),
        (time_text(math.nan), "-"),
        (error_text(3.14e-6), "3.1e-06"),
        (error_text(0.0), "0"),
        (error_text(None), "-"),
        (error_text(math.inf), "inf"),
        (delta_text(3, 1), "-2"),
        (delta_text(1, 3), "+2"),
        (delta_text(2, 2), "="),
        (percent_text(178, 110), "-38.2%"),
        (percent_text(10**6, 10**6 - 1), "-0.0%"),
        (percent_text(0, 4), "new"),
        (percent_text(4, 0), "-100.0%"),
        (percent_text(4, 4), "="),
        (plural(1, "run"), "1 run"),
        (plural(0, "run"), "0 runs"),
    ],
)
def test_numbers_read_as_expected(found: str, expected: str) -> None:
    assert found == expected
