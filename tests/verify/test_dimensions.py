from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.engine import TensorInfo
from ort_optim.errors import InputError
from ort_optim.verify.dimensions import MOST_TRIES, Schedule, check_pins

FLOAT, INT = "tensor(float)", "tensor(int64)"


def first(*infos: TensorInfo, **options: object) -> dict[str, tuple[int, ...]]:
    return next(iter(Schedule(infos, **options)))  # type: ignore[arg-type]


dims = st.one_of(
    st.integers(1, 8), st.none(), st.sampled_from(["batch", "height", "seq_len", "N", "?", "unk"])
)


@given(st.lists(st.tuples(dims, dims, dims), min_size=1, max_size=3))
def test_every_candidate_keeps_fixed_dimensions_and_shared_symbols(
    shapes: list[tuple[int | str | None, ...]],
) -> None:
    infos = [TensorInfo(f"x{i}", FLOAT, shape) for i, shape in enumerate(shapes)]
    candidates = list(Schedule(infos))
    assert 1 <= len(candidates) <= MOST_TRIES
    for candidate in candidates:
        sizes: dict[str, int] = {}
        for info in infos:
            for declared, size in zip(info.shape, candidate[info.name], strict=True):
                assert size > 0
                if isinstance(declared, int):
                    assert declared == size
                elif declared not in (None, "?"):
                    assert sizes.setdefault(str(declared), size) == size


def test_batch_is_one_first_and_two_in_the_next_set() -> None:
    schedule = Schedule([TensorInfo("x", FLOAT, ("batch", 3, 224, 224))])
    shapes = next(iter(schedule))
    assert shapes == {"x": (1, 3, 224, 224)}
    assert next(schedule.variations(shapes, 1)) == {"x": (2, 3, 224, 224)}


def test_further_sets_tell_height_from_width() -> None:
    schedule = Schedule([TensorInfo("x", FLOAT, (1, 3, "h", "w"))])
    shapes = next(iter(schedule))
    assert shapes["x"][2] == shapes["x"][3]
    height, width = next(schedule.variations(shapes, 1))["x"][2:]
    assert height != width


def test_variations_end_with_what_is_known_to_run() -> None:
    schedule = Schedule([TensorInfo("x", FLOAT, ("batch", 3, "h", "w"))])
    shapes = next(iter(schedule))
    assert list(schedule.variations(shapes, 1))[-1] == shapes


def test_total_length_is_past_plus_present() -> None:
    infos = (
        TensorInfo("input_ids", INT, ("batch", "sequence_length")),
        TensorInfo("attention_mask", INT, ("batch", "total_sequence_length")),
        TensorInfo("past.0", FLOAT, ("batch", 4, "past_sequence_length", 8)),
    )
    for candidate in itertools.islice(Schedule(infos), 10):
        present, past = candidate["input_ids"][1], candidate["past.0"][2]
        assert candidate["attention_mask"][1] == present + past


def test_total_length_written_as_a_formula() -> None:
    shapes = first(
        TensorInfo("ids", INT, (1, "seq")),
        TensorInfo("mask", INT, (1, "past_seq + seq")),
        TensorInfo("past", FLOAT, (1, "past_seq", 8)),
    )
    assert shapes["mask"][1] == shapes["ids"][1] + shapes["past"][1]


def test_channels_last_pictures_are_recognised() -> None:
    assert first(TensorInfo("x", FLOAT, (1, "unk__1", "unk__2", 3))) == {"x": (1, 224, 224, 3)}


def test_sizes_that_weights_demand_are_taken() -> None:
    shapes = first(TensorInfo("x", FLOAT, (None, None, None)), demanded={"x": {2: 77}})
    assert shapes["x"][2] == 77


def test_pins_hold_and_spread_to_equal_symbols() -> None:
    infos = (TensorInfo("a", INT, ("batch", "n")), TensorInfo("b", INT, ("batch", "m")))
    for candidate in Schedule(infos, pins={"a": (5, 6)}):
        assert candidate["a"] == (5, 6)
        assert candidate["b"][0] == 5


def test_inputs_without_a_rank_get_several_ranks() -> None:
    schedule = Schedule([TensorInfo("x", FLOAT, ())], rankless=frozenset({"x"}))
    assert len({len(shapes["x"]) for shapes in schedule}) > 2
    assert not schedule.is_fixed


def test_fixed_inputs_leave_one_candidate() -> None:
    schedule = Schedule([TensorInfo("x", FLOAT, (2, 3)), TensorInfo("s", INT, ())])
    assert schedule.is_fixed
    assert list(schedule) == [{"x": (2, 3), "s": ()}]


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"y": (1,)}, r"no such input \(its inputs: x\)"),
        ({"x": (1, 3)}, "2 dimensions given, the model's input has 3"),
        ({"x": (2, 4, 9)}, r"2x4x9 contradicts the model's fixed \?x3xw"),
    ],
)
def test_pins_that_do_not_fit_are_refused(pins: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_pins([TensorInfo("x", FLOAT, (None, 3, "w"))], pins)


def test_pins_that_fit_are_taken() -> None:
    check_pins([TensorInfo("x", FLOAT, (None, 3, "w"))], {"x": (7, 3, 5)})
