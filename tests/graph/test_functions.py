from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from ort_optim.engine import Engine
from ort_optim.graph.functions import inline_functions

HEADER = '<ir_version: 10, opset_import: ["": 17, "my": 1, "ort_optim": 1]>\n'

MODEL = (
    HEADER
    + """g (float[2, 3] x) => (float[2, 3] y) {
  [first] a = my.Scale <factor = 2.0> (x)
  [second] b = my.Scale (a)
  [third] y = ort_optim.R_1 (b)
}
<domain: "my", opset_import: ["": 17]>
Scale <factor: float = 3.0> (p) => (r) {
  c = Constant <value_float: float = @factor> ()
  [inner] r = Mul (p, c)
}
<domain: "ort_optim", opset_import: ["": 17, "my": 1]>
R_1 (p) => (r) {
  t = my.Scale <factor = 0.5> (p)
  r = Softmax (t)
}
"""
)


def run(engine: Engine, model: ModelProto) -> dict[str, np.ndarray]:
    handle = engine.open(model)
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) / 4}
    try:
        return engine.run(handle, feeds)
    finally:
        engine.close(handle)


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


def assert_same_outputs(engine: Engine, model: ModelProto) -> ModelProto:
    inlined = inline_functions(model)
    assert not inlined.functions
    onnx.checker.check_model(inlined, full_check=True)
    before, after = run(engine, model), run(engine, inlined)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    return inlined


def test_calls_nested_ones_and_default_attributes_are_inlined_as_ort_does(engine: Engine) -> None:
    inlined = assert_same_outputs(engine, parser.parse_model(MODEL))
    assert ops(inlined) == ["Mul", "Mul", "Mul", "Softmax"]


def test_only_the_functions_of_the_chosen_domain_go(engine: Engine) -> None:
    model = parser.parse_model(MODEL)
    inlined = inline_functions(model, {"ort_optim"})
    assert [f.name for f in inlined.functions] == ["Scale"]
    assert ops(inlined) == ["Scale", "Scale", "Scale", "Softmax"]
    np.testing.assert_array_equal(run(engine, inlined)["y"], run(engine, model)["y"])


def test_a_model_without_such_functions_comes_back_itself() -> None:
    model = parser.parse_model(MODEL)
    assert inline_functions(model, {"other"}) is model
    plain = helper.make_model(model.graph)
    assert inline_functions(plain) is plain


def test_the_model_that_was_given_is_not_changed() -> None:
    model = parser.parse_model(MODEL)
    before = model.SerializeToString(deterministic=True)
    inline_functions(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_function_of_another_operator_set_runs_with_the_models_as_in_ort(
    engine: Engine,
) -> None:
    # Softmax-11 over axis 0 flattens to one row, Softmax-13 takes each column for itself.
    model = parser.parse_model(
        HEADER
        + """g (float[2, 3] x) => (float[2, 3] y) { y = my.F (x) }
        <domain: "my", opset_import: ["": 11]>
        F (p) => (r) { r = Softmax <axis = 0> (p) }"""
    )
    inlined = inline_functions(model)
    assert not inlined.functions
    columns = run(engine, inlined)["y"].sum(axis=0)
    np.testing.assert_array_equal(run(engine, inlined)["y"], run(engine, model)["y"])
    np.testing.assert_allclose(columns, np.ones(3), rtol=1e-6)


def test_overloads_and_calls_in_branches_are_told_apart(engine: Engine) -> None:
    model = parser.parse_model(
        HEADER
        + """g (float[2, 3] x) => (float[2, 3] y) {
            c = Constant <value = bool {1}> ()
            a = my.F:one (x)
            y = If (c) <
                then_branch = t () => (float[2, 3] p) { p = my.F (a) },
                else_branch = e () => (float[2, 3] q) { q = my.F:one (a) }
            >
        }
        <domain: "my", overload: "one", opset_import: ["": 17]>
        F (p) => (r) { t = Exp (p)  r = Add (t, p) }
        <domain: "my", opset_import: ["": 17]>
        F (p) => (r) { t = Abs (p)  r = Mul (t, p) }"""
    )
    assert ops(assert_same_outputs(engine, model)) == ["Exp", "Add", "If"]


def test_a_domain_that_only_the_function_imports_is_imported() -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 17, "my": 1]>'
        """g (float[2, 3] x) => (float[2, 3] y) { y = my.F (x) }
        <domain: "my", opset_import: ["": 17, "com.microsoft": 1]>
        F (p) => (r) { r = com.microsoft.Gelu (p) }"""
    )
    inlined = inline_functions(model)
    assert {entry.domain for entry in inlined.opset_import} == {"", "com.microsoft"}


def test_names_doc_strings_and_metadata_survive() -> None:
    model = parser.parse_model(MODEL)
    model.doc_string = "of the model"
    model.graph.doc_string = "of the graph"
    model.metadata_props.add(key="author", value="somebody")
    model.graph.metadata_props.add(key="source", value="here")
    model.functions[0].node[1].metadata_props.add(key="layer", value="7")
    model.functions[0].node[1].doc_string = "of the node"
    inlined = inline_functions(model)
    assert inlined.doc_string == "of the model"
    assert inlined.graph.doc_string == "of the graph"
    assert inlined.metadata_props[0].value == "somebody"
    assert inlined.graph.metadata_props[0].value == "here"
    products = [node for node in inlined.graph.node if node.op_type == "Mul"]
    assert all(node.metadata_props[0].value == "7" for node in products)
    assert all(node.doc_string == "of the node" for node in products)
    assert all(node.name.startswith("inner") for node in products)
    assert len({node.name for node in products}) == len(products)


@pytest.mark.parametrize("external", [True, False])
def test_large_weights_do_not_travel_through_the_inliner(
    external: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parser.parse_model(MODEL)
    weight = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1 << 10, 3])
    if external:
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="w.bin")
    else:
        weight.raw_data = bytes(12 << 10)
    sizes: list[int] = []
    original = onnx.inliner.inline_selected_functions

    def measured(bare: ModelProto, *arguments: object) -> ModelProto:
        sizes.append(bare.ByteSize())
        return original(bare, *arguments)

    monkeypatch.setattr(onnx.inliner, "inline_selected_functions", measured)
    inlined = inline_functions(model)
    assert sizes
    assert sizes[0] < 4096
    assert inlined.graph.initializer[0] == weight


def test_recursive_functions_are_left_for_ort_to_refuse() -> None:
    model = parser.parse_model(
        HEADER
        + """g (float[2] x) => (float[2] y) { y = my.Outer (x) }
        <domain: "my", opset_import: ["": 17, "my": 1]> Outer (p) => (r) { r = my.Inner (p) }
        <domain: "my", opset_import: ["": 17, "my": 1]> Inner (p) => (r) { r = my.Outer (p) }"""
    )
    assert inline_functions(model) is model
