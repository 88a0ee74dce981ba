from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, leaky_relu
from tests.passes.harness import apply, check, model_of

PASSES = (dead_code.PASS, leaky_relu.PASS)


def graph(body: str, s: Any, *, opset: int = 17, out: str = "2, 3, 4, 5") -> Any:
    return model_of(
        f"g (float[2, 3, 4, 5] x) => (float[{out}] y) {{ {body} }}",
        opset=opset,
        weights={"s": np.asarray(s, np.float32)},
    )


def per_channel(*values: float) -> Any:
    return np.reshape(values, (3, 1, 1))


@pytest.mark.parametrize("opset", [8, 9, 13, 16, 21])
@pytest.mark.parametrize("slope", [[0.1], per_channel(0.3, 0.3, 0.3), 0.0, -0.5, [[[[2.0]]]]])
def test_prelu_of_equal_slopes_is_leaky_relu(engine: Engine, slope: Any, opset: int) -> None:
    outcome = check(engine, graph("y = PRelu(x, s)", slope, opset=opset), PASSES)
    assert outcome.ops == {"LeakyRelu": 1}


@pytest.mark.parametrize(
    "slope", [per_channel(0.1, 1.0, -2.0), np.linspace(0.1, 0.9, 60).reshape(3, 4, 5)]
)
def test_prelu_of_slopes_up_to_one_is_a_maximum(engine: Engine, slope: Any) -> None:
    outcome = check(engine, graph("y = PRelu(x, s)", slope), PASSES)
    assert outcome.ops == {"Mul": 1, "Max": 1}


@pytest.mark.parametrize("slope", [per_channel(0.1, 1.5, 0.2), per_channel(0.1, 0.0, 0.2)])
def test_prelu_of_steeper_or_zero_slopes_stays(engine: Engine, slope: Any) -> None:
    outcome = check(engine, graph("y = PRelu(x, s)", slope), PASSES)
    assert outcome.ops == {"PRelu": 1}
    assert outcome.reasons == ["a slope is above one, or zero"]


@pytest.mark.parametrize("body", ["a = Mul(x, s)\n y = Max(x, a)", "a = Mul(s, x)\n y = Max(a, x)"])
@pytest.mark.parametrize("slope", [0.01, 1.0, -0.5])
def test_a_maximum_with_the_scaled_input_is_leaky_relu(
    engine: Engine, body: str, slope: float
) -> None:
    assert check(engine, graph(body, slope), PASSES).ops == {"LeakyRelu": 1}


@pytest.mark.parametrize(
    ("body", "slope"),
    [
        ("a = Mul(x, s)\n y = Max(x, a)", 1.5),
        ("a = Mul(x, s)\n y = Max(x, a)", per_channel(0.1, 0.2, 0.3)),
        ("n = Neg(x)\n a = Mul(n, s)\n y = Max(x, a)", 0.5),
        ("a = Mul(x, s)\n m = Max(x, a)\n y = Add(m, a)", 0.5),
    ],
)
def test_other_maxima_stay(engine: Engine, body: str, slope: Any) -> None:
    assert not check(engine, graph(body, slope), PASSES).context.rewrites


@pytest.mark.parametrize("last", ["Sub(p, m)", "Add(p, m)", "Add(m, p)"])
@pytest.mark.parametrize("product", ["Mul(q, s)", "Mul(s, q)"])
def test_the_sum_of_both_parts_is_recognized(engine: Engine, product: str, last: str) -> None:
    body = f"p = Relu(x)\n n = Neg(x)\n q = Relu(n)\n m = {product}\n y = {last}"
    uniform = check(engine, graph(body, per_channel(0.25, 0.25, 0.25)), PASSES)
    assert uniform.ops == {"LeakyRelu": 1}
    varied = check(engine, graph(body, per_channel(0.25, 0.5, 0.75)), PASSES)
    assert varied.ops == {"Mul": 1, "Max": 1}


@pytest.mark.parametrize(
    "body",
    [
        "p = Relu(x)\n n = Neg(x)\n q = Relu(n)\n m = Mul(q, s)\n y = Sub(m, p)",
        "p = Relu(x)\n n = Abs(x)\n q = Relu(n)\n m = Mul(q, s)\n y = Add(m, p)",
        "p = Relu(x)\n n = Neg(x)\n q = Relu(n)\n m = Mul(q, s)\n t = Add(m, p)\n y = Add(t, q)",
        "n = Neg(x)\n p = Relu(n)\n q = Relu(n)\n m = Mul(q, s)\n y = Add(m, p)",
    ],
)
def test_what_only_looks_like_both_parts_stays(engine: Engine, body: str) -> None:
    outcome = check(engine, graph(body, per_channel(0.25, 0.5, 0.75)), PASSES)
    assert not outcome.context.rewrites


def test_a_slope_that_enlarges_the_sum_stays(engine: Engine) -> None:
    body = "p = Relu(x)\n n = Neg(x)\n q = Relu(n)\n m = Mul(q, s)\n y = Add(m, p)"
    outcome = check(engine, graph(body, np.ones((1, 1, 1, 1, 1)), out="1, 2, 3, 4, 5"), PASSES)
    assert not outcome.context.rewrites


def test_a_computed_slope_and_other_types_stay(engine: Engine) -> None:
    computed = model_of("g (float[2, 3] x, float[3] s) => (float[2, 3] y) { y = PRelu(x, s) }")
    assert check(engine, computed, PASSES).reasons == ["its slope is not a constant"]
    double = model_of(
        "g (double[2, 3] x) => (double[2, 3] y) { y = PRelu(x, s) }",
        weights={"s": np.array([0.5])},
    )
    assert not apply(engine, double, PASSES).context.rewrites


def test_named_nodes_keep_distinct_names(engine: Engine) -> None:
    model = graph("y = PRelu(x, s)", per_channel(0.1, 0.2, 0.3))
    model.graph.node[0].name = "prelu"
    names = [node.name for node in check(engine, model, PASSES).model.graph.node]
    assert len(set(names)) == 2
    assert names[-1] == "prelu"


@pytest.mark.parametrize(
    ("slope", "ops"), [(per_channel(0.5, 0.5, 0.5), {"LeakyRelu": 1}),
                       (per_channel(0.1, 0.2, 0.3), {"Mul": 1, "Max": 1}),
                       (per_channel(0.1, 2.0, 0.3), {"PRelu": 1})]
)  # fmt: skip
def test_an_expanded_slope_is_read_as_it_is(
    engine: Engine, slope: Any, ops: dict[str, int]
) -> None:
    model = graph("e = Expand(s, shape)\n y = PRelu(x, e)", slope)
    shape = np.array([1, 3, 4, 5], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    assert check(engine, model, PASSES).ops == ops
