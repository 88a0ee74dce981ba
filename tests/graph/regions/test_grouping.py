from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto

from ort_optim.graph.regions import group, wrap
from ort_optim.graph.regions.region import EMBEDDED_BYTES
from tests.graph.regions.harness import eligible, grouped, is_anchor, ops, tiling
from tests.passes.harness import model_of

IN = "g (float[1,8,6,6] x) => (float[1,8,6,6] y)"


def model(body: str, **more: np.ndarray) -> ModelProto:
    weights = {"w": np.ones((8, 8, 3, 3), np.float32), "b": np.ones(8, np.float32), **more}
    used = {name: value for name, value in weights.items() if f"{name}" in body}
    return model_of(body.replace("conv", "Conv<pads=[1,1,1,1]>"), weights=used)


def groups(body: str) -> list[list[str]]:
    return [ops(region.nodes) for region in grouped(model(body)).regions]


def test_what_follows_an_anchor_element_by_element_belongs_to_it() -> None:
    body = IN + "{ a = conv(x, w) b = Relu(a) c = Add(b, x) y = Sigmoid(c) }"
    (region,) = grouped(model(body)).regions
    assert ops(region.nodes) == ["Conv", "Relu", "Add", "Sigmoid"]
    assert region.activations == ("x",)
    assert region.weights == ("w",)
    assert region.outputs == ("y",)
    assert region.anchors == (0,)


def test_what_comes_before_the_first_anchor_stays_outside() -> None:
    assert groups(IN + "{ a = Relu(x) b = Sigmoid(x) c = conv(a, w) y = Add(c, b) }") == [
        ["Conv", "Add"]
    ]


def test_what_is_between_anchors_belongs_to_them_whatever_it_is() -> None:
    body = IN + "{ a = conv(x, w) b = Concat<axis=1>(a, x) c = conv(b, w16) y = Tanh(c) }"
    weights = {"w16": np.ones((8, 16, 3, 3), np.float32)}
    assert [ops(r.nodes) for r in grouped(model(body, **weights)).regions] == [
        ["Conv", "Concat", "Conv", "Tanh"]
    ]


def test_a_last_concat_stays_where_all_of_it_is_the_regions_own() -> None:
    two = "g (float[1,8,6,6] x) => (float[1,16,6,6] y)"
    assert groups(two + "{ a = conv(x, w) b = conv(a, w) y = Concat<axis=1>(a, b) }") == [
        ["Conv", "Conv", "Concat"]
    ]
    assert groups(two + "{ a = conv(x, w) b = Concat<axis=1>(a, x) y = Relu(b) }") == [["Conv"]]


def test_a_group_that_falls_apart_without_its_fringes_becomes_several() -> None:
    body = (
        "g (float[1,8,6,6] x) => (float[1,8,6,6] y, float[1,8,6,6] z)"
        "{ a = Relu(x) y = conv(a, w) z = conv(a, w) }"
    )
    assert groups(body) == [["Conv"], ["Conv"]]


def test_a_path_that_leaves_and_comes_back_cuts_a_region() -> None:
    body = IN + "{ a = conv(x, w) b = Exp(a) c = Add(a, b) y = conv(c, w) }"
    assert groups(body) == [["Conv"], ["Conv"]]
    body = IN + "{ a = conv(x, w) b = Exp(a) c = conv(b, w) d = Add(c, a) y = Relu(d) }"
    assert groups(body) == [["Conv"], ["Conv", "Add", "Relu"]]


def test_a_fringe_that_kept_two_groups_apart_no_longer_does() -> None:
    # Relu feeds the Exp that comes back: with it in the first group the two could not be one.
    body = IN + "{ r = Relu(x) e = Exp(r) a = conv(r, w) y = Add(a, e) }"
    assert groups(body) == [["Conv", "Add"]]


def test_what_a_subgraph_captures_is_an_output_and_a_path() -> None:
    branch = "then_branch = t () => (float[1,8,6,6] p) { p = Exp(a) }"
    other = "else_branch = e () => (float[1,8,6,6] q) { q = Identity(a) }"
    body = (
        "g (float[1,8,6,6] x, bool c) => (float[1,8,6,6] y)"
        f"{{ a = conv(x, w) d = If(c) <{branch}, {other}> m = Relu(a) n = Add(m, d)"
        " y = conv(n, w) }"
    )
    regions = grouped(model(body)).regions
    assert [ops(region.nodes) for region in regions] == [["Conv", "Relu"], ["Conv"]]
    assert regions[0].outputs == ("a", "m")


def test_anchors_that_no_region_holds_come_with_the_reason() -> None:
    branch = "then_branch = t () => (float[1,8,6,6] p) { p = conv(x, w) }"
    other = "else_branch = e () => (float[1,8,6,6] q) { q = Identity(x) }"
    body = (
        "g (float[1,8,6,6] x, bool c) => (float[1,8,6,6] y)"
        f"{{ d = If(c) <{branch}, {other}> [dead] a = conv(x, w) [no] y = conv(d, w) }}"
    )

    def choosy(node: NodeProto) -> str | None:
        return "its name is no" if node.name == "no" else eligible(node)

    found = group(model(body), choosy, is_anchor)
    assert not found.regions
    assert [(left.node.output[0], left.reason) for left in found.left_out] == [
        ("a", "nothing reads what it makes"),
        ("y", "its name is no"),
        ("p", "inside a subgraph"),
    ]


def test_calls_of_functions_are_never_in_a_region() -> None:
    made = model(IN + "{ a = conv(x, w) y = Relu(a) }")
    node = onnx.helper.make_node("Exp", ["p"], ["r"])
    made.functions.append(
        onnx.helper.make_function("ai.onnx", "Relu", ["p"], ["r"], [node], made.opset_import)
    )
    assert [ops(region.nodes) for region in grouped(made).regions] == [["Conv"]]
    (after,) = wrap(made, grouped(made).regions, [tiling(1)]).functions[1:]
    assert after.domain == "ort_optim"


def test_what_a_region_reads_is_a_weight_or_a_constant_by_what_it_is_for() -> None:
    body = (
        "g (float[1,8,6,6] x) => (float[1,3,12,12] y)"
        "{ a = conv(x, w) k = Constant<value_float = 2.0>() m = Mul(a, k) s = Add(m, shift)"
        ' r = Resize<mode="nearest">(s, , scales) p = PRelu(r, slope) y = conv(p, rgb, bias3) }'
    )
    made = model(
        body,
        shift=np.ones((1, 8, 1, 1), np.float32),
        scales=np.array([1, 1, 2, 2], np.float32),
        slope=np.ones((1, 1, 1), np.float32),
        rgb=np.ones((3, 8, 3, 3), np.float32),
        bias3=np.ones(3, np.float32),
    )
    (region,) = grouped(made).regions
    assert region.activations == ("x",)
    assert region.weights == ("w", "shift", "rgb", "bias3")
    assert region.constants == ("k", "scales", "slope")


@pytest.mark.parametrize(("count", "is_weight"), [(1024, False), (1025, True)])
def test_whole_numbers_are_constants_up_to_their_limit(count: int, is_weight: bool) -> None:
    assert EMBEDDED_BYTES == 1024 * 8
    body = IN + "{ a = conv(x, w) y = Slice(a, many, ends) }"
    made = model(body, many=np.zeros(count, np.int64), ends=np.ones(1, np.int64))
    (region,) = grouped(made).regions
    assert ("many" in region.weights) is is_weight
    assert ("many" in region.constants) is not is_weight


def test_whole_numbers_are_weights_where_a_constant_may_not_hold_them() -> None:
    made = model_of(
        """g (float[1,8,6,6] x) => (float[1,8,3,3] y) {
            a = Conv<pads=[1,1,1,1]>(x, w) b = Reshape(a, shape) y = Conv<pads=[1,1,1,1]>(b, v)
        }""",
        weights={
            "w": np.ones((8, 8, 3, 3), np.float32),
            "v": np.ones((8, 32, 3, 3), np.float32),
            "shape": np.array([1, 32, 3, 3]),
        },
        opset=8,
    )
    (region,) = group(made, lambda node: None, is_anchor).regions
    assert region.weights == ("w", "shape", "v")
    onnx.checker.check_model(wrap(made, [region], [tiling(2)]), full_check=True)


def test_weights_that_can_be_overridden_are_activations() -> None:
    made = model(IN + "{ y = conv(x, w) }")
    made.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [8, 8, 3, 3])
    )
    (region,) = grouped(made).regions
    assert region.activations == ("x", "w")
    made.ir_version = 3
    found = grouped(made)
    assert not found.regions
    assert "freeze" in found.left_out[0].reason


def test_nodes_in_any_order_give_the_body_in_topological_order() -> None:
    made = model(IN + "{ a = conv(x, w) b = Relu(a) y = conv(b, w) }")
    made.graph.node.reverse()
    (region,) = grouped(made).regions
    assert ops(region.nodes) == ["Conv", "Relu", "Conv"]
    assert region.positions == (2, 1, 0)
    assert region.anchors == (0, 2)


def test_a_cycle_has_no_regions() -> None:
    made = model(IN + "{ a = conv(b, w) b = Relu(a) y = conv(b, w) }")
    found = grouped(made)
    assert not found.regions
    assert {left.reason for left in found.left_out} == {"the graph has a cycle"}
