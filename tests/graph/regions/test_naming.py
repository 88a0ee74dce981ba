from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ort_optim.graph.regions import Formal, Tiling, wrap
from ort_optim.graph.regions.naming import UnfitError, body_name, operator_sets, unfit
from ort_optim.graph.regions.region import EMBEDDED_BYTES
from tests.graph.regions.harness import grouped, wrapped
from tests.passes.harness import model_of


def model() -> ModelProto:
    return model_of(
        """g (float[1,8,6,6] x) => (float[1,8,6,6] y) {
            a = Conv<pads=[1,1,1,1], strides=[1,1]>(x, w, b)
            c = Clip(a, , high)
            d = LeakyRelu<alpha=0.1>(c)
            y = Add(d, x)
        }""",
        weights={
            "w": np.ones((8, 8, 3, 3), np.float32),
            "b": np.ones(8, np.float32),
            "high": np.array(6, np.float32),
        },
    )


def name_of(made: ModelProto) -> str:
    (function,) = wrapped(made).functions
    return function.name


def replace_initializer(made: ModelProto, index: int, value: np.ndarray) -> None:
    tensor = made.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def attribute(made: ModelProto, node: int, name: str) -> onnx.AttributeProto:
    return next(a for a in made.graph.node[node].attribute if a.name == name)


def test_the_name_is_fixed_for_good() -> None:
    assert name_of(model()) == NAME  # files carry it: a change makes them strangers


NAME = "R_adbd89045734ceb4dbd17425af36592d"


def rename_everything(made: ModelProto) -> None:
    for node in made.graph.node:
        node.name = f"other_{node.name}"
        for field in (node.input, node.output):
            field[:] = [f"{name}_" if name else "" for name in field]
    for each in (*made.graph.input, *made.graph.output, *made.graph.initializer):
        each.name += "_"


def turn_attributes_round(made: ModelProto) -> None:
    given = list(made.graph.node[0].attribute)[::-1]
    del made.graph.node[0].attribute[:]
    made.graph.node[0].attribute.extend(given)


def say_where(made: ModelProto) -> None:
    made.graph.node[0].doc_string = "here"
    made.graph.node[0].metadata_props.add(key="k", value="v")


def store_plainly(made: ModelProto) -> None:
    tensor = made.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.float_data.append(6.0)


def name_the_domain(made: ModelProto) -> None:
    made.graph.node[0].domain = "ai.onnx"


def resize(made: ModelProto) -> None:
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[2].dim_value = 60


SAME: dict[str, Callable[[ModelProto], object]] = {
    "names": rename_everything,
    "the order of attributes": turn_attributes_round,
    "doc strings and metadata": say_where,
    "weights": lambda m: replace_initializer(m, 0, np.zeros((8, 8, 3, 3), np.float32)),
    "sizes": resize,
    "how constants are stored": store_plainly,
    "the name of ONNX's domain": name_the_domain,
    "domains that no node is of": lambda m: m.opset_import.add(domain="other", version=3),
}


@pytest.mark.parametrize("what", SAME)
def test_the_name_does_not_depend_on(what: str) -> None:
    made = model()
    SAME[what](made)
    assert name_of(made) == name_of(model())


def change_types(made: ModelProto) -> None:
    for tensor in made.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        )
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def make_weight_variable(made: ModelProto) -> None:
    info = helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 8, 3, 3])
    made.graph.input.append(info)


def leave_bias_out(made: ModelProto) -> None:
    made.graph.node[0].input[2] = ""


def swap_operands(made: ModelProto) -> None:
    made.graph.node[3].input[:] = ["x", "d"]


def read_another(made: ModelProto) -> None:
    made.graph.node[3].input[1] = "c"


def read_inside(made: ModelProto) -> None:
    made.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 8, 6, 6]))


def make_ints(made: ModelProto) -> None:
    found = attribute(made, 2, "alpha")
    found.CopyFrom(helper.make_attribute("alpha", [0.1]))


OTHER: dict[str, Callable[[ModelProto], object]] = {
    "a constant": lambda m: replace_initializer(m, 2, np.array(7, np.float32)),
    "the shape of a constant": lambda m: replace_initializer(m, 2, np.array([6], np.float32)),
    "shapes of weights": lambda m: replace_initializer(m, 0, np.zeros((8, 8, 5, 5), np.float32)),
    "an attribute": lambda m: setattr(attribute(m, 2, "alpha"), "f", 0.2),
    "a list": lambda m: attribute(m, 0, "pads").ints.append(1),
    "the type of an attribute": make_ints,
    "an attribute more": lambda m: m.graph.node[0].attribute.append(
        helper.make_attribute("group", 1)
    ),
    "an operator": lambda m: setattr(m.graph.node[3], "op_type", "Mul"),
    "the operator set": lambda m: setattr(m.opset_import[0], "version", 16),
    "element types": change_types,
    "whether a weight is constant": make_weight_variable,
    "an optional input": leave_bias_out,
    "the order of operands": swap_operands,
    "the wiring": read_another,
    "the outputs": read_inside,
}


@pytest.mark.parametrize("what", OTHER)
def test_the_name_depends_on(what: str) -> None:
    made = model()
    OTHER[what](made)
    assert name_of(made) != name_of(model())


def tiled_name(template: str, tile: str, layout: str, target: str) -> str:
    made = model()
    (region,) = grouped(made).regions
    (function,) = wrap(made, [region], [Tiling((template,), (tile,), layout, target)]).functions
    return function.name


def test_the_name_depends_on_the_tiling_but_not_on_the_machine_it_is_from() -> None:
    name = tiled_name("direct", "t=1", "nchw8c", "here")
    assert tiled_name("direct", "t=1", "nchw8c", "there") == name
    others = {
        tiled_name("winograd_f43", "t=1", "nchw8c", "here"),
        tiled_name("direct", "t=2", "nchw8c", "here"),
        tiled_name("direct", "t=1", "nchw16c", "here"),
    }
    assert len(others | {name}) == 4


def test_bytes_of_text_can_not_pass_for_structure() -> None:
    inputs = [Formal("x", False, 1)]

    def name(values: list[str]) -> str:
        node = helper.make_node("Op", ["x"], ["y"], s=values)
        return body_name([node], inputs, ["y"], {"": 17})

    assert len({name(["ab"]), name(["a", "b"]), name(["", "ab"]), name(["b1:a"])}) == 4


UNFIT = {
    "a subgraph": helper.make_node("Op", [], ["y"], body=helper.make_graph([], "g", [], [])),
    "a type": helper.make_node("Op", [], ["y"], t=helper.make_tensor_type_proto(1, [1])),
    "a large constant": helper.make_node(
        "Constant",
        [],
        ["y"],
        value=numpy_helper.from_array(np.zeros((EMBEDDED_BYTES // 4) + 1, np.float32)),
    ),
    "external data": helper.make_node(
        "Constant",
        [],
        ["y"],
        value=TensorProto(data_type=1, dims=[1], data_location=TensorProto.EXTERNAL),
    ),
    "too little data": helper.make_node(
        "Constant", [], ["y"], value=TensorProto(data_type=1, dims=[2], float_data=[1.0])
    ),
    "too little raw data": helper.make_node(
        "Constant", [], ["y"], value=TensorProto(data_type=1, dims=[2], raw_data=b"1234")
    ),
    "a negative size": helper.make_node(
        "Constant", [], ["y"], value=TensorProto(data_type=1, dims=[-1])
    ),
    "a huge size": helper.make_node(
        "Constant", [], ["y"], value=TensorProto(data_type=1, dims=[2**62, 2**62])
    ),
    "an unknown element type": helper.make_node(
        "Constant", [], ["y"], value=TensorProto(data_type=12345, dims=[1])
    ),
    "text": helper.make_node(
        "Constant", [], ["y"], value=numpy_helper.from_array(np.array(["a"], object))
    ),
    "an overload": helper.make_node("Op", [], ["y"], overload="two"),
    "no operator": helper.make_node("", [], ["y"]),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_no_region_holds_is_said_before_and_while_naming(what: str) -> None:
    reason = unfit(UNFIT[what])
    assert reason
    with pytest.raises(UnfitError, match=re.escape(reason)):
        body_name([UNFIT[what]], [], ["y"], {"": 17})


def test_a_reference_and_a_repeated_attribute_are_unfit() -> None:
    node = helper.make_node("Op", [], ["y"], a=1)
    node.attribute.append(node.attribute[0])
    assert "twice" in str(unfit(node))
    del node.attribute[1]
    node.attribute[0].ref_attr_name = "tile"
    assert "refers" in str(unfit(node))


def test_a_domain_of_two_versions_is_of_none() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("a", 1)]
    assert operator_sets(imports) == {"": 17, "a": 1}
    assert operator_sets([*imports, helper.make_opsetid("ai.onnx", 17)]) == {"": 17, "a": 1}
    assert operator_sets([*imports, helper.make_opsetid("ai.onnx", 18)]) == {"a": 1}
    assert operator_sets([helper.make_opsetid("", 17), *[helper.make_opsetid("", 18)] * 2]) == {}
