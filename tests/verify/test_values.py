from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ort_optim.verify.rules import RULES
from ort_optim.verify.uses import Use
from ort_optim.verify.values import ELEMENT_TYPES, LEVELS, Draw, draw_tensor, draw_value


def draw(variant: int = 0, level: int = 0, seed: int = 0) -> Draw:
    return Draw(np.random.default_rng(seed), variant, level)


@given(
    st.sampled_from(sorted(ELEMENT_TYPES)),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=6),
    st.integers(0, 5),
    st.integers(0, LEVELS - 1),
)
def test_any_type_and_shape_can_be_drawn_and_is_never_all_zero(
    element: str, shape: tuple[int, ...], variant: int, level: int
) -> None:
    value = draw_value("x", f"tensor({element})", shape, [], draw(variant, level))
    assert isinstance(value, np.ndarray)
    assert value.dtype == ELEMENT_TYPES[element]
    assert value.shape == shape
    if element == "string":
        assert all(isinstance(word, str) for word in value.reshape(-1))
    elif element != "bool":
        assert np.any(value != 0)


KINDS = sorted({rule.kind for rules in RULES.values() for rule in rules.values()} - {"like"})


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["float", "int32", "int64", "bool", "uint8", "float16"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=5),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_every_kind_of_use_gives_the_type_and_shape_asked_for(
    kind: str, element: str, shape: tuple[int, ...], limit: int, variant: int
) -> None:
    use = Use(kind, "Op", 1, 3, limit, values=(2.0, 3.0))  # type: ignore[arg-type]
    value = draw_tensor("x", ELEMENT_TYPES[element], shape, [use], draw(variant))
    assert value.dtype == ELEMENT_TYPES[element]
    assert value.shape == shape


@given(st.integers(1, 50), st.integers(-3, 3), st.integers(0, 99), st.integers(0, 1))
def test_indices_stay_within_their_table(limit: int, shift: int, seed: int, level: int) -> None:
    use = Use("index", "Gather", limit=limit, shift=shift)
    ids = draw_tensor("ids", np.dtype(np.int64), (4, 7), [use], draw(0, level, seed))
    assert np.all(ids + shift >= 0)
    assert np.all(ids + shift < limit)


def test_scattered_indices_do_not_repeat() -> None:
    use = Use("index", "ScatterElements", limit=9)
    found = draw_tensor("i", np.dtype(np.int64), (9,), [use], draw())
    assert sorted(found) == list(range(9))


def test_lengths_reach_the_whole_axis_once() -> None:
    use = Use("length", "LSTM", limit=6)
    lengths = draw_tensor("n", np.dtype(np.int32), (5,), [use], draw())
    assert lengths[0] == 6
    assert lengths.min() >= 1
    assert lengths.max() <= 6


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 99))
def test_masks_are_ones_then_zeros(length: int, rows: int, seed: int) -> None:
    mask = draw_tensor("attention_mask", np.dtype(np.int64), (rows, length), [], draw(seed=seed))
    assert set(np.unique(mask)) <= {0, 1}
    assert np.all(mask[:, 0] == 1)
    assert np.all(np.diff(mask, axis=1) <= 0)


def test_additive_float_masks_are_zero_or_a_large_penalty() -> None:
    added = Use("added", "Add")
    mask = draw_tensor("attn_mask", np.dtype(np.float32), (4, 1, 8, 8), [added], draw())
    assert set(np.unique(mask)) == {np.float32(-1e9), np.float32(0)}


def test_pictures_are_0_to_1_then_0_to_255() -> None:
    shape = (1, 3, 32, 40)
    unit = draw_tensor("image", np.dtype(np.float32), shape, [], draw(0))
    full = draw_tensor("image", np.dtype(np.float32), shape, [], draw(1))
    assert 0 <= unit.min() < 0.3 < 0.7 < unit.max() <= 1
    assert 0 <= full.min() < 75 < 180 < full.max() <= 255


def test_single_conditions_alternate_between_sets() -> None:
    values = [bool(draw_tensor("c", np.dtype(bool), (1,), [], draw(i))[0]) for i in range(2)]
    assert values == [True, False]


def test_a_condition_on_a_constant_is_met_in_one_set_and_missed_in_another() -> None:
    use = Use("compared", "Equal", values=(16000.0, 16001.0))
    drawn = [draw_tensor("sr", np.dtype(np.int64), (), [use], draw(i)) for i in range(2)]
    assert [int(value) for value in drawn] == [16000, 16001]


def test_boxes_have_their_corners_in_order() -> None:
    boxes = draw_tensor("b", np.dtype(np.float32), (2, 9, 4), [Use("corners", "NMS")], draw())
    assert np.all(boxes[..., :2] < boxes[..., 2:])


def test_split_sizes_add_up() -> None:
    use = Use("split", "Split", limit=10)
    assert draw_tensor("s", np.dtype(np.int64), (3,), [use], draw()).sum() == 10


def test_sequences_maps_and_optionals() -> None:
    sequence = draw_value("s", "seq(tensor(int64))", (), [], draw(), [(2,), (3, 4)])
    assert [item.shape for item in sequence] == [(2,), (3, 4), (2,)]
    known = Use("keys", "DictVectorizer", values=("red", "green"))
    drawn = draw_value("m", "map(string,tensor(float))", (), [known], draw())
    assert set(drawn) <= {"red", "green"}
    assert "red" in drawn
    optional = draw_value("o", "optional(tensor(float))", (2,), [], draw())
    assert optional.shape == (2,)


def test_a_type_nothing_can_be_drawn_for_is_named() -> None:
    with pytest.raises(ValueError, match=r"'x'.*opaque"):
        draw_value("x", "opaque(test)", (), [], draw())
