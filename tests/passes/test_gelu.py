from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, gelu
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, gelu.PASS)

K = (2 / np.pi) ** 0.5
CONSTANTS = {
    "root2": 2**0.5, "inverse": 0.5**0.5, "one": 1.0, "half": 0.5, "two": 2.0, "three": 3.0,
    "c": 0.044715, "k": K, "kc": K * 0.044715,
}  # fmt: skip


def graph(body: str, *, opset: int = 20, dtype: str = "float", **others: Any) -> Any:
    element: Any = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    words = body.replace(",", " ").replace(")", " ").replace("(", " ").split()
    return model_of(
        f"g ({dtype}[2, 3, 8] x) => ({dtype}[2, 3, 8] y) {{ {body} }}",
        opset=opset,
        weights={
            name: np.asarray(value, element)
            for name, value in {**CONSTANTS, **others}.items()
            if name in words
        },
    )


ARGUMENTS = ["u = Div(x, root2)", "u = Mul(inverse, x)", "u = Mul(x, inverse)"]
PRODUCTS = [
    "m = Mul(x, p)\n y = Mul(m, half)",
    "m = Mul(p, x)\n y = Div(m, two)",
    "h = Mul(x, half)\n y = Mul(h, p)",
    "h = Div(x, two)\n y = Mul(p, h)",
    "m = Mul(half, p)\n y = Mul(m, x)",
]


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_spelling_of_gelu(engine: Engine, argument: str, product: str) -> None:
    model = graph(f"{argument}\n e = Erf(u)\n p = Add(one, e)\n {product}")
    assert check(engine, model, PASSES).ops == {"Gelu": 1}


def test_before_opset_20_it_is_left_to_the_runtime(engine: Engine) -> None:
    model = graph(f"{ARGUMENTS[0]}\n e = Erf(u)\n p = Add(one, e)\n {PRODUCTS[0]}", opset=17)
    assert not check(engine, model, PASSES).context.rewrites


POLYNOMIALS = [
    "q = Pow(x, three)\n s = Mul(q, c)\n t = Add(x, s)\n u = Mul(t, k)",
    "q = Mul(x, x)\n r = Mul(x, q)\n s = Mul(c, r)\n t = Add(x, s)\n u = Mul(k, t)",
    "q = Mul(x, x)\n s = Mul(q, c)\n r = Add(s, one)\n t = Mul(x, k)\n u = Mul(t, r)",
    "q = Pow(x, two)\n s = Mul(q, kc)\n r = Add(s, k)\n u = Mul(r, x)",
]


@pytest.mark.parametrize("polynomial", POLYNOMIALS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_the_tanh_form(engine: Engine, polynomial: str, product: str) -> None:
    body = f"{polynomial}\n e = Tanh(u)\n p = Add(e, one)\n {product}"
    newer = check(engine, graph(body), PASSES)
    assert newer.ops == {"Gelu": 1}
    older = check(engine, graph(body, opset=13), PASSES)
    if "Pow(x, three)" in body and "Mul(x, half)" in body:
        assert older.reasons == ["ONNX Runtime fuses this form"]
    else:
        assert older.ops == {"Mul": 4, "Add": 1, "Sigmoid": 1}


def test_another_cubic_takes_the_sigmoid_form_in_every_opset(engine: Engine) -> None:
    model = graph(f"{POLYNOMIALS[0]}\n e = Tanh(u)\n p = Add(e, one)\n {PRODUCTS[0]}", c=0.1)
    assert check(engine, model, PASSES).ops == {"Mul": 4, "Add": 1, "Sigmoid": 1}


@pytest.mark.parametrize(
    "body",
    [
        "u = Div(x, two)\n e = Erf(u)\n p = Add(e, one)\n m = Mul(x, p)\n y = Mul(m, half)",
        "u = Div(x, root2)\n e = Erf(u)\n p = Add(e, half)\n m = Mul(x, p)\n y = Mul(m, half)",
        "u = Div(x, root2)\n e = Erf(u)\n p = Add(e, one)\n m = Mul(x, p)\n y = Mul(m, two)",
        "n = Neg(x)\n u = Div(n, root2)\n e = Erf(u)\n p = Add(e, one)\n m = Mul(x, p)\n"
        " y = Mul(m, half)",
        "u = Div(x, root2)\n e = Erf(u)\n p = Add(e, one)\n m = Mul(x, p)\n h = Mul(m, half)\n"
        " y = Add(h, p)",
        "u = Div(x, root2)\n e = Erf(u)\n p = Add(e, one)\n m = Mul(x, p)\n h = Mul(m, half)\n"
        " y = Add(h, u)",
        "u = Mul(x, k)\n e = Tanh(u)\n p = Add(e, one)\n m = Mul(x, p)\n y = Mul(m, half)",
        "q = Pow(x, two)\n s = Mul(q, c)\n t = Add(x, s)\n u = Mul(t, k)\n e = Tanh(u)\n"
        " p = Add(e, one)\n m = Mul(x, p)\n y = Mul(m, half)",
    ],
)
def test_what_only_looks_like_gelu_stays(engine: Engine, body: str) -> None:
    assert not check(engine, graph(body), PASSES).context.rewrites


def test_half_precision_and_vectors_stay(engine: Engine) -> None:
    body = f"{ARGUMENTS[0]}\n e = Erf(u)\n p = Add(one, e)\n {PRODUCTS[0]}"
    half = graph(body, dtype="float16")
    assert not check(engine, half, PASSES, rtol=1e-2).context.rewrites
    vector = graph(body, root2=np.full(8, 2**0.5))
    assert not check(engine, vector, PASSES).context.rewrites


def test_named_nodes_keep_distinct_names(engine: Engine) -> None:
    model = graph(f"{POLYNOMIALS[0]}\n e = Tanh(u)\n p = Add(e, one)\n {PRODUCTS[0]}", opset=13)
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    names = [node.name for node in check(engine, model, PASSES).model.graph.node]
    assert len(set(names)) == len(names)
