from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.verify.bisect import find_culprit


@given(st.data(), st.integers(1, 500))
def test_single_culprit_is_found_in_logarithmic_time(data: st.DataObject, n: int) -> None:
    culprit = data.draw(st.integers(1, n))
    asked: list[int] = []

    def ok(k: int) -> bool:
        asked.append(k)
        return k < culprit

    assert find_culprit(n, ok) == culprit
    assert len(asked) <= math.ceil(math.log2(n)) + 2


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_answer_is_a_step_from_good_to_bad_even_if_not_monotone(middle: list[bool]) -> None:
    verdicts = [True, *middle, False]
    seen: dict[int, bool] = {}

    def ok(k: int) -> bool:
        seen[k] = verdicts[k]
        return verdicts[k]

    found = find_culprit(len(verdicts) - 1, ok)
    assert verdicts[found - 1]
    assert not verdicts[found]
    assert {found - 1, found} <= seen.keys()


def test_known_ends_are_not_evaluated_again() -> None:
    asked: list[int] = []

    def ok(k: int) -> bool:
        asked.append(k)
        return k < 3

    assert find_culprit(4, ok, ends_known=True) == 3
    assert not {0, 4} & set(asked)


def test_a_model_without_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="fine after all 5"):
        find_culprit(5, lambda k: True)


def test_a_fault_before_the_first_rewrite_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first"):
        find_culprit(5, lambda k: False)


def test_no_rewrites_are_refused() -> None:
    with pytest.raises(ValueError, match="without a rewrite"):
        find_culprit(0, lambda k: True)
