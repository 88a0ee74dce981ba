from __future__ import annotations

import numpy as np
import onnx

from ort_optim.engine import Engine
from ort_optim.graph.repair import repair
from ort_optim.graph.scopes import make_names_unique
from tests.passes.harness import model_of

SHADOW = """g (int64 n, bool c, float[2] x) => (float[2] y) {
    a = Neg(x)
    b = Loop(n, c, a) <
        body = t (int64 i, bool c, float[2] x) => (bool d, float[2] e) {
            d = Identity(c)
            f = Abs(x)
            e = Add(f, a)
        }
    >
    g = Loop(n, c, b) <
        body = u (int64 i, bool h, float[2] x) => (bool d, float[2] e) {
            d = Identity(h)
            e = Neg(x)
        }
    >
    y = Add(g, x)
}"""


def defined(graph: onnx.GraphProto) -> list[str]:
    names = [name for node in graph.node for name in node.output]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names += defined(attribute.g)
    return names


def test_every_tensor_gets_a_name_of_its_own_and_the_same_value(engine: Engine) -> None:
    model = model_of(SHADOW)
    renamed = model_of(SHADOW)
    assert make_names_unique(renamed) == 3
    names = defined(renamed.graph)
    assert len(set(names)) == len(names)
    feeds = {"n": np.array(3), "c": np.array(True), "x": np.array([-1, 2], np.float32)}
    before = engine.run(engine.open(model), feeds)["y"]
    np.testing.assert_array_equal(engine.run(engine.open(renamed), feeds)["y"], before)
    onnx.checker.check_model(renamed, full_check=True)


def test_branches_that_share_a_name_are_renamed_without_a_word() -> None:
    model = model_of(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) { p = Abs(x) },
                else_branch = e () => (float[2] p) { p = Relu(x) }
            >
        }"""
    )
    assert repair(model) == []
    assert sorted(defined(model.graph)) == ["p", "p_1", "y"]


def test_names_that_a_contributed_operator_looks_for_stay() -> None:
    model = model_of(SHADOW)
    for node in model.graph.node:
        if node.op_type == "Loop":
            node.domain = "com.microsoft"
    before = [[value.name for value in node.attribute[0].g.input] for node in loops(model)]
    make_names_unique(model)
    assert [[value.name for value in node.attribute[0].g.input] for node in loops(model)] == before


def loops(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Loop"]
