"""Puts a view's changes back into protos, losslessly.

A node that no pass touched comes back as its own NodeProto, a touched one keeps the doc string
and metadata of the node whose place it takes, and everything graphsurgeon has no field for
(value infos, annotations, functions, metadata) comes from the proto the view was made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from ort_optim.graph.skeleton import (
    FIRST_IR_WITH_PLAIN_INITIALIZERS,
    copy_fields,
    skeleton_tensor,
)
from ort_optim.graph.view import Constant, Graph, Node

_REBUILT_FIELDS = frozenset(
    {"node", "initializer", "sparse_initializer", "value_info", "quantization_annotation"}
)

Keep = Callable[[TensorProto], TensorProto]
"""What becomes of an initializer's proto on its way into the merged model."""


def merge(root: Graph) -> onnx.ModelProto:
    """A new model with the view's changes; equal to the viewed one if nothing changed."""
    model = onnx.ModelProto()
    if not is_changed(root):
        model.CopyFrom(root.model.proto)
        return model
    copy_fields(root.model.proto, model, skip=frozenset({"graph"}))
    _fill(model.graph, root, _as_is)
    if model.graph.initializer:
        # Passes make initializers that are no graph inputs, which older versions did not know.
        model.ir_version = max(model.ir_version, FIRST_IR_WITH_PLAIN_INITIALIZERS)
    return model


def skeleton(root: Graph) -> onnx.ModelProto:
    """As `merge`, but large initializers keep only type and shape, and value infos and the shapes
    of outputs are left out.

    This is what shape inference works on: small, and free of shapes that may be wrong.
    """
    model = onnx.ModelProto()
    copy_fields(root.model.proto, model, skip=frozenset({"graph"}))
    _fill(model.graph, root, skeleton_tensor, with_value_info=False)
    return model


def is_changed(graph: Graph) -> bool:
    """Whether a pass changed anything in the graph or below."""
    if graph.nodes != graph.imported_nodes:
        return True
    if list(graph.constants.values()) != graph.imported_constants:
        return True
    return any(_is_touched(node) for node in graph.nodes)


def _is_touched(node: Node) -> bool:
    proto = node.proto
    if proto is None or len(node.attrs) != len(proto.attribute):
        return True
    if (node.op, node.name, node.domain or "") != (proto.op_type, proto.name, proto.domain):
        return True
    if [tensor.name for tensor in node.inputs] != list(proto.input):
        return True
    if [tensor.name for tensor in node.outputs] != list(proto.output):
        return True
    return any(
        value is not node.imported.get(name) or (isinstance(value, Graph) and is_changed(value))
        for name, value in node.attrs.items()
    )


def _fill(
    proto: onnx.GraphProto, graph: Graph, keep: Keep, *, with_value_info: bool = True
) -> None:
    copy_fields(graph.proto, proto, skip=_REBUILT_FIELDS)
    for node in graph.nodes:
        _add_node(proto, node, keep, with_value_info)
    names = {tensor.name for node in graph.nodes for tensor in node.outputs}
    names.update(tensor.name for tensor in graph.inputs)
    for tensor in graph.proto.initializer:  # inputs with a default value
        if tensor.name not in graph.constants and tensor.name in names:
            proto.initializer.append(keep(tensor))
    for constant in graph.constants.values():
        names.add(constant.name)
        _add_constant(proto, constant, keep)
    if not with_value_info:
        for value in proto.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    else:
        proto.value_info.extend(info for info in graph.proto.value_info if info.name in names)
    proto.quantization_annotation.extend(
        note for note in graph.proto.quantization_annotation if note.tensor_name in names
    )


def _add_constant(proto: onnx.GraphProto, constant: Constant, keep: Keep) -> None:
    origin = constant.proto
    if isinstance(origin, onnx.SparseTensorProto) and origin.values.name == constant.name:
        proto.sparse_initializer.append(origin)
    else:
        proto.initializer.append(keep(to_tensor(constant)))


def to_tensor(constant: Constant) -> TensorProto:
    """The dense proto of a constant, under its present name."""
    origin = constant.proto
    if not isinstance(origin, TensorProto):
        return numpy_helper.from_array(constant.values, constant.name)
    if origin.name == constant.name:
        return origin
    renamed = TensorProto()
    renamed.CopyFrom(origin)
    renamed.name = constant.name
    return renamed


def to_node(node: Node) -> onnx.NodeProto:
    """The proto of one node as it is now, its subgraphs included."""
    holder = onnx.GraphProto()
    _add_node(holder, node, _as_is, with_value_info=True)
    return holder.node[0]


def _add_node(proto: onnx.GraphProto, node: Node, keep: Keep, with_value_info: bool) -> None:
    has_subgraph = any(isinstance(value, Graph) for value in node.attrs.values())
    if node.proto is not None and not _is_touched(node) and (with_value_info or not has_subgraph):
        proto.node.append(node.proto)
        return
    made = proto.node.add()
    if node.proto is not None:
        copy_fields(
            node.proto, made, skip=frozenset({"input", "output", "attribute", "op_type", "domain"})
        )
    made.op_type = node.op
    made.name = node.name
    made.input.extend(tensor.name for tensor in node.inputs)
    made.output.extend(tensor.name for tensor in node.outputs)
    if node.domain:
        made.domain = node.domain
    originals = {a.name: a for a in node.proto.attribute} if node.proto is not None else {}
    for name, value in node.attrs.items():
        if isinstance(value, Graph):
            attribute = made.attribute.add(name=name, type=AttributeProto.GRAPH)
            _fill(attribute.g, value, keep, with_value_info=with_value_info)
        elif name in originals and value is node.imported.get(name):
            made.attribute.append(originals[name])
        else:
            made.attribute.append(_attribute(name, value))


def _attribute(name: str, value: Any) -> AttributeProto:
    if isinstance(value, AttributeProto):
        copied = AttributeProto()
        copied.CopyFrom(value)
        copied.name = name
        return copied
    if isinstance(value, Constant):
        return onnx.helper.make_attribute(name, to_tensor(value))
    if isinstance(value, tuple) and not value:
        return AttributeProto(name=name, type=AttributeProto.INTS)
    return onnx.helper.make_attribute(name, value)


def _as_is(tensor: TensorProto) -> TensorProto:
    return tensor
