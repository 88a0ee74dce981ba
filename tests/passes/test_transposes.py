from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, transpose_chain, transposes
from tests.passes.harness import check, model_of

PASSES = (transposes.PASS, transpose_chain.PASS, dead_code.PASS)
TO_NCHW, TO_NHWC = "Transpose<perm = [0, 3, 1, 2]>", "Transpose<perm = [0, 2, 3, 1]>"


def _i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


BODIES: list[tuple[str, int, dict[str, np.ndarray]]] = [
    ("u = Relu(t)", 17, {}),
    ("u = Cast<to = 1>(t)", 17, {}),
    ("u = Clip(t, c)", 17, {"c": np.array(0.1, np.float32)}),
    ("u = Add(t, c)", 17, {"c": np.arange(5, dtype=np.float32)}),
    ("u = Mul(c, t)", 17, {"c": np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)}),
    ("u = Sub(t, c)", 17, {"c": np.ones((), np.float32)}),
    ("v = Sigmoid(t)\n u = Mul(t, v)", 17, {}),
    ("u = PRelu(t, c)", 17, {"c": np.arange(5, dtype=np.float32)}),
    ("u = Concat<axis = -1>(t, t)", 17, {}),
    ("u = Concat<axis = 3>(t, c)", 17, {"c": np.ones((2, 3, 4, 1), np.float32)}),
    ("v, w = Split<axis = 2>(t)\n u = Sub(v, w)", 13, {}),
    ("v, w = Split<axis = 3>(t, c)\n u = Concat<axis = 3>(w, v)", 13, {"c": _i64(2, 3)}),
    ("u = ReduceMean<axes = [1, 2]>(t)", 13, {}),
    ("u = ReduceMean(t, c)", 18, {"c": _i64(-1)}),
    ("u = ReduceSum(t, c)", 13, {"c": _i64(1, 2)}),
    ("u = ReduceMax(t)", 13, {}),
    ("a = ArgMax<axis = 3>(t)\n u = Cast<to = 1>(a)", 13, {}),
    ("u = Softmax(t)", 13, {}),
    ("u = LogSoftmax<axis = 1>(t)", 13, {}),
    ("u = LpNormalization(t)", 13, {}),
    ("u = Pad(t, c)", 13, {"c": _i64(0, 1, 2, 0, 0, 3, 4, 0)}),
    ('u = Pad<mode = "reflect", pads = [0, 1, 2, 0, 0, 1, 0, 0]>(t)', 10, {}),
    ("u = Pad(t, c, , d)", 18, {"c": _i64(1, 2), "d": _i64(-1)}),
    ("u = Slice(t, c, d)", 13, {"c": _i64(0, 1), "d": _i64(9, 3)}),
    ("u = Slice(t, c, d, e)", 13, {"c": _i64(1), "d": _i64(4), "e": _i64(-1)}),
    ("u = Slice<starts = [1, 0], ends = [3, 1], axes = [1, 3]>(t)", 9, {}),
    ("u = Tile(t, c)", 13, {"c": _i64(1, 2, 1, 3)}),
    ("v = ReduceMean<axes = [1, 2]>(t)\n u = Expand(v, c)", 13, {"c": _i64(2, 7, 6, 5)}),
    ("u = Gather<axis = 3>(t, c)", 13, {"c": _i64(4, 0, 2)}),
    ("u = Resize(t, , c)", 13, {"c": np.array([1, 2, 3, 1], np.float32)}),
    ('u = Resize<mode = "linear">(t, , , c)', 13, {"c": _i64(2, 6, 8, 5)}),
    ("q = QuantizeLinear(t, c, d)\n u = DequantizeLinear(q, c, d)", 13,
     {"c": np.array(0.1, np.float32), "d": np.uint8(7)}),
    ("q = QuantizeLinear<axis = 3>(t, c)\n u = DequantizeLinear<axis = -1>(q, c)", 13,
     {"c": np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32)}),
    ("v = Greater(t, c)\n w = Neg(t)\n u = Where(v, t, w)", 13, {"c": np.array([0.1], np.float32)}),
    ("u = Dropout(t)", 13, {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "opset", "constants"), BODIES)
def test_between_two_transposes_the_work_is_done_in_the_other_layout(
    engine: Engine, body: str, opset: int, constants: dict[str, np.ndarray]
) -> None:
    """From NCHW to NHWC and back, t having shape (2, 3, 4, 5)."""
    model = model_of(
        "g (float[2, 5, 3, 4] x) => (float[N, C, H, W] y) "
        f"{{ s = Neg(x)\n t = {TO_NHWC}(s)\n {body}\n v0 = {TO_NCHW}(u)\n y = Abs(v0) }}",
        opset=opset,
        weights=constants,
    )
    assert check(engine, model, PASSES).ops["Transpose"] == 0


@pytest.mark.parametrize(
    ("body", "opset", "constants"),
    [
        ("y = ReduceMean<axes = [1, 2], keepdims = 0>(t)", 13, {}),
        ("y = ArgMax<axis = 3, keepdims = 0>(t)", 13, {}),
        ("y = Gather<axis = -1>(t, c)", 13, {"c": np.array(2)}),
        ("u = ReduceMax<axes = [1, 2]>(t)\n y = Squeeze(u, c)", 13, {"c": _i64(1, 2)}),
        ("u = ReduceMax<axes = [1, 2]>(t)\n y = Squeeze<axes = [1, 2]>(u)", 11, {}),
        ("u = ReduceMax<axes = [1, 2]>(t)\n y = Reshape(u, c)", 13, {"c": _i64(2, 5)}),
        ("u = ReduceMax<axes = [1, 2]>(t)\n y = Flatten(u)", 13, {}),
    ],
)
def test_the_layout_may_end_where_axes_are_lost(
    engine: Engine, body: str, opset: int, constants: dict[str, np.ndarray]
) -> None:
    dtype, rank = ("int64", 3) if "ArgMax" in body else ("float", 3 if "Gather" in body else 2)
    dims = ", ".join("ABC"[:rank])
    model = model_of(
        f"g (float[2, 5, 3, 4] x, float[2, 5, 3, 4] z) => ({dtype}[{dims}] y) "
        f"{{ r = {TO_NHWC}(x)\n s = {TO_NHWC}(z)\n t = Mul(r, s)\n {body} }}",
        opset=opset,
        weights=constants,
    )
    assert check(engine, model, PASSES).ops["Transpose"] == 0


def test_two_transposes_before_a_sum_become_one_after_it(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 5, 3, 4] x, float[2, 5, 3, 4] z) => (float[2, 3, 4, 5] y) "
        f"{{ r = {TO_NHWC}(x)\n s = {TO_NHWC}(z)\n y = Add(r, s) }}"
    )
    assert check(engine, model, PASSES).ops == {"Add": 1, "Transpose": 1}


def test_two_transposes_after_a_split_become_one_before_it(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4, 6] x) => (float[2, 3, 3, 4] y, float[2, 3, 3, 4] z) "
        f"{{ r, s = Split<axis = 3>(x)\n y = {TO_NCHW}(r)\n z = {TO_NCHW}(s) }}",
        opset=13,
    )
    assert check(engine, model, PASSES).ops == {"Split": 1, "Transpose": 1}


def test_a_residual_network_in_the_wrong_layout_moves_as_a_whole(engine: Engine) -> None:
    """Convolutions between Transposes, with a bias, an activation and a sum in NHWC."""
    weight = np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32)
    model = model_of(
        f"""g (float[1, 6, 6, 4] x) => (float[1, 4] y) {{
            a0 = {TO_NCHW}(x)  a1 = Conv(a0, w)  a2 = {TO_NHWC}(a1)
            a3 = Add(a2, b)    a = Relu(a3)
            b0 = {TO_NCHW}(a)  b1 = Conv(b0, w)  b2 = {TO_NHWC}(b1)
            b3 = Add(b2, b)    b4 = Relu(b3)
            c0 = {TO_NCHW}(b4) c1 = Conv(c0, w)  c2 = {TO_NHWC}(c1)
            c3 = Add(c2, b)    c4 = Add(c3, a)   c5 = Relu(c4)
            y = ReduceMean<axes = [1, 2], keepdims = 0>(c5)
        }}""",
        weights={"w": weight, "b": np.arange(4, dtype=np.float32)},
    )
    assert check(engine, model, PASSES).ops["Transpose"] == 1


def test_nothing_moves_where_nothing_is_gained(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 5, 3, 4] x, float[2, 3, 4, 5] z) => (float[2, 3, 4, 5] y) "
        f"{{ r = {TO_NHWC}(x)\n s = Relu(r)\n y = Add(s, z) }}"
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_what_an_output_or_a_branch_reads_keeps_its_layout(engine: Engine) -> None:
    model = model_of(
        f"""g (bool b, float[2, 5, 3, 4] x) => (float[2, 3, 4, 5] r, float[2, 5, 3, 4] y) {{
            t = {TO_NHWC}(x)
            r = Relu(t)
            u = If(b) <
                then_branch = k () => (float[2, 3, 4, 5] p) {{ p = Neg(r) }},
                else_branch = e () => (float[2, 3, 4, 5] q) {{ q = Abs(r) }}
            >
            v = Add(u, r)
            w = {TO_NCHW}(r)
            z = {TO_NCHW}(v)
            y = Add(w, z)
        }}"""
    )
    check(engine, model, PASSES)


def test_two_outputs_that_are_the_same_stay_two(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 5, 3, 4] x) => (float[2, 5, 3, 4] y, float[2, 5, 3, 4] z) "
        f"{{ t = {TO_NHWC}(x)\n u = Relu(t)\n y = {TO_NCHW}(u)\n z = {TO_NCHW}(u) }}"
    )
    check(engine, model, PASSES)


def test_a_resize_does_not_leave_the_layout_with_channels_first(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 3, 4, 5] x) => (float[1, H, W, 5] y) "
        f"{{ t = {TO_NCHW}(x)\n u = Resize(t, , c)\n y = {TO_NHWC}(u) }}",
        weights={"c": np.array([1, 1, 2, 2], np.float32)},
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_constants_needed_in_both_layouts_may_be_too_large(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 5, 3, 4] x, float[2, 3, 4, 5] z) "
        "=> (float[2, 5, 3, 4] y, float[2, 3, 4, 5] w) "
        f"{{ t = {TO_NHWC}(x)\n u = Add(t, c)\n y = {TO_NCHW}(u)\n w = Mul(z, c) }}",
        weights={"c": np.ones((3, 4, 5), np.float32)},
    )
    outcome = check(engine, model, PASSES, max_growth_bytes=239)
    assert outcome.reasons == ["constants needed in both layouts would grow the model"]
    assert check(engine, model, PASSES, max_growth_bytes=240).ops["Transpose"] == 0


def test_unknown_dimensions_do_not_matter(engine: Engine) -> None:
    model = model_of(
        "g (float[N, 5, H, W] x) => (float[N, 5, H, W] y) "
        f"{{ s = Neg(x)\n t = {TO_NHWC}(s)\n u = Add(t, c)\n v = {TO_NCHW}(u)\n y = Abs(v) }}",
        weights={"c": np.arange(5, dtype=np.float32)},
    )
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)}
    assert check(engine, model, PASSES, feeds=feeds).ops == {"Neg": 1, "Add": 1, "Abs": 1}


def test_an_unknown_rank_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3] x, int64[R] s, float[2, 5, 6, 4] z) => (float[A, B, C, D] y) "
        f"{{ r = Reshape(x, s)\n t = {TO_NHWC}(z)\n u = Add(t, r)\n y = {TO_NCHW}(u) }}"
    )
    feeds = {
        "x": np.ones((2, 3), np.float32),
        "s": _i64(1, 6, 1, 1),
        "z": np.ones((2, 5, 6, 4), np.float32),
    }
    assert check(engine, model, PASSES, feeds=feeds).ops["Transpose"] == 2


PERMS = list(itertools.permutations(range(3)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_networks_of_transposes_stay_right(engine: Engine, data: st.DataObject) -> None:
    """Cubes of side 2, so that every permutation fits every operator."""
    lines, names = [], ["x", "z"]
    for number in range(data.draw(st.integers(3, 12), "nodes")):
        kind = data.draw(st.sampled_from(["T", "T", "Relu", "Add", "Mul", "Const", "Slice", "Sm"]))
        a, b = (data.draw(st.sampled_from(names)) for _ in range(2))
        axis = data.draw(st.integers(-3, 2))
        name = f"t{number}"
        lines.append(
            {
                "T": f"{name} = Transpose<perm = {list(data.draw(st.sampled_from(PERMS)))}>({a})",
                "Relu": f"{name} = Relu({a})",
                "Add": f"{name} = Add({a}, {b})",
                "Mul": f"{name} = Mul({a}, {b})",
                "Const": f"{name} = Sub(c{number % 3}, {a})",
                "Slice": f"{name} = ReduceMean<axes = [{axis}]>({a})",
                "Sm": f"{name} = Softmax<axis = {axis}>({a})",
            }[kind]
        )
        names.append(name)
    outputs = sorted({names[-1], data.draw(st.sampled_from(names[2:]))})
    given_out = ", ".join(f"float[A{i}, B{i}, C{i}] {name}" for i, name in enumerate(outputs))
    rng = np.random.default_rng(0)
    model = model_of(
        f"g (float[2, 2, 2] x, float[2, 2, 2] z) => ({given_out}) {{ {chr(10).join(lines)} }}",
        weights={
            "c0": rng.standard_normal((2, 2, 2)).astype(np.float32),
            "c1": rng.standard_normal(2).astype(np.float32),
            "c2": rng.standard_normal((2, 1)).astype(np.float32),
        },
    )
    check(engine, model, PASSES)


def test_a_node_that_makes_the_rank_is_not_asked_for_axes_of_it(engine: Engine) -> None:
    model = model_of(
        "g (float[2,4,4,4] x) => (float y) { m = ReduceMean<axes = [0, 2], keepdims = 0>(x)\n"
        " p = Transpose(m)\n q = Add(p, m)\n r = Transpose(q)\n s = Add(r, m)\n"
        " y = ReduceSum<keepdims = 0>(s) }",
        opset=13,
    )
    check(engine, model, PASSES)
