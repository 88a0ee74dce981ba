from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import clamp, dead_code, hard_activations
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, clamp.PASS, hard_activations.PASS)

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "half": 0.5, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "two": 2.0,
}  # fmt: skip


def graph(
    body: str, *, opset: int = 17, dtype: str = "float", shape: tuple[int, ...] = ()
) -> onnx.ModelProto:
    element: Any = {"float": np.float32, "float16": np.float16}[dtype]
    names = body.replace(",", " ").replace(")", " ").replace("(", " ").split()
    return model_of(
        f"g ({dtype}[2, 4, 8, 8] x) => ({dtype}[2, 4, 8, 8] y) {{ {body} }}",
        opset=opset,
        weights={
            name: np.full(shape if name not in ("zero", "one", "six") else (), value, element)
            for name, value in CONSTANTS.items()
            if name in names
        },
    )


RELU6 = [
    "r = Clip(a, zero, six)",
    "r0 = Relu(a)\n r = Min(r0, six)",
    "r0 = Relu(a)\n r = Clip(r0, zero, six)",
]
HARD_SWISH = [
    "a = Add(x, three)\n RELU6\n d = Div(r, six)\n y = Mul(x, d)",
    "a = Add(three, x)\n RELU6\n d = Mul(r, sixth)\n y = Mul(d, x)",
    "a = Add(x, three)\n RELU6\n m = Mul(x, r)\n y = Div(m, six)",
    "a = Add(x, three)\n RELU6\n m = Mul(r, x)\n y = Mul(sixth, m)",
    "a = Add(x, three)\n RELU6\n s = Mul(x, sixth)\n y = Mul(s, r)",
    "a = Add(x, three)\n RELU6\n s = Div(x, six)\n y = Mul(r, s)",
    "q = Div(x, six)\n a = Add(q, half)\n c = Clip(a, zero, one)\n y = Mul(x, c)",
    "q = Mul(x, sixth)\n a = Add(q, half)\n c = Clip(a, zero, one)\n y = Mul(c, x)",
    "c = HardSigmoid<alpha=0.1666667, beta=0.5>(x)\n y = Mul(x, c)",
]


@pytest.mark.parametrize("relu6", RELU6)
@pytest.mark.parametrize("body", HARD_SWISH)
def test_every_spelling_of_hard_swish(engine: Engine, body: str, relu6: str) -> None:
    written = body.replace("RELU6", relu6)
    assert check(engine, graph(written, opset=14), PASSES, rtol=1e-6).ops == {"HardSwish": 1}
    older = check(engine, graph(written, opset=13), PASSES, rtol=1e-6)
    assert older.ops == {"HardSigmoid": 1, "Mul": 1}


@pytest.mark.parametrize("opset", [8, 10, 11, 21])
def test_hard_sigmoid_in_every_opset(engine: Engine, opset: int) -> None:
    clip = "Clip<min=0.0, max=6.0>(a)" if opset < 11 else "Clip(a, zero, six)"
    body = f"a = Add(x, three)\n r = {clip}\n y = Div(r, six)"
    assert check(engine, graph(body, opset=opset), PASSES, rtol=1e-6).ops == {"HardSigmoid": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Sub(x, three)\n y = Clip(a, zero, one)",
        "a = Sub(three, x)\n y = Clip(a, zero, one)",
        "m = Mul(two, x)\n a = Sub(half, m)\n y = Clip(a, zero, one)",
        "m = Div(x, two)\n y = Clip(m, zero, one)",
    ],
)
def test_any_line_clipped_to_the_unit_interval_is_hard_sigmoid(engine: Engine, body: str) -> None:
    assert check(engine, graph(body), PASSES, rtol=1e-6).ops == {"HardSigmoid": 1}


def test_a_gate_on_another_tensor_is_hard_sigmoid_and_mul(engine: Engine) -> None:
    body = """n = Neg(x)
        a = Add(x, three)
        r = Clip(a, zero, six)
        m = Mul(n, r)
        y = Div(m, six)"""
    assert check(engine, graph(body), PASSES).ops == {"Neg": 1, "HardSigmoid": 1, "Mul": 1}


def test_one_element_constants_of_lower_rank_are_scalars(engine: Engine) -> None:
    for shape in ((1,), (1, 1, 1, 1)):
        assert check(
            engine, graph(HARD_SWISH[0].replace("RELU6", RELU6[0]), shape=shape), PASSES
        ).ops == {"HardSwish": 1}


def test_a_constant_per_channel_or_of_higher_rank_stays(engine: Engine) -> None:
    body = "a = Add(x, three)\n y = Clip(a, zero, one)"
    assert check(engine, graph(body, shape=(4, 1, 1)), PASSES).ops == {"Add": 1, "Clip": 1}
    raised = model_of(
        """g (float[2] x) => (float[1, 2] y) {
            a = Add(x, three)
            y = Clip(a, zero, one)
        }""",
        weights={
            "three": np.full((1, 1), 3, np.float32),
            "zero": np.float32(0),
            "one": np.float32(1),
        },
    )
    assert check(engine, raised, PASSES).ops == {"Add": 1, "Clip": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three)\n r = Clip(a, zero, three)\n y = Div(r, six)",
        "a = Add(x, three)\n r = Clip(a, half, six)\n y = Div(six, r)",
        "a = Add(x, three)\n r = Clip(a, one, six)\n y = Div(r, six)",
        "y = Clip(x, zero, one)",
        "r = Relu(x)\n y = Div(r, six)",
    ],
)
def test_other_bounds_and_factors_stay(engine: Engine, body: str) -> None:
    outcome = check(engine, graph(body), PASSES)
    assert not any(
        rewrite.pass_name == hard_activations.NAME for rewrite in outcome.context.rewrites
    )


def test_a_hard_sigmoid_of_other_slope_is_no_hard_swish(engine: Engine) -> None:
    body = "c = HardSigmoid<alpha=0.2, beta=0.5>(x)\n y = Mul(x, c)"
    outcome = check(engine, graph(body), PASSES)
    assert outcome.ops == {"HardSigmoid": 1, "Mul": 1}
    assert outcome.reasons == ["a HardSwish with alpha 0.2 and beta 0.5"]


def test_what_others_read_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 4] x) => (float[2, 4] y, float[2, 4] r) {
            a = Add(x, three)
            r = Clip(a, zero, six)
            d = Div(r, six)
            y = Mul(x, d)
        }""",
        weights={name: np.float32(CONSTANTS[name]) for name in ("three", "zero", "six")},
    )
    assert check(engine, model, PASSES).ops == {"Add": 1, "Clip": 1, "Div": 1, "Mul": 1}
    shared_line = model_of(
        """g (float[2, 4] x) => (float[2, 4] y, float[2, 4] z) {
            a = Add(x, three)
            r = Clip(a, zero, six)
            y = Div(r, six)
            z = Neg(a)
        }""",
        weights={name: np.float32(CONSTANTS[name]) for name in ("three", "zero", "six")},
    )
    outcome = check(engine, shared_line, PASSES)
    assert outcome.ops == {"Add": 1, "HardSigmoid": 1, "Neg": 1}


def test_half_precision_stays(engine: Engine) -> None:
    body = "a = Add(x, three)\n r = Clip(a, zero, six)\n d = Div(r, six)\n y = Mul(x, d)"
    outcome = check(engine, graph(body, dtype="float16"), PASSES, rtol=1e-2)
    assert outcome.ops == {"Add": 1, "Clip": 1, "Div": 1, "Mul": 1}


def test_the_constants_tell_the_type_where_inference_knows_none(engine: Engine) -> None:
    model = graph("f = Neg(x)\n a = Add(f, three)\n r = Clip(a, zero, six)\n y = Div(r, six)")
    model.graph.node[0].CopyFrom(
        onnx.helper.make_node("QuickGelu", ["x"], ["f"], domain="com.microsoft")
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert check(engine, model, PASSES).ops == {"QuickGelu": 1, "HardSigmoid": 1}
