"""Regions that do not pay are not made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ort_optim.hardware import Target, load_target
from ort_optim.hardware.target import Cache
from ort_optim.tiling import tile

CACHES = (Cache(1, 48 << 10), Cache(2, 1 << 20), Cache(3, 32 << 20))


def machine() -> Target:
    return replace(load_target("x86-64-v4"), caches=CACHES, memory_bytes=8 << 30)


def model(channels: int, kernel: int, group: int, after: str, batch: int | str = 1) -> ModelProto:
    """A convolution and what follows it, on 28x28."""
    shape = [batch, channels, 28, 28]
    weights = np.ones((channels, channels // group, kernel, kernel), np.float32)
    slopes = np.ones((channels, 1, 1), np.float32)
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", group=group, pads=pads),
        helper.make_node(after, ["c", "s"] if after == "PRelu" else ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(slopes, "s")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_a_region_that_pays_is_made() -> None:
    tiled = tile(model(64, 3, 1, "Relu"), machine())
    assert tiled.regions == 1
    assert tiled.layers[0].refusal is None


def test_a_region_that_does_not_pay_is_left_to_onnx_runtime_with_both_times() -> None:
    source = model(136, 1, 4, "Relu")
    tiled = tile(source, machine())
    assert tiled.regions == 0
    assert tiled.model == source
    (layer,) = tiled.layers
    assert layer.region is None
    assert layer.choice is not None
    assert layer.choice.template == "direct"
    assert layer.refusal is not None
    assert "alone direct would take" in layer.refusal


def test_what_onnx_runtime_computes_outside_its_layout_speaks_for_a_region() -> None:
    assert tile(model(136, 1, 4, "PRelu"), machine()).regions == 1


def test_of_an_open_batch_one_image_is_judged() -> None:
    assert tile(model(136, 1, 4, "Relu", batch="N"), machine()).regions == 0
    assert tile(model(64, 3, 1, "Relu", batch="N"), machine()).regions == 1


def test_where_height_and_width_are_not_known_there_is_no_veto() -> None:
    source = model(136, 1, 4, "Relu", batch="N")
    for value in (source.graph.input[0], source.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.ClearField("dim_value")
    assert tile(source, machine()).regions == 1
