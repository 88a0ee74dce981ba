"""The smallest part that fails: found, valid at every step, the same each time, within budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from ort_optim.engine import Engine, ModelSource, make_source
from ort_optim.verify.compare import Tolerance
from ort_optim.verify.extract import Extractor, Recorder, is_valid
from ort_optim.verify.reduce import (
    Budget,
    Judge,
    breaks,
    differs,
    raises,
    reduce_model,
)
from tests.passes.harness import model_of

LENGTH = 24


def chain(length: int = LENGTH, **ops: str) -> ModelProto:
    """x -> v1 -> v2 ... -> y, all Neg but for those given as v3="Exp"."""
    lines = [f"v{i + 1} = {ops.get(f'v{i + 1}', 'Neg')}(v{i})" for i in range(length)]
    text = "\n".join(lines).replace("(v0)", "(x)").replace(f"v{length} =", "y =")
    return model_of(f"g (float[4] x) => (float[4] y) {{ {text} }}")


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def has(*wanted: str) -> Callable[[ModelProto], bool]:
    return lambda model: set(wanted) <= set(ops(model))


def test_one_node_at_fault_is_all_that_is_left() -> None:
    found = reduce_model(chain(v7="Exp"), has("Exp"))
    assert ops(found.model) == ["Exp"]
    assert [value.name for value in found.model.graph.input] == ["v6"]
    assert [value.name for value in found.model.graph.output] == ["v7"]
    assert found.is_smallest
    onnx.checker.check_model(found.model, full_check=True)


def test_two_nodes_far_apart_are_both_kept() -> None:
    found = reduce_model(chain(v2="Exp", v21="Sin"), has("Exp", "Sin"))
    assert sorted(ops(found.model)) == ["Exp", "Sin"]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 15), min_size=1, max_size=4))
def test_whatever_set_of_nodes_fails_is_found_exactly(places: set[int]) -> None:
    wanted = {f"v{i}" for i in places}

    def fails(model: ModelProto) -> bool:
        assert is_valid(model)
        return wanted <= {name for node in model.graph.node for name in node.output}

    found = reduce_model(chain(16), fails)
    assert {node.output[0] for node in found.model.graph.node} == wanted


def test_only_the_weights_that_are_read_stay() -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y) { a = Add(x, u)\n b = Mul(a, w)\n y = Sub(b, u) }",
        weights={"u": np.ones(2, np.float32), "w": np.ones(2, np.float32)},
    )
    found = reduce_model(model, has("Mul"))
    assert [tensor.name for tensor in found.model.graph.initializer] == ["w"]


def test_an_output_inside_the_graph_stays_only_if_it_matters() -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[2] a) { a = Neg(x)\n b = Exp(a)\n y = Sin(b) }"
    )
    assert len(reduce_model(model, has("Exp")).model.graph.output) == 1

    def fails(part: ModelProto) -> bool:
        return "a" in {v.name for v in part.graph.output} and "Exp" in ops(part)

    found = reduce_model(model, fails).model
    assert ops(found) == ["Neg", "Exp"]
    assert {value.name for value in found.graph.output} == {"a", "b"}


def test_subgraphs_go_with_their_node_and_what_they_capture_becomes_an_input() -> None:
    model = model_of(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x)\n"
        "b = If (c) <then_branch = t () => (float[2] p) { p = Exp(a) },"
        " else_branch = e () => (float[2] q) { q = Sin(a) }>\n y = Neg(b) }"
    )
    found = reduce_model(model, has("If")).model
    assert ops(found) == ["If"]
    assert [value.name for value in found.graph.input] == ["c", "a"]


def test_a_computed_shape_becomes_a_constant_where_the_failure_needs_one(engine: Engine) -> None:
    model = model_of(
        "g (float[2,6] x) => (float[3,4] y) { s = Abs(k)\n r = Reshape(x, s)\n y = Neg(r) }",
        weights={"k": np.array([3, 4])},
    )
    recorder = Recorder(
        engine, model, make_source(model, Path(), Path()), {"x": np.ones((2, 6), np.float32)}
    )

    def fails(part: ModelProto) -> bool:
        known = {tensor.name for tensor in part.graph.initializer}
        made = {name for node in part.graph.node for name in node.output}
        return "Reshape" in ops(part) and "s" in known | made

    found = reduce_model(model, fails, recorder=recorder).model
    assert ops(found) == ["Reshape"]
    (shape,) = found.graph.initializer
    assert onnx.numpy_helper.to_array(shape).tolist() == [3, 4]


def test_the_same_question_gets_the_same_answer() -> None:
    fails = has("Exp", "Sin")
    first, second = (reduce_model(chain(v3="Exp", v20="Sin"), fails) for _ in range(2))
    assert first == second


def test_the_budget_ends_it_with_what_there_is() -> None:
    calls: list[int] = []

    def fails(model: ModelProto) -> bool:
        calls.append(1)
        return "Exp" in ops(model)

    found = reduce_model(chain(v7="Exp"), fails, budget=Budget(trials=4))
    assert not found.is_smallest
    assert found.trials == len(calls) == 4
    assert "Exp" in ops(found.model)
    assert len(ops(found.model)) < LENGTH
    late = reduce_model(chain(v7="Exp"), has("Exp"), budget=Budget(seconds=0.0))
    assert len(ops(late.model)) == LENGTH


def test_of_a_model_that_does_not_fail_nothing_is_found() -> None:
    assert reduce_model(chain(), has("Exp")) is None


def test_large_weights_are_no_obstacle_to_the_checker() -> None:
    model = model_of(
        "g (float[4000] x) => (float[4000] y) { a = Add(x, w)\n y = Exp(a) }",
        weights={"w": np.ones(4000, np.float32)},
    )
    assert is_valid(model)
    model.graph.node[0].input[1] = "nobody"
    assert not is_valid(model)


def test_a_cut_through_a_tensor_of_unknown_type_is_not_made() -> None:
    model = model_of("g (float[2] x) => (float[2] y) { a = Strange(x)\n b = Neg(a)\n y = Exp(b) }")
    model.graph.node[0].domain = "org.example"
    model.opset_import.add(domain="org.example", version=1)
    assert Extractor(model).extract([2]) is None
    assert Extractor(model).extract([0, 1, 2]) is not None


# Predicates: a rewrite that goes wrong at Exp, on a model where that is one node of many.


def wrong(model: ModelProto) -> ModelProto:
    result = ModelProto.FromString(model.SerializeToString())
    for node in result.graph.node:
        node.op_type = "Cos" if node.op_type == "Exp" else node.op_type
    return result


def unknown(model: ModelProto) -> ModelProto:
    result = ModelProto.FromString(model.SerializeToString())
    for node in result.graph.node:
        node.op_type = "NoSuchOp" if node.op_type == "Exp" else node.op_type
    return result


def failing(model: ModelProto) -> ModelProto:
    if "Exp" in ops(model):
        raise KeyError("Exp")
    return model


@pytest.fixture
def judge(engine: Engine) -> Callable[..., Judge]:
    def make(model: ModelProto, rewrite: Callable[[ModelProto], ModelProto]) -> Judge:
        feeds = {"x": np.linspace(-1, 1, 4, dtype=np.float32)}
        recorder = Recorder(engine, model, make_source(model, Path(), Path()), feeds)

        def source(each: ModelProto) -> ModelSource:
            return make_source(each, Path(), Path())

        return Judge(
            engine, lambda each: (source(rewrite(each)),) * 2, recorder, source, Tolerance()
        )

    return make


def test_outputs_that_differ(judge: Callable[..., Judge]) -> None:
    model = chain(12, v7="Exp")
    found = reduce_model(model, differs(judge(model, wrong)))
    assert ops(found.model) == ["Exp"]
    assert not breaks(judge(model, wrong))(model)


def test_a_model_that_onnx_runtime_refuses(judge: Callable[..., Judge]) -> None:
    model = chain(12, v7="Exp")
    found = reduce_model(model, breaks(judge(model, unknown)))
    assert ops(found.model) == ["Exp"]
    assert not differs(judge(model, unknown))(model)


def test_a_rewrite_that_raises(judge: Callable[..., Judge]) -> None:
    model = chain(12, v7="Exp")
    assert ops(reduce_model(model, raises(failing)).model) == ["Exp"]
    assert not raises(failing, ZeroDivisionError)(model)
    assert not differs(judge(model, failing))(model)
