"""Winograd's minimal filtering F(m x m, 3 x 3), as data, and code that multiplies by its matrices.

For m outputs of a 3-tap filter in one dimension, with n = m + 2 and points p_0 .. p_{m}, infinity:

    y = A^T [(G g) * (B^T d)]        d (n,)  g (3,)  y (m,)      A^T (m, n)  G (n, 3)  B^T (n, n)

(Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015; the matrices are Toom and
Cook's, made of the points.) In two dimensions every matrix is applied to columns and to rows.

Points come as 0 and pairs +a, -a: so rows of B^T and G and columns of A^T come in pairs that differ
only in signs, an even part plus or minus an odd one, and each part is computed once. With the
points 0, +-1/sqrt(2), +-sqrt(2), F(4, 3) needs the same work for B^T as with 0, +-1, +-2, two
operations more for A^T, and its error is smaller (see `F43`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ort_optim.kernels.builder import Code
from ort_optim.kernels.values import Vec

TAPS = 3
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Transform:
    """F(m x m, 3 x 3).

    Attributes:
        name: Such as "f43".
        m: Outputs of a tile in one dimension.
        points: m / 2 numbers a; the points are 0, +a and -a for each, and infinity.
        error_class: As `ConvTemplate.error_class`.
    """

    name: str
    m: int
    points: tuple[float, ...]
    error_class: int

    @property
    def n(self) -> int:
        """Inputs of a tile in one dimension."""
        return self.m + TAPS - 1

    @property
    def positions(self) -> int:
        """Products of a tile: n * n."""
        return self.n * self.n

    @cached_property
    def _finite(self) -> list[float]:
        return [0.0, *(sign * a for a in self.points for sign in (1.0, -1.0))]

    @cached_property
    def AT(self) -> Matrix:  # noqa: N802
        """(m, n): products -> outputs."""
        rows = [[p**i for p in self._finite] + [float(i == self.m - 1)] for i in range(self.m)]
        return np.array(rows)

    @cached_property
    def G(self) -> Matrix:  # noqa: N802
        """(n, 3): taps -> factors."""
        rows = [
            [p**i / np.prod([p - q for q in self._others(p)]) for i in range(TAPS)]
            for p in self._finite
        ]
        return np.array([*rows, [0.0, 0.0, 1.0]])

    @cached_property
    def BT(self) -> Matrix:  # noqa: N802
        """(n, n): inputs -> factors."""
        rows = [_polynomial(self._others(p), self.n) for p in self._finite]
        return np.array([*rows, _polynomial(self._finite, self.n)])

    def _others(self, point: float) -> list[float]:
        return [q for q in self._finite if q != point]

    @property
    def gain(self) -> float:
        """How much the sums that end in an output can exceed it: the product of the matrices' norms
        (largest sum of magnitudes in a row), in two dimensions, weights and inputs below 1."""
        product = np.abs(self.AT) @ (np.abs(self.G).sum(1) * np.abs(self.BT).sum(1))
        return float(product.max() ** 2)


def _polynomial(roots: Sequence[float], size: int) -> list[float]:
    """Coefficients of the monic polynomial with these roots, lowest power first."""
    found = np.array([1.0])
    for root in roots:
        found = np.append(0.0, found) - root * np.append(found, 0.0)
    exact = [0.0 if abs(each) < 1e-12 else float(each) for each in found]
    return exact + [0.0] * (size - len(exact))


F23 = Transform("f23", 2, (1.0,), error_class=1)
F43 = Transform("f43", 4, (0.5**0.5, 2.0**0.5), error_class=2)


def pairs(matrix: Matrix) -> list[tuple[int, ...]]:
    """Its rows, those that differ only in some signs together."""
    found: list[tuple[int, ...]] = []
    left = list(range(len(matrix)))
    while left:
        i = left.pop(0)
        twin = next((j for j in left if np.allclose(abs(matrix[i]), abs(matrix[j]))), None)
        found.append((i,) if twin is None else (i, twin))
        if twin is not None:
            left.remove(twin)
    return found


def times(code: Code, matrix: Matrix, inputs: Sequence[Vec]) -> list[Vec]:
    """matrix @ inputs, with as few operations as its pairs of rows or columns allow."""
    columns = [each for each in pairs(matrix.T) if matrix[:, each[0]].any()]
    if any(len(each) == 2 for each in columns):
        return _times_paired_columns(code, matrix, columns, inputs)
    results: dict[int, Vec] = {}
    for rows in pairs(matrix):
        if len(rows) == 1:
            results[rows[0]] = _sum(code, matrix[rows[0]], inputs)
        else:
            a, b = matrix[rows[0]], matrix[rows[1]]
            odd = (a - b) / 2
            scale = odd[np.flatnonzero(odd)[-1]]
            even, rest = _sum(code, (a + b) / 2, inputs), _sum(code, odd / scale, inputs)
            results[rows[0]] = _plus(code, even, scale, rest)
            results[rows[1]] = _plus(code, even, -scale, rest)
    return [results[i] for i in range(len(matrix))]


def _times_paired_columns(
    code: Code,
    matrix: Matrix,
    columns: Sequence[tuple[int, ...]],
    given: Sequence[Vec],
) -> list[Vec]:
    coefficients: list[NDArray[np.float64]] = []
    vectors: list[Vec] = []
    for each in columns:
        first = matrix[:, each[0]]
        if len(each) == 1:
            coefficients.append(first)
            vectors.append(given[each[0]])
        else:
            second, a, b = matrix[:, each[1]], given[each[0]], given[each[1]]
            coefficients += [(first + second) / 2, (first - second) / 2]
            vectors += [a + b, a - b]
    return [_sum(code, row, vectors) for row in np.array(coefficients).T]


def _sum(code: Code, coefficients: NDArray[np.float64], given: Sequence[Vec]) -> Vec:
    used = [int(k) for k in np.flatnonzero(np.abs(coefficients) > 1e-12)]
    plain = [k for k in used if np.isclose(coefficients[k], 1.0)]
    first = plain[-1] if plain else used[0]
    total = given[first] if plain else given[first] * float(coefficients[first])
    for k in used:
        if k != first:
            total = _plus(code, total, float(coefficients[k]), given[k])
    return total


def _plus(code: Code, total: Vec, scale: float, vector: Vec) -> Vec:
    if np.isclose(scale, 1.0):
        return total + vector
    if np.isclose(scale, -1.0):
        return total - vector
    return code.fma(vector, code.vec(float(scale)), total)
