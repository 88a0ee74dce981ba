"""Shape inference for the view: writes dtype and shape on its variables."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TypeProto

from ort_optim.graph.load import subgraphs
from ort_optim.graph.merge import skeleton
from ort_optim.graph.view import Dim, Graph, Variable

OPSET_OF_WRONG_SLICES = 10
_GIVEN = ":given"  # no name that a file's tensor is likely to have


def infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with value infos as onnx infers them; as it was where inference fails."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # onnx raises many kinds on graphs that ORT still runs
        try:
            return onnx.shape_inference.infer_shapes(model)
        except Exception:
            return model


def annotate(root: Graph) -> None:
    """Set `dtype` and `shape` of every variable to what inference finds, None where nothing.

    Value infos in the file are not trusted, nor are the shapes declared for outputs: ORT runs
    models whose outputs come out in other shapes. Symbolic dimensions are str, unknown ones None.
    """
    model = skeleton(root)
    inferred = infer(model)
    if root.opset == OPSET_OF_WRONG_SLICES:
        inferred = _distrust_slices(model, inferred)
    _annotate(root, inferred.graph)


def _distrust_slices(model: onnx.ModelProto, inferred: onnx.ModelProto) -> onnx.ModelProto:
    """Inference anew, on `model` changed so that no Slice keeps a symbolic dimension.

    At opset 10 onnx lets a sliced axis keep the symbol of the axis before. Such a Slice becomes an
    Identity of an input that has its output's shape, unknown where it was symbolic.
    """
    suspects = {}
    for graph in subgraphs(inferred.graph):
        types = {info.name: info.type for info in [*graph.output, *graph.value_info]}
        slices = [node.output[0] for node in graph.node if node.op_type == "Slice"]
        for name in slices:
            if name in types and any(
                isinstance(dim, str) for dim in describe(types[name])[1] or ()
            ):
                suspects[name] = types[name]
    if not suspects:
        return inferred
    for graph in subgraphs(model.graph):
        for node in graph.node:
            if node.op_type != "Slice" or node.output[0] not in suspects:
                continue
            given = f"{node.output[0]}{_GIVEN}"
            node.CopyFrom(onnx.helper.make_node("Identity", [given], list(node.output)))
            value = onnx.ValueInfoProto(name=given, type=suspects[node.output[0]])
            for dim in value.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")
            model.graph.input.append(value)
    return infer(model)


def _annotate(graph: Graph, proto: onnx.GraphProto) -> None:
    named = [*proto.input, *proto.value_info, *proto.output]
    found = {info.name: info.type for info in named if info.HasField("type")}
    for variable in _own_variables(graph):
        dtype, shape = describe(found.get(variable.name))
        variable.dtype, variable.shape = dtype, shape
    for node, node_proto in zip(graph.nodes, proto.node, strict=True):
        attributes = {attribute.name: attribute for attribute in node_proto.attribute}
        for name, value in node.attrs.items():
            if isinstance(value, Graph):
                _annotate(value, attributes[name].g)


def describe(type_proto: TypeProto | None) -> tuple[np.dtype[np.generic] | None, list[Dim] | None]:
    """NumPy dtype and shape of a tensor type; (None, None) for anything else."""
    if type_proto is None or not type_proto.HasField("tensor_type"):
        return None, None
    tensor = type_proto.tensor_type
    dtype = (
        onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if tensor.elem_type != onnx.TensorProto.UNDEFINED
        else None
    )
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, [_dim(dim) for dim in tensor.shape.dim]


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _own_variables(graph: Graph) -> Iterable[Variable]:
    yield from (tensor for tensor in graph.inputs if isinstance(tensor, Variable))
    for node in graph.nodes:
        yield from (tensor for tensor in node.outputs if tensor.name)
