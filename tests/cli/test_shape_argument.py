from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.cli.shape_argument import parse_shapes
from ort_optim.errors import InputError


@given(st.text(min_size=1), st.lists(st.integers(0, 9999), max_size=5))
def test_any_name_and_shape_come_back(name: str, shape: list[int]) -> None:
    assert parse_shapes([f"{name}:{'x'.join(map(str, shape))}"]) == {name: tuple(shape)}


def test_the_last_colon_separates() -> None:
    assert parse_shapes(["input:0:1x3x224x224"]) == {"input:0": (1, 3, 224, 224)}


def test_several_shapes_and_a_scalar() -> None:
    assert parse_shapes(["a:1X2", "b:"]) == {"a": (1, 2), "b": ()}
    assert parse_shapes(["a:1", "a:1"]) == {"a": (1,)}


@pytest.mark.parametrize("text", ["x", ":1x2", "x:1x", "x:1,2", "x:axb", "x:-1x2", "x:1 x2"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="write NAME:1x3x224x224"):
        parse_shapes([text])


def test_a_name_given_twice_differently_is_refused() -> None:
    with pytest.raises(InputError, match="given twice"):
        parse_shapes(["x:1", "x:2"])
