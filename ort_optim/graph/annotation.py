"""Shape inference for the view: writes dtype and shape on its variables."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from ort_optim.graph.merge import skeleton
from ort_optim.graph.shapes import describe, dims_of, give_types, infer
from ort_optim.graph.view import Graph, Variable
from ort_optim.graph.walk import subgraphs

OPSET_OF_WRONG_SLICES = 10


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
        for node in graph.node:
            found = types.get(node.output[0]) if node.op_type == "Slice" else None
            if found is not None and any(isinstance(dim, str) for dim in dims_of(found) or ()):
                suspects[node.output[0]] = onnx.TypeProto()
                suspects[node.output[0]].CopyFrom(found)
    if not suspects:
        return inferred
    for each in suspects.values():
        for dim in each.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    give_types(model, suspects)
    return infer(model)


def _annotate(graph: Graph, proto: onnx.GraphProto) -> None:
    named = [*proto.input, *proto.value_info, *proto.output]
    found = {info.name: info.type for info in named if info.HasField("type")}
    for variable in _own_variables(graph):
        variable.dtype, variable.shape = describe(found.get(variable.name))
    for node, node_proto in zip(graph.nodes, proto.node, strict=True):
        attributes = {attribute.name: attribute for attribute in node_proto.attribute}
        for name, value in node.attrs.items():
            if isinstance(value, Graph):
                _annotate(value, attributes[name].g)


def _own_variables(graph: Graph) -> Iterable[Variable]:
    yield from (tensor for tensor in graph.inputs if isinstance(tensor, Variable))
    for node in graph.nodes:
        yield from (tensor for tensor in node.outputs if tensor.name)
