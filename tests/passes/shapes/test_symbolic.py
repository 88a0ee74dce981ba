from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.symbolic import Poly, Size, symbol

NAMES = ("a", "b", "c")

sizes = st.recursive(
    st.one_of(st.integers(-8, 8), st.sampled_from(NAMES).map(symbol)),
    lambda inner: st.tuples(
        st.sampled_from([symbolic.add, symbolic.subtract, symbolic.multiply]), inner, inner
    ).map(lambda parts: parts[0](parts[1], parts[2])),
    max_leaves=6,
).filter(lambda size: size is not None)
environments = st.fixed_dictionaries({name: st.integers(0, 9) for name in NAMES})


def value(size: Size, environment: dict[str, int]) -> int:
    if isinstance(size, int):
        return size
    total = 0
    for names, factor in size.terms:
        for name in names:
            factor *= environment[name]
        total += factor
    return total


@given(sizes, sizes, environments)
def test_arithmetic_agrees_with_that_of_numbers(
    left: Size, right: Size, environment: dict[str, int]
) -> None:
    a, b = value(left, environment), value(right, environment)
    for operation, wanted in (
        (symbolic.add, a + b),
        (symbolic.subtract, a - b),
        (symbolic.multiply, a * b),
    ):
        result = operation(left, right)
        assert result is None or value(result, environment) == wanted


@given(sizes, sizes)
def test_polynomials_that_are_equal_for_all_sizes_are_equal_objects(
    left: Size, right: Size
) -> None:
    total, again = symbolic.add(left, right), symbolic.add(right, left)
    assert total == again
    assert hash(total) == hash(again)


@given(sizes, sizes, environments)
def test_a_comparison_holds_for_every_size(
    left: Size, right: Size, environment: dict[str, int]
) -> None:
    a, b = value(left, environment), value(right, environment)
    order = symbolic.compare(left, right)
    holds = {2: a > b, 1: a >= b, 0: a == b, -1: a <= b, -2: a < b, None: True}
    assert holds[order]


@given(sizes, st.integers(1, 6), environments)
def test_an_exact_quotient_times_the_divisor_is_the_dividend(
    size: Size, factor: int, environment: dict[str, int]
) -> None:
    multiple = symbolic.multiply(size, factor)
    assert multiple is not None
    assert symbolic.divide_exactly(multiple, factor) == size
    assert symbolic.modulo(multiple, factor) in (0, multiple if multiple == 0 else 0, None)


def test_names_cancel_in_a_quotient() -> None:
    n, h = symbol("n"), symbol("h")
    whole = symbolic.product([n, h, 12])
    part = symbolic.multiply(n, 4)
    assert whole is not None
    assert part is not None
    assert symbolic.divide(whole, part) == symbolic.multiply(h, 3)


def test_equal_inexact_quotients_are_equal_and_unequal_ones_are_not() -> None:
    n = symbol("n")
    assert symbolic.divide(n, 2) == symbolic.divide(n, 2)
    assert symbolic.divide(n, 2) != symbolic.divide(n, 3)


def test_an_inexact_quotient_of_what_may_be_negative_is_unknown() -> None:
    less = symbolic.subtract(symbol("n"), 3)
    assert less is not None
    assert symbolic.divide(less, 2) is None
    assert symbolic.modulo(less, 2) is None


def test_a_name_may_be_zero() -> None:
    assert symbolic.compare(symbol("n"), 0) == 1
    assert symbolic.compare(symbol("n"), 1) is None
    assert symbolic.compare(symbol("n"), -1) == 2


def test_a_polynomial_that_grows_without_end_is_given_up() -> None:
    total: Size | None = symbol("x0")
    for number in range(1, 8):
        other = symbolic.add(symbol(f"x{number}"), 1)
        assert other is not None
        total = None if total is None else symbolic.multiply(total, other)
    assert total is None


def test_polynomials_can_be_read() -> None:
    total = symbolic.add(symbol("n"), 1)
    assert isinstance(total, Poly)
    assert str(symbolic.multiply(total, symbol("h"))) == "h + h*n"
