from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper

from ort_optim.engine import Engine, EngineError
from ort_optim.graph.regions import calls, sound_calls, verify_name
from tests.graph.regions.harness import forged, ops, tiling, wrapped
from tests.passes.harness import model_of


def plain() -> ModelProto:
    return model_of(
        """g (float[1,8,6,6] x, bool q) => (float[1,8,6,6] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)
            c = Clip(a, , high)
            e = Exp(c)
            f = Conv<pads=[1,1,1,1]>(e, w)
            y = Relu(f)
        }""",
        weights={"w": np.ones((8, 8, 3, 3), np.float32), "high": np.array(6, np.float32)},
    )


def model() -> ModelProto:
    """Two calls, Conv Clip and Conv Relu, with an Exp between them."""
    return wrapped(plain())


def test_a_call_says_what_it_is() -> None:
    first, second = calls(model())
    assert ops(first.body) == ["Conv", "Clip"]
    assert [formal.is_constant for formal in first.inputs] == [False, True]
    assert [formal.element_type for formal in first.inputs] == [TensorProto.FLOAT] * 2
    assert [formal.name for formal in first.inputs] == ["x", "w"]
    assert first.weights == second.weights == ("w",)
    assert list(first.constants) == ["high"]
    assert first.tiling == tiling(1)
    assert first.problem is second.problem is None
    assert verify_name(first) is verify_name(second) is None
    assert ops(second.body) == ["Conv", "Relu"]


def test_a_model_without_calls_has_none() -> None:
    assert calls(plain()) == []
    assert sound_calls(plain()).calls == ()
    assert sound_calls(ModelProto()).calls == ()


def test_types_that_a_tool_stripped_are_inferred() -> None:
    made = model()
    del made.graph.value_info[:]
    assert len(sound_calls(made).calls) == 2


@pytest.mark.parametrize("name", ["c", "e"])
def test_types_that_a_file_states_wrongly_are_refused_by_the_engine(
    name: str, engine: Engine
) -> None:
    made = model()
    (info,) = (info for info in made.graph.value_info if info.name == name)
    info.type.tensor_type.elem_type = TensorProto.DOUBLE  # the reader believes it, ORT does not
    with pytest.raises(EngineError, match="Type"):
        engine.open(made)


def test_weights_in_constant_nodes_are_weights() -> None:
    before = plain()
    tensor = before.graph.initializer[0]
    node = helper.make_node("Constant", [], ["w"], value=tensor)
    before.graph.node.insert(0, node)
    del before.graph.initializer[0]
    made = wrapped(before)
    assert [call.weights for call in sound_calls(made).calls] == [("w",), ("w",)]


Change = Callable[[ModelProto], object]


def call_attribute(made: ModelProto, name: str) -> AttributeProto:
    return next(a for a in made.graph.node[0].attribute if a.name == name)


def drop_template(made: ModelProto) -> None:
    made.graph.node[0].attribute.remove(call_attribute(made, "template"))


def body_node(made: ModelProto, op: str) -> onnx.NodeProto:
    return next(node for node in made.functions[0].node if node.op_type == op)


def hide_in_subgraph(made: ModelProto) -> None:
    inner = onnx.NodeProto()
    inner.CopyFrom(made.graph.node[0])
    inner.output[0] = "inner"
    info = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], "b", [], [info])
    branches = {"then_branch": branch, "else_branch": branch}
    made.graph.node.append(helper.make_node("If", ["q"], ["z"], **branches))


def call_from_function(made: ModelProto) -> None:
    other = helper.make_function(
        "my", "F", ["x", "w"], ["y"], [made.graph.node[0]], made.opset_import
    )
    made.functions.append(other)


def call_itself(made: ModelProto) -> None:
    made.functions[0].node.append(made.graph.node[0])


def put_function_in_place_of_conv(made: ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    made.functions.append(
        helper.make_function("", "Conv", ["x", "w"], ["y"], [node], made.opset_import)
    )


def make_weight_variable(made: ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 8, 3, 3]))


def change_weight_type(made: ModelProto) -> None:
    made.graph.initializer[0].data_type = TensorProto.FLOAT16


def change_weight_shape(made: ModelProto) -> None:
    made.graph.initializer[0].dims[2:] = [1, 9]


def change_input_type(made: ModelProto) -> None:
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def unsort(made: ModelProto) -> None:
    nodes = list(made.functions[0].node)[::-1]
    del made.functions[0].node[:]
    made.functions[0].node.extend(nodes)


CHANGES: dict[str, tuple[Change, str]] = {
    "another operator": (lambda m: setattr(body_node(m, "Clip"), "op_type", "Relu"), "its name"),
    "another attribute": (
        lambda m: body_node(m, "Conv").attribute[0].ints.append(9),
        "its name",
    ),
    "another constant": (
        lambda m: setattr(body_node(m, "Constant").attribute[0].t, "raw_data", b"abcd"),
        "its name",
    ),
    "another name": (lambda m: setattr(m.functions[0], "name", "R_0"), ""),
    "no template": (drop_template, "no attribute 'template'"),
    "a template that is a number": (
        lambda m: call_attribute(m, "template").CopyFrom(helper.make_attribute("template", 3)),
        "'template' is not text",
    ),
    "a tile that is not UTF-8": (
        lambda m: call_attribute(m, "tile").strings.__setitem__(0, b"\xff"),
        "'tile' is not text",
    ),
    "a reference": (
        lambda m: setattr(call_attribute(m, "layout"), "ref_attr_name", "x"),
        "'layout' is not text",
    ),
    "more tiles than templates": (
        lambda m: call_attribute(m, "tile").strings.append(b"t=1"),
        "differ in length",
    ),
    "an input less": (lambda m: m.graph.node[0].input.pop(), "1 inputs, not 2"),
    "an empty input": (lambda m: m.graph.node[0].input.__setitem__(1, ""), "inputs"),
    "an output more": (lambda m: m.graph.node[0].output.append("z"), "2 outputs, not 1"),
    "a function defined twice": (lambda m: m.functions.append(m.functions[0]), "twice"),
    "an overload": (lambda m: setattr(m.functions[0], "overload", "o"), "overloaded"),
    "an overloaded call": (lambda m: setattr(m.graph.node[0], "overload", "o"), "overloaded"),
    "another operator set": (
        lambda m: setattr(m.functions[0].opset_import[0], "version", 11),
        "another operator set",
    ),
    "no operator set": (lambda m: m.opset_import.pop(0), "operator set"),
    "a call in a subgraph": (hide_in_subgraph, "in a subgraph"),
    "a call in a function": (call_from_function, "in a function"),
    "a recursive call": (call_itself, "another one"),
    "an operator overridden": (put_function_in_place_of_conv, "another one"),
    "a variable weight": (make_weight_variable, "its name"),
    "a weight of another type": (change_weight_type, "its name"),
    "an input of another type": (change_input_type, "its name"),
    "a weight of another shape": (change_weight_shape, "its name"),
    "another template": (
        lambda m: call_attribute(m, "template").strings.__setitem__(0, b"winograd_f43"),
        "its name",
    ),
    "another tile": (
        lambda m: call_attribute(m, "tile").strings.__setitem__(0, b"t=1"),
        "its name",
    ),
    "another layout": (lambda m: setattr(call_attribute(m, "layout"), "s", b"nchw8c"), "its name"),
    "an unsorted body": (unsort, "before it is made"),
    "an output that is an input": (
        lambda m: m.functions[0].output.__setitem__(0, "x"),
        "outputs that are",
    ),
    "an output that nothing makes": (
        lambda m: m.functions[0].output.__setitem__(0, "nothing"),
        "outputs that are",
    ),
    "an input twice": (lambda m: m.functions[0].input.__setitem__(1, "x"), "given twice"),
    "a tensor made twice": (
        lambda m: body_node(m, "Clip").output.__setitem__(0, "a"),
        "given twice",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_call_that_was_tampered_with_is_refused_with_the_reason(what: str) -> None:
    made = model()
    change, reason = CHANGES[what]
    change(made)
    found = sound_calls(ModelProto.FromString(made.SerializeToString()))
    name = made.graph.node[0].op_type
    if what == "another name":  # then the call is one of nothing
        assert [call.node.op_type for call in found.calls] == [made.graph.node[2].op_type]
        made.graph.node[0].op_type = "R_0"
        found, name, reason = sound_calls(made), "R_0", "its name"
    assert reason in found.refused[name]
    assert name not in {call.function.name for call in found.calls}


def test_one_unsound_call_rules_out_all_of_its_name() -> None:
    before = plain()
    before.graph.node[4].op_type, before.graph.node[1].op_type = "Relu", "Relu"
    del before.graph.node[1].input[1:]
    made = wrapped(before)
    assert len(made.functions) == 1
    assert len(sound_calls(made).calls) == 2
    del made.graph.node[2].attribute[:]
    found = sound_calls(made)
    assert not found.calls
    assert len(found.refused) == 1


def test_the_target_is_no_part_of_the_name() -> None:
    made = model()
    call_attribute(made, "target").s = b"another machine"
    found = sound_calls(made)
    assert not found.refused
    assert [call.tiling and call.tiling.target for call in found.calls] == [
        "another machine",
        "native",
    ]


def test_what_is_wrong_besides_the_name_is_what_is_said() -> None:
    made = model()
    made.graph.node.append(made.graph.node[0])
    made.graph.node[-1].output[0] = "other"
    made.graph.node[-1].overload = "o"
    call_attribute(made, "tile").strings[0] = b"t=1"
    assert "overloaded" in sound_calls(made).refused[made.graph.node[0].op_type]


def test_whoever_knows_how_names_are_made_gets_past_the_name() -> None:
    made = model()
    call_attribute(made, "template").strings[0] = b"no_such_template"
    change_weight_shape(made)
    found = sound_calls(forged(made))
    assert not found.refused
    assert found.calls[0].tiling is not None
    assert found.calls[0].tiling.template == ("no_such_template",)


def test_a_body_of_too_many_nodes_is_refused() -> None:
    made = model()
    last = made.functions[0].output[0]
    for number in range(20_000):
        made.functions[0].node.add(op_type="Relu", input=[last], output=[f"{last}_{number}"])
    assert "20000 nodes" in sound_calls(made).refused[made.functions[0].name]


def test_many_calls_of_one_function_are_checked_once() -> None:
    made = model()
    call = made.graph.node[0]
    for number in range(20_000):
        made.graph.node.append(call)
        made.graph.node[-1].output[0] = f"other_{number}"
    assert len(sound_calls(made).calls) == 20_002


@given(st.randoms(use_true_random=False), st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_read_without_an_error(rng: random.Random, count: int) -> None:
    raw = bytearray(RAW)
    for _ in range(count):
        place = rng.randrange(len(raw))
        if rng.random() < 0.5:
            raw[place] = rng.randrange(256)
        else:
            raw[place : place + rng.randrange(8)] = raw[rng.randrange(len(raw)) :][:4]
    made = ModelProto()
    try:
        made.ParseFromString(bytes(raw))
    except DecodeError:
        return
    found = sound_calls(made)
    for call in found.calls:
        assert verify_name(call) is None


def stripped() -> ModelProto:
    """Little more than structure, and types that must be inferred."""
    made = model()
    made.graph.initializer[0].ClearField("raw_data")
    del made.graph.value_info[:]
    return made


RAW = stripped().SerializeToString()


def test_the_weights_may_be_of_any_size_for_the_reader() -> None:
    made = model()
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].dims[0] = 1 << 40
    assert len(sound_calls(made).refused) == 2
    assert len(sound_calls(forged(made)).calls) == 2
