from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ort_optim.engine import Engine
from ort_optim.graph.regions import Region, Tiling, sound_calls, wrap
from tests.graph.regions.harness import (
    assert_identical,
    grouped,
    inlined,
    ops,
    structure,
    tiling,
    wrapped,
)
from tests.passes.harness import feeds_for, model_of

IN = "g (float[1,8,6,6] x) => (float[1,8,6,6] y)"


def model(body: str, *, opset: int = 17, **more: np.ndarray) -> ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        "b": rng.normal(size=8).astype(np.float32),
        **more,
    }
    text = body.replace("conv", "Conv<pads=[1,1,1,1]>")
    used = {
        name: value for name, value in weights.items() if f", {name}" in body or f"({name}" in body
    }
    return model_of(text, weights=used, opset=opset)


BODIES = {
    "one conv": IN + "{ y = conv(x, w) }",
    "a bias left out": IN + "{ y = conv(x, w, ) }",
    "an input used twice": IN + "{ a = conv(x, w, b) d = Add(x, x) c = Add(a, x) y = Mul(c, d) }",
    "a weight used twice": IN + "{ a = conv(x, w, b) r = Relu(a) y = conv(r, w, b) }",
    "an inner tensor that is an output too": (
        "g (float[1,8,6,6] x) => (float[1,8,6,6] y, float[1,8,6,6] a)"
        "{ a = conv(x, w) r = Relu(a) y = conv(r, v) }"
    ),
    "constants of all kinds": IN
    + """{ lo = Constant<value_float = -0.5>() a = conv(x, w) c = Clip(a, lo, hi)
        k = Constant<value = float[1,1,1,1] {3.0}>() m = Mul(c, k) y = conv(m, v) }""",
    "a constant that others read": (
        "g (float[1,8,6,6] x) => (float[1,8,6,6] y, float z)"
        "{ a = conv(x, w) m = Mul(a, hi) y = Relu(m) z = Exp(hi) }"
    ),
    "a constant that is an output": (
        "g (float[1,8,6,6] x) => (float[1,8,6,6] y, float hi) { a = conv(x, w) y = Mul(a, hi) }"
    ),
    "two regions with one body": IN
    + "{ a = conv(x, w) r = Relu(a) e = Exp(r) n = Neg(e) f = conv(n, v) y = Relu(f) }",
    "a region before and after another": IN
    + "{ a = conv(x, w) e = Sqrt(a) d = conv(e, v) f = Add(a, d) g = Exp(f) y = conv(g, w) }",
}


@pytest.mark.parametrize("name", BODIES)
def test_calls_pass_the_checker_and_give_what_the_model_gives_inlined(
    name: str, engine: Engine
) -> None:
    before = model(BODIES[name], hi=np.array(0.7, np.float32))
    after = wrapped(before)
    assert after.functions
    assert not sound_calls(after).refused
    onnx.checker.check_model(after, full_check=True)
    assert_identical(engine, after, feeds_for(before))
    assert structure(inlined(after)) == structure(before)


def test_wrapping_leaves_the_model_that_was_given_as_it_was() -> None:
    before = model(BODIES["constants of all kinds"], hi=np.array(0.7, np.float32))
    copy = before.SerializeToString(deterministic=True)
    wrapped(before)
    assert before.SerializeToString(deterministic=True) == copy
    assert wrap(before, [], []) is before


def test_it_can_be_inlined_and_wrapped_again() -> None:
    before = model(BODIES["two regions with one body"])
    once = wrapped(before)
    with pytest.raises(ValueError, match="inline"):
        wrap(once, grouped(before).regions, [tiling(1)] * 2)
    twice = wrapped(inlined(once))
    assert [f.name for f in twice.functions] == [f.name for f in once.functions]
    assert structure(inlined(twice)) == structure(before)


def test_what_only_regions_read_moves_into_their_bodies() -> None:
    before = model(BODIES["constants of all kinds"], hi=np.array(0.7, np.float32))
    before.graph.initializer.add(name="idle", data_type=TensorProto.FLOAT, dims=[0])
    after = wrapped(before)
    (function,) = after.functions
    assert ops(after.graph.node) == [function.name]
    assert len(after.graph.node) == 1
    assert [tensor.name for tensor in after.graph.initializer] == ["w", "v", "idle"]
    assert [node.output[0] for node in function.node[:3]] == ["lo", "hi", "k"]
    assert list(function.input) == ["x", "w", "v"]
    assert list(after.graph.node[0].input) == ["x", "w", "v"]


def test_equal_bodies_of_equal_tilings_and_weight_shapes_are_one_function() -> None:
    before = model(BODIES["two regions with one body"])
    regions = grouped(before).regions
    one, other = (Tiling(("direct",), ("",), layout, "zen4") for layout in ("nchw16c", "nchw8c"))
    elsewhere = replace(one, target="native")
    assert len(wrap(before, regions, [one, elsewhere]).functions) == 1
    assert len(wrap(before, regions, [one, other]).functions) == 2
    before.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.zeros((8, 8, 3, 2), np.float32), "v")
    )
    assert len(wrap(before, regions, [one, one]).functions) == 2


def test_each_call_says_how_it_is_tiled() -> None:
    before = model(BODIES["two regions with one body"])
    tilings = [
        Tiling(("winograd_f43",), ("t=56,g=64",), "nchw16c", "zen4"),
        Tiling(("direct",), ("",), "nchw8c", "native"),
    ]
    after = wrap(before, grouped(before).regions, tilings)
    assert len(after.functions) == 2
    found = sound_calls(after).calls
    assert [call.tiling for call in found] == tilings
    assert [call.weights for call in found] == [("w",), ("v",)]
    notes = {entry.key: entry.value for entry in found[0].node.metadata_props}
    assert notes == {
        "ort_optim.template": "winograd_f43",
        "ort_optim.tile": "t=56,g=64",
        "ort_optim.layout": "nchw16c",
        "ort_optim.target": "zen4",
    }
    assert list(after.functions[0].attribute) == ["template", "tile", "layout", "target"]


def test_versions_are_what_functions_need() -> None:
    before = model(BODIES["one conv"])
    before.opset_import.add(domain="com.microsoft", version=1)
    before.ir_version = 5
    after = wrapped(before)
    assert after.ir_version == 8
    assert {e.domain: e.version for e in after.opset_import} == {
        "": 17,
        "com.microsoft": 1,
        "ort_optim": 1,
    }
    assert {e.domain: e.version for e in after.functions[0].opset_import} == {
        "": 17,
        "com.microsoft": 1,
    }
    before.ir_version = 10
    assert wrapped(before).ir_version == 10


def test_value_infos_are_inferred_anew_and_inner_ones_go() -> None:
    before = model(BODIES["a region before and after another"])
    for name in ("a", "e", "f", "g"):
        wrong = helper.make_tensor_value_info(name, TensorProto.FLOAT, [7, 7])
        before.graph.value_info.append(wrong)
    before.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    infos = {info.name: info.type.tensor_type for info in wrapped(before).graph.value_info}
    assert set(infos) == {"a", "e", "f", "g"}
    for each in infos.values():
        assert [dim.dim_value for dim in each.shape.dim] == [0, 8, 6, 6]
        assert not each.shape.dim[0].dim_param
    inner = model(BODIES["a weight used twice"])
    inner.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1]))
    assert not wrapped(inner).graph.value_info


def test_what_is_stated_counts_where_nothing_is_inferred() -> None:
    before = model(
        "g (float[n] f, int64[4] s) => (float[1,8,6,6] y) { x = Reshape(f, s) y = conv(x, w) }"
    )
    before.graph.value_info.append(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 6])
    )
    (info,) = wrapped(before).graph.value_info
    assert info.name == "x"
    assert [dim.dim_value for dim in info.type.tensor_type.shape.dim] == [0, 8, 0, 0]


def test_notes_of_nodes_go_along_and_shared_bodies_keep_those_that_hold_for_all() -> None:
    single = model(BODIES["one conv"])
    single.graph.node[0].doc_string = "of the node"
    single.graph.node[0].metadata_props.add(key="layer", value="1")
    (node,) = inlined(wrapped(single)).graph.node
    assert node.doc_string == "of the node"
    assert node.metadata_props[0].value == "1"

    shared = model(BODIES["two regions with one body"])
    for index, conv in enumerate(n for n in shared.graph.node if n.op_type == "Conv"):
        conv.doc_string = f"number {index}"
        conv.metadata_props.add(key="layer", value=str(index))
        conv.metadata_props.add(key="author", value="somebody")
    (function,) = wrapped(shared).functions
    assert not function.node[0].doc_string
    assert [(e.key, e.value) for e in function.node[0].metadata_props] == [("author", "somebody")]


def test_annotations_of_tensors_that_are_gone_go() -> None:
    before = model(BODIES["a weight used twice"])
    for name in ("r", "w", "y"):
        before.graph.quantization_annotation.add(tensor_name=name)
    notes = wrapped(before).graph.quantization_annotation
    assert [note.tensor_name for note in notes] == ["w", "y"]


def test_a_call_takes_the_name_of_no_other_node() -> None:
    before = model(BODIES["two regions with one body"])
    before.graph.node[2].name = "region_1"
    names = [node.name for node in wrapped(before).graph.node if node.name]
    assert len(set(names)) == len(names) == 3


def test_regions_that_can_not_be_called_are_refused() -> None:
    before = model(BODIES["an input used twice"])
    (region,) = grouped(before).regions
    with pytest.raises(ValueError, match="same node"):
        wrap(before, [region, region], [tiling(1)] * 2)
    with pytest.raises(ValueError, match="each anchor"):
        wrap(before, [region], [tiling(2)])
    circle = model(IN + "{ a = conv(x, w) e = Exp(a) d = Add(a, e) y = Relu(d) }")
    whole = Region(
        nodes=tuple(circle.graph.node[i] for i in (0, 2, 3)),
        positions=(0, 2, 3),
        anchors=(0,),
        activations=("x", "e"),
        weights=("w",),
        constants=(),
        outputs=("a", "y"),
    )
    with pytest.raises(ValueError, match="circle"):
        wrap(circle, [whole], [tiling(1)])
