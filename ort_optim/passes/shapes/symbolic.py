"""Sizes that are not known yet: integer polynomials over the names of dimensions.

A name stands for the size of a dimension, so it is an integer that is at least 0, and may be 0.
Comparisons answer only what holds for all such values, None otherwise.

Names used here
    Poly          a polynomial with at least one name in it
    Size          int | Poly
    symbol        name -> Poly
    add, subtract, multiply, divide, divide_exactly, modulo
    compare       the sign of a difference, where it is the same for all sizes
    is_natural    at least 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Monomial = tuple[str, ...]  # the names in a product, sorted, repeated as often as their power

MAX_TERMS = 32  # a longer polynomial says nothing that a rewrite could use


@dataclass(frozen=True)
class Poly:
    """A sum of products: (monomial, coefficient) pairs, sorted, no coefficient 0.

    Equal polynomials are equal objects in the sense of `==` and `hash`.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __str__(self) -> str:
        return " + ".join(
            "*".join([*([] if factor == 1 and names else [str(factor)]), *names])
            for names, factor in self.terms
        )


Size = int | Poly


def symbol(name: str) -> Poly:
    """The size called `name`."""
    return Poly((((name,), 1),))


def _terms(value: Size) -> Mapping[Monomial, int]:
    if isinstance(value, Poly):
        return dict(value.terms)
    return {(): value} if value else {}


def _size(terms: Mapping[Monomial, int]) -> Size | None:
    kept = sorted((names, factor) for names, factor in terms.items() if factor)
    if len(kept) > MAX_TERMS:
        return None
    if not kept:
        return 0
    if kept[0][0] == () and len(kept) == 1:
        return kept[0][1]
    return Poly(tuple(kept))


def add(left: Size, right: Size) -> Size | None:
    """left + right; None where it gets too long."""
    total = dict(_terms(left))
    for names, factor in _terms(right).items():
        total[names] = total.get(names, 0) + factor
    return _size(total)


def multiply(left: Size, right: Size) -> Size | None:
    """left * right; None where it gets too long."""
    total: dict[Monomial, int] = {}
    for names, factor in _terms(left).items():
        for more, other in _terms(right).items():
            key = tuple(sorted(names + more))
            total[key] = total.get(key, 0) + factor * other
    return _size(total)


def subtract(left: Size, right: Size) -> Size | None:
    """left - right; None where it gets too long."""
    negative = multiply(right, -1)
    return None if negative is None else add(left, negative)


def product(sizes: list[Size]) -> Size | None:
    """The product of all, 1 of none."""
    total: Size | None = 1
    for size in sizes:
        total = None if total is None else multiply(total, size)
    return total


def divide(left: Size, right: Size) -> Size | None:
    """left / right rounded down; both must be at least 0 wherever the division is inexact.

    An exact quotient is a polynomial again, an inexact one gets a name that tells how it was
    made, so that equal quotients are equal. What a division by 0 gives is of no interest.
    """
    if isinstance(right, int) and right <= 0:
        return None
    if left == right:
        return 1
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    exact = divide_exactly(left, right)
    if exact is not None:
        return exact
    if is_natural(left) and is_natural(right):
        return symbol(f"floor(({left})/({right}))")
    return None


def divide_exactly(left: Size, right: Size) -> Size | None:
    """left / right for a right of one term, if every term divides; None otherwise."""
    divisor = list(_terms(right).items())
    if len(divisor) != 1:
        return None
    names, factor = divisor[0]
    quotient: dict[Monomial, int] = {}
    for dividend, multiple in _terms(left).items():
        rest = list(dividend)
        for name in names:
            if name not in rest:
                return None
            rest.remove(name)
        if multiple % factor:
            return None
        quotient[tuple(rest)] = multiple // factor
    return _size(quotient)


def modulo(left: Size, right: Size) -> Size | None:
    """left modulo a positive int, for a left that is at least 0."""
    if not isinstance(right, int) or right <= 0:
        return None
    if isinstance(left, int):
        return left % right
    if all(factor % right == 0 for _, factor in left.terms):
        return 0
    return symbol(f"mod(({left}), {right})") if is_natural(left) else None


def compare(left: Size, right: Size) -> int | None:
    """2 if left > right, 1 if left >= right, 0 if equal, -1 if <=, -2 if <; None if unknown.

    Each for all sizes the names may stand for.
    """
    difference = subtract(left, right)
    if difference is None:
        return None
    if isinstance(difference, int):
        return 0 if difference == 0 else (2 if difference > 0 else -2)
    factors = [factor for _, factor in difference.terms]
    constant = dict(difference.terms).get((), 0)
    if all(factor > 0 for factor in factors):
        return 2 if constant > 0 else 1
    if all(factor < 0 for factor in factors):
        return -2 if constant < 0 else -1
    return None


def is_natural(size: Size) -> bool:
    """Whether the value is at least 0 for all sizes."""
    return compare(size, 0) in (0, 1, 2)
