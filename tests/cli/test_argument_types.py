from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from ort_optim.cli.argument_types import positive_float, positive_int, seed, tolerance


def test_numbers_in_range_are_taken() -> None:
    assert positive_int("1") == 1
    assert seed("0") == 0
    assert positive_float("1e-9") == 1e-9
    assert tolerance("0") == 0.0


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (positive_int, "0"),
        (positive_int, "1.5"),
        (seed, "-1"),
        (seed, ""),
        (positive_float, "0"),
        (positive_float, "inf"),
        (tolerance, "-1e-9"),
        (tolerance, "nan"),
        (tolerance, "small"),
    ],
)
def test_other_text_is_refused_with_what_is_wanted(
    convert: Callable[[str], float], text: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        convert(text)
