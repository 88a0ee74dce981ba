"""Arithmetic on sizes: folded where they are known, computed once where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ort_optim.engine import Engine
from ort_optim.graph.importing import view
from ort_optim.passes.base import Context
from ort_optim.passes.driver import run_passes
from tests.passes.harness import apply, check, model_of
from tests.passes.sizes import BATCHED, PASSES, check_sizes, i64, target


def test_arithmetic_on_known_sizes_folds_in_one_go(engine: Engine) -> None:
    model = model_of(
        """g (float[4, 6] x) => (float[3, 8] y) {
            s = Shape(x)
            a = Gather(s, zero)
            b = Gather(s, one)
            d = Div(b, two)
            e = Mul(a, two)
            du = Unsqueeze(d, first)
            eu = Unsqueeze(e, first)
            t = Concat<axis = 0>(du, eu)
            y = Reshape(x, t)
        }""",
        weights={"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "first": i64(0)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Reshape": 1}
    assert target(outcome) == [3, 8]


def test_equal_sizes_are_computed_once(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 4] x) => (int64 p, int64[1] q, int64 r) {
            r0 = Relu(x)
            s0 = Shape(x)
            s1 = Shape(r0)
            p0 = Gather(s0, zero)
            r1 = Gather(s1, zero)
            p = Mul(p0, three)
            r = Mul(r1, three)
            q = Slice(s1, first, one)
        }""",
        weights={"zero": np.int64(0), "three": np.int64(3), "first": i64(0), "one": i64(1)},
    )
    outcome = check_sizes(engine, model, [(5, 4), (0, 4)])
    assert outcome.ops == {"Gather": 1, "Shape": 2, "Mul": 2}
    assert "two graph outputs would be one tensor" in outcome.reasons


def test_gathered_sizes_become_one_shape_with_bounds(engine: Engine) -> None:
    model = model_of(
        """g (float[n, m, l] x) => (int64[2] t) {
            s = Shape(x)
            a = Gather(s, one)
            b = Gather(s, two)
            au = Unsqueeze(a, first)
            bu = Unsqueeze(b, first)
            t = Concat<axis = 0>(au, bu)
        }""",
        weights={"one": np.int64(1), "two": np.int64(2), "first": i64(0)},
    )
    outcome = check_sizes(engine, model, [(2, 3, 4), (0, 0, 1)])
    assert outcome.ops == {"Shape": 1}


def test_before_opset_15_gathered_sizes_stay(engine: Engine) -> None:
    model = model_of(
        """g (float[n, m, l] x) => (int64[2] t) {
            s = Shape(x)
            a = Gather(s, one)
            b = Gather(s, two)
            t = Concat<axis = 0>(a, b)
        }""",
        opset=13,
        weights={"one": i64(1), "two": i64(2)},
    )
    assert check_sizes(engine, model, [(2, 3, 4)]).ops == {"Shape": 1, "Gather": 2, "Concat": 1}


def test_sizes_that_float_would_round_are_not_followed_through_float(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 3] x) => (int64[2] t) {
            s = Shape(x)
            f = Cast<to = 1>(s)
            h = Mul(f, half)
            w = Floor(h)
            t = Cast<to = 7>(w)
        }""",
        weights={"half": np.float32(0.5)},
    )
    assert check_sizes(engine, model, [(5, 3)]).ops == {
        "Shape": 1,
        "Cast": 2,
        "Mul": 1,
        "Floor": 1,
    }


def test_known_elements_are_followed_through_float_beside_unknown_ones(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 3, 10, 7] x) => (float[n, 3, 15, 10] y) {
            s = Shape(x)
            f = Cast<to = 1>(s)
            h = Mul(f, scale)
            w = Floor(h)
            c = Cast<to = 7>(w)
            hw = Slice(c, two, four)
            nc = Slice(s, zero, two)
            t = Concat<axis = 0>(nc, hw)
            p = Gather(t, last)
            q = Range(o, p, l)
            r = Cast<to = 1>(q)
            e = Expand(r, hw)
            z = Reshape(e, flat)
            m = ReduceMax<keepdims = 0>(z)
            y0 = Add(x, m)
            y = Pad(y0, pads)
        }""",
        weights={
            "scale": np.float32(1.5),
            "zero": i64(0),
            "two": i64(2),
            "four": i64(4),
            "last": np.int64(3),
            "o": np.int64(0),
            "l": np.int64(1),
            "flat": i64(-1),
            "pads": i64(0, 0, 0, 0, 0, 0, 5, 3),
        },
    )
    assert check_sizes(engine, model, [(2, 3, 10, 7)]).ops == {"Add": 1, "Pad": 1}


def test_sizes_fold_inside_branches(engine: Engine) -> None:
    model = model_of(
        """g (bool c, float[n, 4] x) => (float[a, b] y) {
            y = If(c) <
                then_branch = t () => (float[p, q] u) {
                    s = Shape(x)
                    k = Gather(s, first)
                    w = Concat<axis = 0>(k, two, two)
                    v = Reshape(x, w)
                    u = ReduceSum<keepdims = 0>(v, two)
                },
                else_branch = e () => (float[p, q] o) { o = Relu(x) }
            >
        }""",
        weights={"first": i64(0), "two": i64(2)},
    )
    feeds = {"c": np.array(True), "x": np.ones((3, 4), np.float32)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == {"If": 1, "Reshape": 1, "ReduceSum": 1, "Relu": 1}


def test_a_value_of_one_branch_is_not_used_in_the_other(engine: Engine) -> None:
    branch = """ () => (int64[1] {out}) {{
        s{out} = Shape(x)  k{out} = Slice(s{out}, first, one)  {out} = Mul(k{out}, two) }}"""
    model = model_of(
        f"""g (bool c, float[n, 4] x) => (int64[1] y) {{
            y = If(c) < then_branch = t {branch.format(out="p")},
                        else_branch = e {branch.format(out="q")} >
        }}""",
        weights={"first": i64(0), "one": i64(1), "two": i64(2)},
    )
    for chosen in (True, False):
        feeds = {"c": np.array(chosen), "x": np.ones((3, 4), np.float32)}
        assert check(engine, model, PASSES, feeds=feeds).ops["Mul"] == 2


def test_a_fixed_point_is_reached_through_reshapes_that_onnx_cannot_follow(
    engine: Engine,
) -> None:
    model = model_of(
        """g (float[n, l, 8] x) => (float[a, b, c] y) {
            s = Shape(x)
            n = Gather(s, i0)
            l = Gather(s, i1)
            h = Concat<axis = 0>(n, l, two, four)
            r = Reshape(x, h)
            p = Transpose<perm = [0, 2, 1, 3]>(r)
            q = Transpose<perm = [0, 2, 1, 3]>(p)
            t = Shape(q)
            tn = Gather(t, i0)
            tl = Gather(t, i1)
            w = Concat<axis = 0>(tn, tl, eight)
            y = Reshape(q, w)
        }""",
        weights={"i0": i64(0), "i1": i64(1), "two": i64(2), "four": i64(4), "eight": i64(8)},
    )
    outcome = check_sizes(engine, model, [(2, 3, 8), (0, 3, 8)])
    assert outcome.ops == {"Reshape": 2, "Transpose": 2}


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_attributes_and_inputs_of_all_opsets_are_understood(engine: Engine, opset: int) -> None:
    axes = ", first" if opset >= 13 else ""
    attribute = "" if opset >= 13 else "<axes = [0]>"
    cut = "Slice(s, zero, one)" if opset >= 10 else "Slice<starts = [0], ends = [1]>(s)"
    model = model_of(
        f"""g (float[n, 6] x) => (float[a, b, c] y) {{
            s = Shape(x)
            c = {cut}
            q = Squeeze{attribute}(c{axes})
            u = Unsqueeze{attribute}(q{axes})
            t = Concat<axis = 0>(u, rest)
            y = Reshape(x, t)
        }}""",
        opset=opset,
        weights={"first": i64(0), "zero": i64(0), "one": i64(1), "rest": i64(2, 3)},
    )
    assert check_sizes(engine, model, [(5, 6), (0, 6)]).ops == {"Reshape": 1}


def test_a_denied_rewrite_is_left_with_its_chain(engine: Engine) -> None:
    model = model_of(
        """g (float[4, 6] x) => (int64[1] y) {
            s = Shape(x)
            a = Gather(s, zero)
            y = Add(a, k)
        }""",
        weights={"zero": i64(0), "k": i64(1)},
    )
    denied = frozenset({("shape-folding", "y"), ("constant-folding", "y")})
    assert check(engine, model, PASSES, denied=denied).ops == {"Add": 1}


def test_without_fuel_nothing_changes(engine: Engine) -> None:
    weights = {"zero": np.int64(0), "first": i64(0), "rest": i64(3, 8)}
    outcome = apply(engine, model_of(BATCHED, weights=weights), PASSES, limit=0)
    assert outcome.ops == {"Shape": 1, "Gather": 1, "Unsqueeze": 1, "Concat": 1, "Reshape": 1}


BINARY = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")


@st.composite
def arithmetic(draw: st.DrawFn) -> onnx.ModelProto:
    """A model of shape arithmetic on x: [n, m, 3], all intermediate vectors of 3 elements."""
    nodes = [helper.make_node("Shape", ["x"], ["v0"])]
    weights = []
    for number in range(1, draw(st.integers(2, 7))):
        left = f"v{draw(st.integers(0, number - 1))}"
        kind = draw(st.sampled_from([*BINARY, "Where", "Gather", "Slice", "Neg", "Abs"]))
        made, name = f"v{number}", f"c{number}"
        if kind in BINARY:
            positive = kind in ("Div", "Mod")
            constant = draw(st.lists(st.integers(1 if positive else -3, 4), min_size=3, max_size=3))
            other = f"v{draw(st.integers(0, number - 1))}"
            use_other = draw(st.booleans()) and not positive
            weights.append(onnx.numpy_helper.from_array(i64(*constant), name))
            nodes.append(helper.make_node(kind, [left, other if use_other else name], [made]))
        elif kind == "Where":
            weights.append(onnx.numpy_helper.from_array(i64(draw(st.integers(-1, 4))), name))
            test = draw(st.sampled_from(["Equal", "Greater", "Less"]))
            nodes.append(helper.make_node(test, [left, name], [f"b{number}"]))
            other = f"v{draw(st.integers(0, number - 1))}"
            nodes.append(helper.make_node("Where", [f"b{number}", left, other], [made]))
        elif kind == "Gather":
            order = draw(st.lists(st.integers(-3, 2), min_size=3, max_size=3))
            weights.append(onnx.numpy_helper.from_array(i64(*order), name))
            nodes.append(helper.make_node("Gather", [left, name], [made]))
        elif kind == "Slice":
            weights.append(onnx.numpy_helper.from_array(i64(-1), name))
            weights.append(onnx.numpy_helper.from_array(i64(-9), f"e{number}"))
            weights.append(onnx.numpy_helper.from_array(i64(0), f"a{number}"))
            bounds = [name, f"e{number}", f"a{number}", name]
            nodes.append(helper.make_node("Slice", [left, *bounds], [made]))
        else:
            nodes.append(helper.make_node(kind, [left], [made]))
    last = f"v{number}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m", 3])],
        [helper.make_tensor_value_info(last, TensorProto.INT64, [3])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(arithmetic(), st.integers(0, 5), st.integers(0, 5))
def test_random_arithmetic_keeps_its_result_for_any_size(
    engine: Engine, model: onnx.ModelProto, n: int, m: int
) -> None:
    check(engine, model, PASSES, feeds={"x": np.zeros((n, m, 3), np.float32)})


MASKED = """g (float[n, m, n] x) => (float[a] y) {
    s = Shape(x)
    n = Slice(s, zero, one)
    cut = Slice(mask, zero, n, zero)
    z = Where(cut, x, low)
    zs = Shape(z)
    k = Slice(zs, two, three)
    km = Slice(zs, zero, two)
    t = Concat<axis = 0>(km, k)
    p = Reshape(z, t)
    cs = Shape(cut)
    c = Gather(cs, first)
    cn = Sub(c, n)
    cl = Concat<axis = 0>(cn, last)
    q = Pad(flat, cl)
    f = Reshape(p, minus)
    y = Concat<axis = 0>(f, q)
}"""


def masked(rows: int) -> onnx.ModelProto:
    return model_of(
        MASKED,
        weights={
            **{name: i64(value) for value, name in enumerate(["zero", "one", "two", "three"])},
            "first": i64(0),
            "last": i64(0),
            "minus": i64(-1),
            "mask": np.arange(rows) % 2 == 0,
            "low": np.float32(-1e4),
            "flat": np.zeros(1, np.float32),
        },
    )


def test_a_cut_mask_that_meets_its_size_is_as_long_as_that(engine: Engine) -> None:
    outcome = check_sizes(engine, masked(8), [(4, 3, 4), (1, 2, 1), (8, 1, 8)])
    assert "Sub" not in outcome.ops


def test_a_cut_mask_of_one_row_tells_nothing_of_the_size(engine: Engine) -> None:
    outcome = check_sizes(engine, masked(1), [(1, 3, 1)])
    assert outcome.ops["Sub"] == 1


def test_a_shape_that_the_file_declares_for_an_output_is_not_believed(engine: Engine) -> None:
    model = model_of(
        """g (float[n, 4] x) => (float[1, 4] y, int64[2] s) { y = Relu(x)  s = Shape(y) }"""
    )
    root = view(model, Path())
    run_passes(root, Context(engine), PASSES)
    assert [node.op for node in root.nodes] == ["Relu", "Shape"]
