"""Values survive the archive: every type a graph can take or give, to the bit."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ort_optim.checkpoints.tensors import pack_values, unpack_values


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape and bits, tuples taken for lists."""
    if isinstance(a, (list, tuple)):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and a.dtype.kind == "O":
        return a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    if isinstance(a, (np.ndarray, np.generic)):
        alike = type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape
        return bool(alike and a.tobytes() == b.tobytes())
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and bool(a == b)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_an_array_comes_back_bit_by_bit(array: np.ndarray) -> None:
    assert same(array, unpack_values(pack_values(array)))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
def test_element_types_that_numpy_lacks(name: str) -> None:
    array = np.arange(6).astype(getattr(ml_dtypes, name)).reshape(2, 3)
    assert same(array, unpack_values(pack_values({"x": array}))["x"])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"y": [np.float32([1, math.nan]), None], "z": [{1: 0.5, 2: math.nan}, {"a": np.int64(3)}]},
        np.array([["a", "ü\ud7ff"], ["", "\0"]], dtype=object),
        np.array([b"\xff", b""], dtype=object),
        np.array(["fixed", "w"]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), np.float32),
        ({"x": np.float32(2.5)}, "text", True),
    ],
    ids=repr,
)
def test_whatever_a_graph_gives_comes_back(value: Any) -> None:
    assert same(value, unpack_values(pack_values(value)))


def test_objects_are_not_kept() -> None:
    with pytest.raises(TypeError, match="no element"):
        pack_values(np.array([object()], dtype=object))


@given(st.binary(max_size=60))
def test_what_is_no_archive_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack_values(raw)
