from __future__ import annotations

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import (
    constant_folding,
    constant_nodes,
    dead_code,
    identity,
    static_conditions,
)
from tests.passes.harness import apply, check, model_of

PASSES = (
    constant_nodes.PASS,
    constant_folding.PASS,
    static_conditions.PASS,
    identity.PASS,
    dead_code.PASS,
)
TRUE, FALSE = np.array(True), np.array(False)

CHOICE = """g (float[2] x) => (float[2] y) {
    a = Neg(x)
    b = If(c) <
        then_branch = t () => (float[2] p) { m = Exp(a)  p = Mul(m, w) },
        else_branch = e () => (float[2] q) { m = Abs(a)  q = Add(m, x) }
    >
    y = Relu(b)
}"""


@pytest.mark.parametrize(
    ("condition", "taken"), [(TRUE, {"Exp": 1, "Mul": 1}), (FALSE, {"Abs": 1, "Add": 1})]
)
def test_a_constant_condition_leaves_the_branch_taken(
    engine: Engine, condition: np.ndarray, taken: dict[str, int]
) -> None:
    model = model_of(CHOICE, weights={"c": condition, "w": np.array([2, 3], np.float32)})
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Relu": 1, **taken}


def test_a_condition_of_one_element_in_a_vector_counts(engine: Engine) -> None:
    model = model_of(CHOICE, weights={"c": np.array([True]), "w": np.ones(2, np.float32)})
    assert "If" not in check(engine, model, PASSES).ops


def test_a_computed_condition_stays(engine: Engine) -> None:
    model = model_of(CHOICE.replace("(float[2] x)", "(float[2] x, bool c)", 1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3], np.float32), "w"))
    assert check(engine, model, PASSES).ops["If"] == 1


def test_weights_of_the_branch_move_with_it(engine: Engine) -> None:
    model = model_of(CHOICE, weights={"c": TRUE, "w": np.ones(2, np.float32)})
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    branch.initializer.append(onnx.numpy_helper.from_array(np.array([5, 6], np.float32), "v"))
    branch.node[1].input[1] = "v"
    outcome = check(engine, model, PASSES)
    assert [len(t.dims) for t in outcome.model.graph.initializer] == [1]


def test_equal_names_in_two_branches_stay_apart(engine: Engine) -> None:
    second = CHOICE.replace("y = Relu(b)", "").replace("b = If", "d = If").replace("a = Neg(x)", "")
    inner = second[second.index("d = If") : second.rindex("}")]
    model = model_of(
        CHOICE.replace("y = Relu(b)", inner + "\n y = Add(b, d)"),
        weights={"c": TRUE, "w": np.ones(2, np.float32)},
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Exp": 2, "Mul": 2, "Add": 1}


def test_the_result_of_a_branch_becomes_the_graph_output(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
            y, z = If(c) <
                then_branch = t () => (float[2] p, float[2] q) { p = Exp(x)  q = Neg(p) },
                else_branch = e () => (float[2] r, float[2] s) { r = Abs(x)  s = Neg(x) }
            >
        }""",
        weights={"c": TRUE},
    )
    assert check(engine, model, PASSES).ops == {"Exp": 1, "Neg": 1}


def test_a_captured_tensor_given_out_is_copied(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) { p = Identity(x) },
                else_branch = e () => (float[2] r) { r = Abs(x) }
            >
        }""",
        weights={"c": TRUE},
    )
    assert check(engine, model, PASSES).ops == {"Identity": 1}


def test_one_result_given_out_twice_stays_two_outputs(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
            y, z = If(c) <
                then_branch = t () => (float[2] p, float[2] q) { p = Exp(x)  q = Identity(p) },
                else_branch = e () => (float[2] r, float[2] s) { r = Abs(x)  s = Neg(x) }
            >
        }""",
        weights={"c": TRUE},
    )
    assert check(engine, model, PASSES).ops == {"Exp": 1, "Identity": 1}


def test_nested_conditions_unfold_into_the_main_graph(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) {
                    i = Exp(x)
                    p = If(d) <
                        then_branch = t2 () => (float[2] r) { r = Neg(i) },
                        else_branch = e2 () => (float[2] s) { s = Add(i, x) }
                    >
                },
                else_branch = e () => (float[2] q) { q = Abs(x) }
            >
        }""",
        weights={"c": TRUE, "d": FALSE},
    )
    assert check(engine, model, PASSES).ops == {"Exp": 1, "Add": 1}


def test_branches_that_do_the_same_are_one(engine: Engine) -> None:
    model = model_of(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) { m = Exp(x)  p = Add(m, x) },
                else_branch = e () => (float[2] q) { n = Exp(x)  q = Add(n, x) }
            >
        }"""
    )
    assert check(engine, model, PASSES).ops == {"Exp": 1, "Add": 1}


@pytest.mark.parametrize("other", ["Add(x, n)", "Sub(n, x)", "Add(n, n)"])
def test_branches_that_differ_stay(engine: Engine, other: str) -> None:
    model = model_of(
        f"""g (bool c, float[2] x) => (float[2] y) {{
            y = If(c) <
                then_branch = t () => (float[2] p) {{ m = Exp(x)  p = Add(m, x) }},
                else_branch = e () => (float[2] q) {{ n = Exp(x)  q = {other} }}
            >
        }}"""
    )
    assert check(engine, model, PASSES).ops["If"] == 1


def test_branches_that_draw_random_numbers_are_not_merged(engine: Engine) -> None:
    model = model_of(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) { p = RandomNormalLike(x) },
                else_branch = e () => (float[2] q) { q = RandomNormalLike(x) }
            >
        }"""
    )
    assert apply(engine, model, PASSES).ops["If"] == 1


def loop(trips: int, start: bool, *, goes_on: str = "Identity(go)") -> onnx.ModelProto:
    return model_of(
        f"""g (float[2] x) => (float[2] y, float[k, 2] s) {{
            v = Neg(x)
            y, s = Loop(n, c, v) <
                body = b (int64 i, bool go, float[2] state)
                    => (bool on, float[2] next, float[2] seen) {{
                    on = {goes_on}
                    f = Cast<to = 1>(i)
                    t = Add(state, f)
                    next = Add(t, x)
                    seen = Exp(state)
                }}
            >
        }}""",
        weights={"n": np.array(trips, np.int64), "c": np.array(start), "false": FALSE},
    )


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_a_loop_that_runs_once_becomes_its_body(engine: Engine, opset: int) -> None:
    model = loop(1, True)
    model.opset_import[0].version = opset
    ops = check(engine, model, PASSES).ops
    assert ops == {"Neg": 1, "Add": 2, "Exp": 1, "Unsqueeze": 1}


def test_a_loop_whose_body_says_stop_runs_once(engine: Engine) -> None:
    assert "Loop" not in check(engine, loop(7, True, goes_on="Identity(false)"), PASSES).ops


def test_a_loop_that_runs_twice_stays(engine: Engine) -> None:
    assert check(engine, loop(2, True), PASSES).ops["Loop"] == 1


def test_a_loop_that_never_runs_stays_for_what_it_collects(engine: Engine) -> None:
    outcome = check(engine, loop(0, True), PASSES)
    assert outcome.ops["Loop"] == 1
    assert "it never runs, but what it collects is used" in outcome.reasons


@pytest.mark.parametrize(("trips", "start"), [(0, True), (3, False)])
def test_a_loop_that_never_runs_gives_its_initial_values(
    engine: Engine, trips: int, start: bool
) -> None:
    model = loop(trips, start)
    del model.graph.output[1]
    assert check(engine, model, PASSES).ops == {"Neg": 1}


@pytest.mark.parametrize("condition", [[True, True], [False, False]])
def test_a_where_with_one_answer_gives_its_operand(engine: Engine, condition: list[bool]) -> None:
    model = model_of(
        """g (float[3, 2] x) => (float[3, 2] y) {
            a = Neg(x)  b = Exp(x)  w = Where(c, a, b)  y = Relu(w)
        }""",
        weights={"c": np.array(condition)},
    )
    assert check(engine, model, PASSES).ops == {"Neg" if condition[0] else "Exp": 1, "Relu": 1}


def test_a_where_that_broadcasts_its_operand_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[3, 2] y) { w = Where(c, x, zero)  y = Relu(w) }",
        weights={"c": np.ones((3, 1), bool), "zero": np.float32(0)},
    )
    assert check(engine, model, PASSES).ops == {"Where": 1, "Relu": 1}


def test_a_where_with_two_answers_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) { w = Where(c, x, zero)  y = Relu(w) }",
        weights={"c": np.array([True, False]), "zero": np.float32(0)},
    )
    assert check(engine, model, PASSES).ops["Where"] == 1


def test_without_fuel_nothing_changes(engine: Engine) -> None:
    model = model_of(CHOICE, weights={"c": TRUE, "w": np.ones(2, np.float32)})
    assert check(engine, model, PASSES, limit=0).ops["If"] == 1
