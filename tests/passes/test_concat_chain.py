from __future__ import annotations

from ort_optim.engine import Engine
from ort_optim.passes import concat_chain
from tests.passes.harness import check, model_of

PASSES = (concat_chain.PASS,)


def test_inner_concats_are_taken_in(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] x, float[2, 1] z) => (float[2, 12] y) {
            a = Concat<axis = 1>(x, z)
            b = Concat<axis = -1>(z, x)
            c = Concat<axis = 1>(a, b)
            y = Concat<axis = -1>(z, c, x)
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Concat": 1}
    assert list(outcome.model.graph.node[0].input) == ["z", "x", "z", "z", "x", "x"]


def test_other_axes_stay(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3] x) => (float[4, 6] y) "
        "{ a = Concat<axis = 0>(x, x)\n b = Concat<axis = 0>(x, x)\n y = Concat<axis = 1>(a, b) }"
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_an_inner_concat_of_another_axis_does_not_hinder_the_others(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3] x) => (float[4, 9] y) { a = Concat<axis = 0>(x, x)\n"
        " b = Concat<axis = 1>(a, a)\n c = Concat<axis = 0>(x, x)\n y = Concat<axis = 1>(b, c) }"
    )
    assert check(engine, model, PASSES).ops == {"Concat": 3}


def test_an_inner_concat_that_is_read_twice_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[8] y) { a = Concat<axis = 0>(x, x)\n y = Concat<axis = 0>(a, a) }"
    )
    assert check(engine, model, PASSES).ops == {"Concat": 2}
