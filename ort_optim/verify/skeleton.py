"""A model's structure without the bytes of its weights, for shape inference."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from onnx import ModelProto, TensorProto

MOST_ELEMENTS = 1024  # shapes, axes, scales: what inference may want to read


def without_weights(model: ModelProto) -> ModelProto:
    """A copy of `model` whose large initializers keep only their name, type and shape.

    Costs nothing for the weights themselves. Value infos are left out: those found in files are
    not to be trusted.
    """
    copy = ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name or "graph"
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and math.prod(tensor.dims) <= MOST_ELEMENTS:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.initializer.add(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
            )
    return copy


def infer_shapes(
    model: ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the main graph's tensors when the inputs have `shapes`; None for what stays open.

    Tensors whose shape inference cannot tell, or all of them if it fails, are missing.
    """
    skeleton = without_weights(model)
    for value in skeleton.graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.CopyFrom(
                onnx.TensorShapeProto(
                    dim=[
                        onnx.TensorShapeProto.Dimension(dim_value=size)
                        for size in shapes[value.name]
                    ]
                )
            )
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # onnx raises many kinds, on models that ORT runs all the same
        return {}
    graph = inferred.graph
    found: dict[str, tuple[int | None, ...]] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            )
    return found
