from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim.engine import Engine
from ort_optim.passes import constant_nodes
from tests.passes.harness import check, model_of

PASSES = (constant_nodes.PASS,)


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        ("value_float = 2.5", np.float32(2.5)),
        ("value_floats = [1.5, 2.5]", np.array([1.5, 2.5], np.float32)),
        ("value = float[2] {3.0, 4.0}", np.array([3, 4], np.float32)),
    ],
)
def test_every_form_of_float_constant_becomes_an_initializer(
    engine: Engine, attribute: str, wanted: np.ndarray
) -> None:
    model = model_of(
        f"g (float[3, 2] x) => (float[3, 2] y) {{ c = Constant<{attribute}>()\n y = Add(x, c) }}"
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Add": 1}
    [initializer] = outcome.model.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(initializer), wanted)


@pytest.mark.parametrize(
    ("attribute", "shape"), [("value_int = 3", []), ("value_ints = [3, 2, 1]", [3])]
)
def test_integer_constants_become_int64(engine: Engine, attribute: str, shape: list[int]) -> None:
    model = model_of(
        f"g (int64[2, 3] x) => (int64[2, 3] y) {{ c = Constant<{attribute}>()\n y = Add(x, c) }}"
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Add": 1}
    assert list(outcome.model.graph.initializer[0].dims) == shape


@pytest.mark.parametrize("attribute", ['value_string = "a"', 'value_strings = ["a", "b"]'])
def test_strings_become_string_initializers(engine: Engine, attribute: str) -> None:
    rank = "[2]" if "strings" in attribute else ""
    model = model_of(
        f"g (int64[1] x) => (int64[1] y, string{rank} s) "
        f"{{ y = Neg(x)\n c = Constant<{attribute}>()\n s = Identity(c) }}"
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Identity": 1}


def _with_sparse(size: int) -> onnx.ModelProto:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([5.0], np.float32), "v"),
        numpy_helper.from_array(np.array([1], np.int64), "i"),
        [size],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], sparse_value=sparse),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_sparse_value_becomes_dense(engine: Engine) -> None:
    outcome = check(engine, _with_sparse(4), PASSES)
    values = numpy_helper.to_array(outcome.model.graph.initializer[0])
    np.testing.assert_array_equal(values, [0, 5, 0, 0])


def test_a_large_sparse_value_stays_sparse(engine: Engine) -> None:
    outcome = check(engine, _with_sparse(100), PASSES, max_growth_bytes=399)
    assert outcome.ops["Constant"] == 1
    assert outcome.reasons == ["its sparse value would be too large as a dense one"]


def test_an_output_of_the_model_becomes_an_initializer_of_that_name(engine: Engine) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[1] c) "
        "{ c = Constant<value_floats = [1.5]>()\n y = Add(x, c) }"
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Add": 1}
    assert [tensor.name for tensor in outcome.model.graph.initializer] == ["c"]


def test_in_a_branch_only_what_is_no_output_of_it_changes(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            y = If(b) <
                then_branch = t () => (float[2] p) {
                    c = Constant<value_floats = [1.5, 2.5]>()
                    p = Add(x, c)
                },
                else_branch = e () => (float[2] q) {
                    q = Constant<value_floats = [0.5, 2.5]>()
                }
            >
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"If": 1, "Add": 1, "Constant": 1}
    assert outcome.reasons == ["a subgraph's output would be an initializer"]


def test_a_constant_that_a_branch_captures_becomes_an_outer_initializer(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2] x) => (float[2] y) {
            c = Constant<value_floats = [1.5, 2.5]>()
            y = If(b) <
                then_branch = t () => (float[2] p) { p = Add(x, c) },
                else_branch = e () => (float[2] q) { q = Sub(x, c) }
            >
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"If": 1, "Add": 1, "Sub": 1}
    assert [tensor.name for tensor in outcome.model.graph.initializer] == ["c"]
