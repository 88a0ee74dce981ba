from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import common_subexpressions
from tests.passes.harness import apply, check, model_of

PASSES = (common_subexpressions.PASS,)


def test_equal_chains_become_one(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] x) => (float[2, 3] y) {
            a = Neg(x)
            b = Neg(x)
            c = Transpose(a)
            d = Transpose(b)
            e = Abs(c)
            f = Abs(d)
            h = Sub(e, f)
            y = Transpose(h)
        }"""
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Transpose": 2, "Abs": 1, "Sub": 1}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("LeakyRelu(x)", "LeakyRelu<alpha = 0.01>(x)", True),
        ("LeakyRelu(x)", "LeakyRelu<alpha = 0.02>(x)", False),
        ("Softmax(x)", "Softmax<axis = -1>(x)", True),
        ("Softmax(x)", "Softmax<axis = 1>(x)", False),
        ("Gelu(x)", 'Gelu<approximate = "none">(x)', True),
        ("Gelu(x)", 'Gelu<approximate = "tanh">(x)', False),
        ("Add(x, z)", "Add(z, x)", True),
        ("Sub(x, z)", "Sub(z, x)", False),
        ("Add(x, x)", "Add(x, z)", False),
        ("Clip(x)", "Clip(x, , )", True),
        ("Clip(x, l)", "Clip(x, , l)", False),
        ("Transpose<perm = [1, 0]>(x)", "Transpose<perm = [0, 1]>(x)", False),
        ("Cast<to = 11>(x)", "Cast<to = 11>(x)", True),
    ],
)
def test_only_what_computes_the_same_becomes_one(
    engine: Engine, first: str, second: str, same: bool
) -> None:
    kind = "double" if "Cast" in first else "float"
    model = model_of(
        f"g (float[3, 3] x, float[3, 3] z) => ({kind}[3, 3] y) "
        f"{{ a = {first}\n b = {second}\n y = Mul(a, b) }}",
        opset=20,
        weights={"l": np.float32(0.1)},
    )
    assert bool(check(engine, model, PASSES).context.rewrites) == same


def test_random_numbers_stay_apart(engine: Engine) -> None:
    model = model_of(
        "g (float[9] x) => (float[9] y) "
        "{ a = RandomNormalLike(x)\n b = RandomNormalLike(x)\n y = Sub(a, b) }"
    )
    assert apply(engine, model, PASSES).ops["RandomNormalLike"] == 2


def test_nodes_with_several_outputs_become_one(engine: Engine) -> None:
    model = model_of(
        """g (float[4] x) => (float[2] y) {
            a, b = Split<axis = 0>(x)
            c, d = Split<axis = 0>(x)
            e = Sub(a, d)
            y = Mul(e, b)
        }""",
        opset=13,
    )
    assert check(engine, model, PASSES).ops == {"Split": 1, "Sub": 1, "Mul": 1}


def test_the_number_of_outputs_tells_splits_apart(engine: Engine) -> None:
    model = model_of(
        """g (float[6] x) => (float[2] y) {
            a, b, c = Split<axis = 0>(x)
            d, e = Split<axis = 0>(x)
            f = ReduceSum(d)
            y = Mul(a, f)
        }""",
        opset=13,
    )
    assert check(engine, model, PASSES).ops["Split"] == 2


def test_one_of_two_equal_outputs_keeps_its_node(engine: Engine) -> None:
    model = model_of("g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x)\n z = Neg(x) }")
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Neg": 2}
    assert outcome.reasons == ["two graph outputs would be one tensor"]


def test_an_output_takes_the_place_of_its_earlier_twin(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x)\n y = Abs(a)\n z = Neg(x) }"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Abs": 1}


def test_a_branch_reads_what_the_graph_around_has_computed_before(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            a = Neg(x)
            c = Add(a, x)
            d = If(b) <
                then_branch = t () => (float[2] p) { i = Neg(x) p = Abs(i) },
                else_branch = e () => (float[2] q) { j = Neg(x) k = Relu(j) q = Abs(k) }
            >
            y = Add(c, d)
        }"""
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Add": 2, "If": 1, "Abs": 2, "Relu": 1}


def test_what_a_branch_computes_is_not_read_outside_of_it(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            d = If(b) <
                then_branch = t () => (float[2] p) { i = Neg(x) p = Abs(i) },
                else_branch = e () => (float[2] q) { j = Neg(x) q = Relu(j) }
            >
            a = Neg(x)
            y = Add(a, d)
        }"""
    )
    assert check(engine, model, PASSES).ops["Neg"] == 3


def test_equal_dequantizations_become_one(engine: Engine) -> None:
    model = model_of(
        """g (uint8[4] x) => (float[4] y) {
            a = DequantizeLinear(x, s, z)
            b = DequantizeLinear<axis = 1>(x, s, z)
            c = Relu(a)
            y = Add(b, c)
        }""",
        weights={"s": np.float32(0.5), "z": np.uint8(3)},
    )
    assert check(engine, model, PASSES).ops == {"DequantizeLinear": 1, "Relu": 1, "Add": 1}
