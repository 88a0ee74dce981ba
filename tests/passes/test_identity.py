from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import identity
from tests.passes.harness import check, model_of

PASSES = (identity.PASS,)


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ("t = Identity(a)", 17),
        ("t = Dropout(a)", 17),
        ("t = Dropout<ratio = 0.3>(a)", 7),
        ("t = Cast<to = 1>(a)", 17),
        ("t = Cast<to = 1>(a)", 9),
        ("t = CastLike(a, x)", 17),
        ("t = Concat<axis = 1>(a)", 17),
        ("t = Sum(a)", 17),
        ("t = Max(a)", 17),
        ("t = Min(a, a)", 17),
        ("t = Mean(a)", 9),
        ("t = Split<axis = 1>(a)", 11),
        ("t = Split<axis = 1, num_outputs = 1>(a)", 18),
        ("t = DepthToSpace<blocksize = 1>(a)", 17),
        ("t = SpaceToDepth<blocksize = 1>(a)", 17),
    ],
)
def test_a_node_that_copies_goes(engine: Engine, body: str, opset: int) -> None:
    text = "g (float[1, 4, 2, 2] x) => (float[1, 4, 2, 2] y) { a = Neg(x)\n BODY\n y = Abs(t) }"
    model = model_of(text.replace("BODY", body), opset=opset)
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Abs": 1}


@pytest.mark.parametrize(
    "body",
    [
        "t = Cast<to = 11>(a)\n y = Cast<to = 1>(t)",
        "t = Concat<axis = 1>(a, a)\n y = ReduceMax<axes = [1]>(t)",
        "t = Max(a, x)\n y = Neg(t)",
        "t = Sum(a, a)\n y = Neg(t)",
    ],
)
def test_a_node_that_does_something_stays(engine: Engine, body: str) -> None:
    text = f"g (float[3, 1] x) => (float[3, 1] y) {{ a = Neg(x)\n {body} }}"
    assert not check(engine, model_of(text), PASSES).context.rewrites


def test_dropout_goes_if_its_training_mode_is_false(engine: Engine) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y) { a = Neg(x)\n y = Dropout(a, r, m) }",
        weights={"r": np.float32(0.5), "m": np.array(False)},
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1}


@pytest.mark.parametrize("mode", [True, None])
def test_dropout_stays_if_it_may_train(engine: Engine, mode: bool | None) -> None:
    weights: dict[str, np.ndarray] = {"r": np.array(0.0, np.float32)}
    if mode is not None:
        weights["m"] = np.array(mode)
    inputs = "float[4] x" if mode is not None else "float[4] x, bool m"
    model = model_of(
        f"g ({inputs}) => (float[4] y) {{ a = Neg(x)\n y = Dropout(a, r, m) }}", weights=weights
    )
    assert check(engine, model, PASSES).ops["Dropout"] == 1


def test_dropout_stays_if_its_mask_is_used(engine: Engine) -> None:
    model = model_of("g (float[4] x) => (float[4] y, bool[4] m) { a = Neg(x)\n y, m = Dropout(a) }")
    outcome = check(engine, model, PASSES)
    assert outcome.ops["Dropout"] == 1
    assert outcome.reasons == ["its other outputs are used"]


def test_an_unused_mask_does_not_matter(engine: Engine) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { a = Neg(x)\n y, m = Dropout(a) }")
    assert check(engine, model, PASSES).ops == {"Neg": 1}


def test_an_output_keeps_its_name(engine: Engine) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { a = Neg(x)\n b = Abs(a)\n y = Identity(a) }")
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Abs": 1}


def test_input_to_output_stays_a_node(engine: Engine) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { y = Identity(x) }")
    outcome = check(engine, model, PASSES)
    assert outcome.reasons == ["a graph output would be fed straight by an input or a capture"]


def test_a_weight_may_be_an_output(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[2] v) { y = Add(x, w)\n v = Identity(w) }",
        weights={"w": np.ones(2, np.float32)},
    )
    assert check(engine, model, PASSES).ops == {"Add": 1}


def test_identities_in_a_loop_body_go_where_the_body_still_has_its_outputs(engine: Engine) -> None:
    model = model_of(
        """g (int64 n, float[2] x) => (float[2] y) {
            c = Constant<value = bool {1}>()
            y = Loop(n, c, x) <body = b (int64 i, bool on, float[2] s) => (bool go, float[2] r) {
                go = Identity(on)
                t = Identity(s)
                u = Relu(t)
                r = Identity(u)
            }>
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Constant": 1, "Loop": 1, "Relu": 1, "Identity": 1}


def test_an_identity_that_a_branch_captures_goes(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            a = Identity(x)
            y = If(b) <
                then_branch = t () => (float[2] p) { p = Neg(a) },
                else_branch = e () => (float[2] q) { q = Abs(a) }
            >
        }"""
    )
    assert check(engine, model, PASSES).ops == {"If": 1, "Neg": 1, "Abs": 1}


def test_empty_inputs_of_a_concat_are_dropped(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3] x, float[2, 0] e) => (float[2, 4] y) { y = Concat<axis = -1>(x, e, z, w) }",
        weights={"w": np.ones((2, 1), np.float32), "z": np.ones((2, 0), np.float32)},
    )
    feeds = {"x": np.ones((2, 3), np.float32), "e": np.ones((2, 0), np.float32)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert list(outcome.model.graph.node[0].input) == ["x", "w"]
    assert [tensor.name for tensor in outcome.model.graph.initializer] == ["w"]
