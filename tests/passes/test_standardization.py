from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, standardization
from tests.passes.harness import check, model_of

PASSES = (dead_code.PASS, standardization.PASS)
RNG = np.random.default_rng(13)

SQUARES = {"pow": "q = Pow(d, two)", "mul": "q = Mul(d, d)"}
QUOTIENTS = {
    "div": "n = Div(d, s)",
    "reciprocal": "r = Reciprocal(s)\n n = Mul(d, r)",
    "inverse": "r = Div(one, s)\n n = Mul(r, d)",
}


def written_out(
    shape: str,
    axes: tuple[int, ...],
    tail: str,
    *,
    opset: int = 17,
    square: str = "pow",
    quotient: str = "div",
    dtype: str = "float",
    **weights: np.ndarray[Any, Any],
) -> onnx.ModelProto:
    element = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    reduce = "ReduceMean(X, axes)" if opset >= 18 else f"ReduceMean<axes={list(axes)}>(X)"
    body = f"""
        m = {reduce.replace("X", "x")}
        d = Sub(x, m)
        {SQUARES[square]}
        v = {reduce.replace("X", "q")}
        a = Add(v, eps)
        s = Sqrt(a)
        {QUOTIENTS[quotient]}
        {tail}"""
    values = {"eps": 1e-3, "two": 2.0, "one": 1.0}
    constants = {
        name: np.array(value, element) for name, value in values.items() if f"{name}" in body
    }
    if opset >= 18:
        constants["axes"] = np.array(axes, np.int64)
    return model_of(
        f"g ({dtype}[{shape}] x) => ({dtype}[{shape}] y) {{ {body} }}",
        opset=opset,
        weights={**constants, **{k: v.astype(element) for k, v in weights.items()}},
    )


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape)


AFFINE = "t = Mul(n, g)\n y = Add(t, b)"
PLAIN = "y = Identity(n)"


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("opset", [17, 18, 21])
def test_layer_norm_in_every_spelling(
    engine: Engine, square: str, quotient: str, opset: int
) -> None:
    model = written_out(
        "N, 3, 8", (-1,), AFFINE, opset=opset, square=square, quotient=quotient,
        g=normal(8), b=normal(1, 8),
    )  # fmt: skip
    assert check(engine, model, PASSES).ops == {"LayerNormalization": 1}


@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
def test_layer_norm_of_every_type(engine: Engine, dtype: str) -> None:
    model = written_out("2, 3, 8", (2,), AFFINE, dtype=dtype, g=normal(8), b=normal(8))
    rtol = 1e-2 if dtype == "float16" else 1e-5
    assert check(engine, model, PASSES, rtol=rtol).ops == {"LayerNormalization": 1}


@pytest.mark.parametrize(
    ("tail", "left"),
    [
        (PLAIN, {"Identity": 1}),
        ("y = Mul(n, g)", {}),
        ("y = Add(b, n)", {}),
        ("t = Mul(n, h)\n y = Add(t, b)", {"Mul": 1, "Add": 1}),
        ("t = Mul(n, n)\n y = Add(t, b)", {"Mul": 1, "Add": 1}),
    ],
)
def test_layer_norm_with_parts_missing_or_other(
    engine: Engine, tail: str, left: dict[str, int]
) -> None:
    weights = {"g": normal(4, 8), "b": normal(4, 8), "h": normal(4, 1)}
    used = {
        name: value for name, value in weights.items() if f"{name})" in tail or f"({name}" in tail
    }
    model = written_out("2, 4, 8", (1, 2), tail, **used)
    assert check(engine, model, PASSES).ops == {"LayerNormalization": 1, **left}


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("scale", [(4, 1, 1), (1, 4, 1, 1), ()])
def test_instance_norm_with_a_scale_per_channel(
    engine: Engine, scale: tuple[int, ...], opset: int
) -> None:
    model = written_out(
        "2, 4, 5, 6", (2, 3), AFFINE, opset=opset, g=normal(*scale), b=normal(4, 1, 1)
    )
    assert check(engine, model, PASSES).ops == {"InstanceNormalization": 1}


def test_instance_norm_without_scale_and_with_another_one(engine: Engine) -> None:
    bare = written_out("2, 4, H, 6", (2, 3), PLAIN, opset=13)
    assert check(engine, bare, PASSES).ops == {"InstanceNormalization": 1, "Identity": 1}
    other = written_out("2, 4, 5, 6", (-1, -2), AFFINE, opset=13, g=normal(5, 6), b=normal(4, 1, 1))
    assert check(engine, other, PASSES).ops == {"InstanceNormalization": 1, "Mul": 1, "Add": 1}


def test_the_last_of_three_axes_is_left_to_the_runtime_before_opset_17(engine: Engine) -> None:
    model = written_out("2, 4, 8", (2,), AFFINE, opset=13, g=normal(8), b=normal(8))
    outcome = check(engine, model, PASSES)
    assert not outcome.context.rewrites
    per_channel = written_out("2, 4, 8", (2,), AFFINE, opset=13, g=normal(4, 1), b=normal(4, 1))
    assert check(engine, per_channel, PASSES).ops == {"InstanceNormalization": 1}


@pytest.mark.parametrize("shape", ["1, 4, 5, 6", "3, 4, 5, 6", "N, 4, 5, 6", "2, 4, H, 6"])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (1, 2, 3)])
def test_means_over_everything_go_through_reshape(
    engine: Engine, shape: str, axes: tuple[int, ...]
) -> None:
    model = written_out(shape, axes, AFFINE, opset=12, square="mul", g=normal(4, 1, 1), b=normal(6))
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Reshape": 2, "InstanceNormalization": 1, "Mul": 1, "Add": 1}


FOLDED = """
    m = ReduceMean<axes=[2]>(x)
    d = Sub(x, m)
    q = Mul(d, d)
    v = ReduceMean<axes=[2]>(q)
    a = Add(v, eps)
    s = Sqrt(a)
    r = Reciprocal(s)
    rg = Mul(r, g)
    xr = Mul(x, rg)
    mr = Mul(m, rg)
    o = Sub(b, mr)
    y = Add(xr, o)"""


def folded(opset: int, body: str = FOLDED) -> onnx.ModelProto:
    return model_of(
        f"g (float[2, S, 8] x) => (float[2, S, 8] y) {{ {body} }}",
        opset=opset,
        weights={
            "eps": np.float32(1e-3),
            "g": normal(8).astype(np.float32),
            "b": normal(8).astype(np.float32),
        },
    )


def test_the_folded_form_is_layer_norm_or_the_form_that_the_runtime_knows(engine: Engine) -> None:
    assert check(engine, folded(17), PASSES).ops == {"LayerNormalization": 1}
    plain = check(engine, folded(11), PASSES).ops
    assert plain == {
        "ReduceMean": 2, "Sub": 1, "Pow": 1, "Add": 2, "Sqrt": 1, "Div": 1, "Mul": 1,
    }  # fmt: skip


def test_a_folded_form_with_another_reader_stays(engine: Engine) -> None:
    body = FOLDED.replace("y = Add(xr, o)", "z = Add(xr, o)\n y = Add(z, rg)")
    outcome = check(engine, folded(17, body), PASSES)
    assert not outcome.context.rewrites
    assert outcome.reasons == ["the standard deviation is used in another way"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("d = Sub(x, m)", "d = Sub(m, x)"),
        ("q = Pow(d, two)", "q = Pow(d, one)"),
        ("n = Div(d, s)", "n = Div(s, d)"),
        ("n = Div(d, s)", "n = Div(x, s)"),
        ("v = ReduceMean<axes=[2]>(q)", "v = ReduceMean<axes=[1]>(q)"),
        ("v = ReduceMean<axes=[2]>(q)", "v = ReduceSum<axes=[2]>(q)"),
    ],
)
def test_what_only_looks_like_a_normalization_stays(engine: Engine, old: str, new: str) -> None:
    body = """
        m = ReduceMean<axes=[2]>(x)
        d = Sub(x, m)
        q = Pow(d, two)
        v = ReduceMean<axes=[2]>(q)
        a = Add(v, one)
        s = Sqrt(a)
        n = Div(d, s)
        y = Mul(n, one)"""
    opset = 11 if "ReduceSum" in new else 17
    model = model_of(
        f"g (float[2, 3, 3] x) => (float[2, 3, 3] y) {{ {body.replace(old, new)} }}",
        opset=opset,
        weights={"two": np.float32(2), "one": np.float32(1)},
    )
    feeds = {"x": np.abs(normal(2, 3, 3)).astype(np.float32)}
    assert not check(engine, model, PASSES, feeds=feeds).context.rewrites


def test_a_mean_that_is_a_graph_output_stays(engine: Engine) -> None:
    model = written_out("2, 3, 8", (2,), AFFINE, g=normal(8), b=normal(8))
    extra = onnx.helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [2, 3, 1])
    model.graph.output.append(extra)
    assert not check(engine, model, PASSES).context.rewrites


def test_unknown_sizes_stay(engine: Engine) -> None:
    model = written_out("2, 3, L", (2,), PLAIN)
    outcome = check(engine, model, PASSES)
    assert outcome.reasons == ["no operator for these axes, sizes and this opset"]
