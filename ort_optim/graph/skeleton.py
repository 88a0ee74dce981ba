"""A model's structure without the bytes of its weights: what shape inference and inlining need.

skeleton_tensor   a tensor's name, type and shape; its data only if it is small
skeleton_model    a whole model, subgraphs and functions included; weights are never copied
copy_fields       a message's fields but some
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from ort_optim.graph.weights import is_external, size_bytes

SKELETON_BYTES = 4096
"""Larger constants lose their data in a skeleton; shapes and axes are never that large."""

FIRST_IR_WITH_PLAIN_INITIALIZERS = 4


def skeleton_tensor(tensor: TensorProto) -> TensorProto:
    """A copy that keeps name, type and shape, and the data only if it is small."""
    bare = TensorProto()
    if not is_external(tensor) and size_bytes(tensor) <= SKELETON_BYTES:
        bare.CopyFrom(tensor)
        return bare
    bare.name = tensor.name
    bare.data_type = tensor.data_type
    bare.dims.extend(tensor.dims)
    return bare


def skeleton_model(model: ModelProto, *, with_value_info: bool = True) -> ModelProto:
    """A copy for shape inference: all but the data of large tensors, which is never copied.

    Sparse initializers become dense ones without data, as inference knows no sparse ones. Leave
    the value infos out where they are not to be trusted.
    """
    bare = ModelProto()
    copy_fields(model, bare, skip=frozenset({"graph", "functions"}))
    # Below that, inference looks at initializers only where they are graph inputs too.
    bare.ir_version = max(model.ir_version, FIRST_IR_WITH_PLAIN_INITIALIZERS)
    _copy_graph(bare.graph, model.graph, with_value_info)
    for function in model.functions:
        _copy_function(bare.functions.add(), function, with_value_info)
    return bare


def _copy_graph(bare: GraphProto, graph: GraphProto, with_value_info: bool) -> None:
    rebuilt = {"node", "initializer", "sparse_initializer"}
    if not with_value_info:
        rebuilt.add("value_info")
    copy_fields(graph, bare, skip=frozenset(rebuilt))
    bare.initializer.extend(skeleton_tensor(tensor) for tensor in graph.initializer)
    for sparse in graph.sparse_initializer:
        bare.initializer.add(
            name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims
        )
    for node in graph.node:
        _copy_node(bare.node.add(), node, with_value_info)


def _copy_function(bare: FunctionProto, function: FunctionProto, with_value_info: bool) -> None:
    copy_fields(function, bare, skip=frozenset({"node"}))
    for node in function.node:
        _copy_node(bare.node.add(), node, with_value_info)


def _copy_node(bare: NodeProto, node: NodeProto, with_value_info: bool) -> None:
    if not any(_is_heavy(attribute) for attribute in node.attribute):
        bare.CopyFrom(node)
        return
    copy_fields(node, bare, skip=frozenset({"attribute"}))
    for attribute in node.attribute:
        copy = bare.attribute.add()
        copy_fields(attribute, copy, skip=frozenset({"t", "g", "graphs"}))
        if attribute.HasField("t"):
            copy.t.CopyFrom(skeleton_tensor(attribute.t))
        if attribute.HasField("g"):
            _copy_graph(copy.g, attribute.g, with_value_info)
        for graph in attribute.graphs:
            _copy_graph(copy.graphs.add(), graph, with_value_info)


def _is_heavy(attribute: AttributeProto) -> bool:
    return attribute.HasField("t") or attribute.HasField("g") or bool(attribute.graphs)


def copy_fields(source: Message, target: Any, *, skip: frozenset[str]) -> None:
    """Copy all set fields of a message but those named in `skip`."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)
