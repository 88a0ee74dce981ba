"""Shapes of a model's tensors for given input shapes."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import skeleton_model


def infer_shapes(
    model: ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the main graph's tensors when the inputs have `shapes`; None for what stays open.

    Tensors whose shape inference cannot tell are missing.
    """
    skeleton = skeleton_model(model, with_value_info=False)
    for value in skeleton.graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            stated = value.type.tensor_type.shape
            stated.ClearField("dim")
            for size in shapes[value.name]:
                stated.dim.add(dim_value=size)
    graph = infer(skeleton).graph
    found: dict[str, tuple[int | None, ...]] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            )
    return found
