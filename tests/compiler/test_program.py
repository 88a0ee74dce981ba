"""Size programs: what they compute, and that unneeded rows go without changing the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ort_optim.compiler.program import Compact, evaluate
from ort_optim.kernels.sizes import Size, Sizes


@st.composite
def programs(draw: st.DrawFn) -> tuple[Sizes, list[Size]]:
    sizes = Sizes()
    found = [
        sizes.dim(0, 2),
        sizes.dim(1, 3),
        sizes.threads(),
        sizes.const(draw(st.integers(1, 9))),
    ]
    for _ in range(draw(st.integers(0, 20))):
        a, b = (found[draw(st.integers(0, len(found) - 1))] for _ in range(2))
        name = draw(st.sampled_from(["add", "sub", "mul", "min", "max"]))
        found.append(sizes.apply(name, a, b))
    return sizes, found


@given(programs(), st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_rows_that_are_kept_have_the_values_they_had(
    program: tuple[Sizes, list[Size]], height: int, width: int, data: st.DataObject
) -> None:
    sizes, found = program
    dims = {(0, 2): height, (1, 3): width}
    before = evaluate(sizes.rows, lambda i, axis: dims[i, axis], 3)
    needed = data.draw(st.lists(st.sampled_from(found), max_size=4))
    compact = Compact(sizes.rows, (size.index for size in needed))
    after = evaluate(compact.rows, lambda i, axis: dims[i, axis], 3)
    assert len(compact.rows) <= len(sizes.rows)
    for size in needed:
        assert after[compact[size.index]] == before[size.index]


def test_quotients_round_as_the_names_say() -> None:
    sizes = Sizes()
    H = sizes.dim(0, 0)
    rows = [H // 4, H.ceildiv(4), (H - 20) // 4]
    values = evaluate(sizes.rows, lambda *_: 10, 1)
    assert [values[each.index] for each in rows] == [2, 3, -3]
