"""Slots: tensors that live at the same time never share one, and little memory is wasted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ort_optim.compiler.slots import Lifetime, assign_slots


@st.composite
def lifetimes(draw: st.DrawFn) -> Lifetime:
    first = draw(st.integers(0, 20))
    return Lifetime(draw(st.integers(0, 100)), first, first + draw(st.integers(1, 10)))


@given(st.lists(lifetimes(), max_size=30))
def test_tensors_of_one_slot_never_live_at_the_same_time(tensors: list[Lifetime]) -> None:
    slots = assign_slots(tensors)
    assert len(slots) == len(tensors)
    assert set(slots) == set(range(len(set(slots))))
    for i, a in enumerate(tensors):
        for j, b in enumerate(tensors[:i]):
            if slots[i] == slots[j]:
                assert set(range(a.first, a.stop)).isdisjoint(range(b.first, b.stop))


@given(st.lists(lifetimes(), min_size=1, max_size=30))
def test_slots_take_no_more_than_tensors_each_in_memory_of_its_own(tensors: list[Lifetime]) -> None:
    slots = assign_slots(tensors)
    sizes = [
        max(t.bytes for t, s in zip(tensors, slots, strict=True) if s == n) for n in set(slots)
    ]
    assert sum(sizes) <= sum(t.bytes for t in tensors)


def test_a_chain_needs_two_slots() -> None:
    chain = [Lifetime(100, i, i + 2) for i in range(9)]
    assert len(set(assign_slots(chain))) == 2
