from __future__ import annotations

import itertools

import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, transpose_chain
from tests.passes.harness import check, model_of

PASSES = (transpose_chain.PASS, dead_code.PASS)


@pytest.mark.parametrize(
    ("p", "q"), list(itertools.product(itertools.permutations(range(3)), repeat=2))
)
def test_two_transposes_become_one_or_none(
    engine: Engine, p: tuple[int, ...], q: tuple[int, ...]
) -> None:
    model = model_of(
        "g (float[2, 3, 4] x) => (float[A, B, C] y) "
        f"{{ a = Neg(x)\n b = Transpose<perm = {list(p)}>(a)\n"
        f" c = Transpose<perm = {list(q)}>(b)\n y = Abs(c) }}"
    )
    ops = check(engine, model, PASSES).ops
    assert ops["Transpose"] == (0 if [p[i] for i in q] == [0, 1, 2] else 1)


def test_reversal_is_the_default(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4] x) => (float[2, 3, 4] y) "
        "{ a = Neg(x)\n b = Transpose(a)\n c = Transpose(b)\n y = Abs(c) }"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Abs": 1}


def test_a_transpose_that_is_read_elsewhere_stays_but_can_be_undone(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3] x) => (float[2, 3] y, float[3, 2] z) "
        "{ a = Neg(x)\n t = Transpose(a)\n b = Transpose(t)\n y = Abs(b)\n z = Relu(t) }"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Abs": 1, "Relu": 1, "Transpose": 1}


def test_one_transpose_goes_into_all_that_read_it(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3, 4] x) => (float[4, 2, 3] y, float[3, 4, 2] z) {
            t = Transpose<perm = [2, 1, 0]>(x)
            y = Transpose<perm = [0, 2, 1]>(t)
            z = Transpose<perm = [1, 0, 2]>(t)
        }"""
    )
    assert check(engine, model, PASSES).ops == {"Transpose": 2}


def test_a_transpose_that_is_an_output_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4] x) => (float[4, 3, 2] t, float[3, 4, 2] y) "
        "{ t = Transpose(x)\n y = Transpose<perm = [1, 0, 2]>(t) }"
    )
    assert check(engine, model, PASSES).ops == {"Transpose": 2}


def test_undoing_an_input_that_would_become_an_output_stays(engine: Engine) -> None:
    model = model_of("g (float[2, 3] x) => (float[2, 3] y) { t = Transpose(x)\n y = Transpose(t) }")
    assert check(engine, model, PASSES).ops["Transpose"] == 1
