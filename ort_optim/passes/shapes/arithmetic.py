"""Arithmetic on the elements of small tensors: numbers, and sizes known by name only.

Numbers are computed as the tensor's type computes them; None stands for an unknown element.

Names used here
    Element         int | float | Poly | None; bools are 0 and 1
    BINARY          operator -> f(node, dtype, left, right) -> Element
    UNARY           operator -> f(dtype, element) -> Element
    BOOLEAN         the operators whose result is bool
    cast_element    a conversion to another type
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ort_optim.graph.view import Node
from ort_optim.passes.common.match import attr
from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.symbolic import Poly, Size

Element = int | float | Poly | None
DType = np.dtype[Any]
Binary = Callable[[Node, DType, Element, Element], Element]
Unary = Callable[[DType, Element], Element]


def python_number(number: Any) -> int | float:
    """A NumPy or Python number as int (bools too) or float."""
    return int(number) if isinstance(number, (bool, int, np.integer, np.bool_)) else float(number)


def _exact(dtype: DType, number: int | float) -> Element:
    """A number as the type holds it; None where an integer overflows."""
    if dtype.kind == "f":
        with np.errstate(all="ignore"):
            return float(dtype.type(number))
    if dtype.kind == "b":
        return int(bool(number))
    limits = np.iinfo(dtype)
    return int(number) if limits.min <= number <= limits.max else None


def _numeric(
    on_sizes: Callable[[Size, Size], Size | None], ufunc: Callable[[Any, Any], Any]
) -> Binary:
    def apply(node: Node, dtype: DType, left: Element, right: Element) -> Element:
        if left is None or right is None:
            return None
        if dtype.kind == "f":
            if isinstance(left, Poly) or isinstance(right, Poly):
                return None
            with np.errstate(all="ignore"):
                return float(ufunc(dtype.type(left), dtype.type(right)))
        if isinstance(left, float) or isinstance(right, float):
            return None
        result = on_sizes(left, right)
        return _exact(dtype, result) if isinstance(result, int) else result

    return apply


def _quotient(left: Size, right: Size) -> Size | None:
    """Integer division as ORT does it: towards zero."""
    if isinstance(left, int) and isinstance(right, int):
        if right == 0:
            return None
        magnitude = abs(left) // abs(right)
        return magnitude if (left < 0) == (right < 0) else -magnitude
    return symbolic.divide(left, right)


def _mod(node: Node, dtype: DType, left: Element, right: Element) -> Element:
    if not isinstance(left, (int, Poly)) or not isinstance(right, (int, Poly)) or right == 0:
        return None
    if isinstance(left, int) and isinstance(right, int):
        return int(math.fmod(left, right)) if attr(node, "fmod", 0) else left % right
    return symbolic.modulo(left, right)


def _extreme(sign: int) -> Binary:
    """Max for sign 1, Min for sign -1."""

    def pick(node: Node, dtype: DType, left: Element, right: Element) -> Element:
        order = _order(left, right)
        if order is None:
            return None
        return left if order * sign >= 0 else right

    return pick


def _order(left: Element, right: Element) -> int | None:
    """As `symbolic.compare`, for numbers too; None for NaN."""
    if left is None or right is None:
        return None
    if isinstance(left, Poly) or isinstance(right, Poly):
        if isinstance(left, float) or isinstance(right, float):
            return None
        return symbolic.compare(left, right)
    if left == right:
        return 0
    if left > right:
        return 2
    return -2 if left < right else None


def _comparison(true_for: tuple[int, ...], false_for: tuple[int, ...]) -> Binary:
    def decide(node: Node, dtype: DType, left: Element, right: Element) -> Element:
        order = _order(left, right)
        if order in true_for:
            return 1
        return 0 if order in false_for else None

    return decide


def _and(node: Node, dtype: DType, left: Element, right: Element) -> Element:
    if left == 0 or right == 0:
        return 0
    return None if left is None or right is None else 1


def _or(node: Node, dtype: DType, left: Element, right: Element) -> Element:
    if left == 1 or right == 1:
        return 1
    return None if left is None or right is None else 0


BINARY: dict[str, Binary] = {
    "Add": _numeric(symbolic.add, np.add),
    "Sub": _numeric(symbolic.subtract, np.subtract),
    "Mul": _numeric(symbolic.multiply, np.multiply),
    "Div": _numeric(_quotient, np.divide),
    "Mod": _mod,
    "Max": _extreme(1),
    "Min": _extreme(-1),
    "Equal": _comparison((0,), (2, -2)),
    "Greater": _comparison((2,), (0, -1, -2)),
    "GreaterOrEqual": _comparison((0, 1, 2), (-2,)),
    "Less": _comparison((-2,), (0, 1, 2)),
    "LessOrEqual": _comparison((0, -1, -2), (2,)),
    "And": _and,
    "Or": _or,
}

BOOLEAN = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or")


def _negative(dtype: DType, element: Element) -> Element:
    if isinstance(element, Poly):
        return symbolic.multiply(element, -1)
    return None if element is None else _exact(dtype, -element)


def _absolute(dtype: DType, element: Element) -> Element:
    if isinstance(element, Poly):
        return element if symbolic.is_natural(element) else None
    return None if element is None else abs(element)


def _not(dtype: DType, element: Element) -> Element:
    return None if element is None else int(not element)


def _rounded(by: Callable[[float], int]) -> Unary:
    def apply(dtype: DType, element: Element) -> Element:
        if isinstance(element, float):
            return float(by(element)) if math.isfinite(element) else None
        return element

    return apply


UNARY: dict[str, Unary] = {
    "Neg": _negative,
    "Abs": _absolute,
    "Not": _not,
    "Floor": _rounded(math.floor),
    "Ceil": _rounded(math.ceil),
}


def cast_element(element: Element, dtype: DType) -> Element:
    """The element as another type holds it.

    A size that int32 can't hold would have made the model fail anyway; one that float32 rounds
    would not, so sizes known by name only stay sizes.
    """
    if isinstance(element, Poly):
        if dtype.kind == "b":
            return 1 if symbolic.compare(element, 0) == 2 else None
        return element if dtype.kind in "iu" and dtype.itemsize >= 4 else None
    if element is None:
        return None
    if dtype.kind in "fb":
        return _exact(dtype, element)
    return _exact(dtype, math.trunc(element)) if math.isfinite(element) else None
