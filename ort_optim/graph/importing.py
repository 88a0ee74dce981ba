"""Builds the view of a model: graphsurgeon objects that remember the protos they came from."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto

from ort_optim.graph.view import Constant, Graph, ModelFacts, Node, Tensor, Variable, Weight


def view(model: onnx.ModelProto, folder: Path) -> Graph:
    """The main graph as graphsurgeon objects. `folder` is where external data lies.

    Before passes change anything, tensor names must be unique over all graphs, as `repair`
    leaves them. The model must stay alive and unchanged as long as the view is used.
    """
    return _import_graph(model.graph, ModelFacts(model, folder), None, ChainMap())


def _import_graph(
    proto: onnx.GraphProto,
    model: ModelFacts,
    parent: Graph | None,
    outer: ChainMap[str, Tensor],
) -> Graph:
    graph = Graph(proto, model, parent)
    scope = outer.new_child()
    local = scope.maps[0]

    def declare(tensor: Tensor) -> Tensor:
        model.names.add(tensor.name)
        local[tensor.name] = tensor
        return tensor

    for value in proto.input:
        variable = Variable(value.name)
        variable.is_input = True
        graph.inputs.append(declare(variable))
    dense = [(tensor.name, Weight(tensor, model.folder)) for tensor in proto.initializer]
    sparse = [(s.values.name, Weight(s, model.folder)) for s in proto.sparse_initializer]
    for name, weight in [*dense, *sparse]:
        if name in local:  # an input with a default: not a constant
            continue
        constant = Constant(name, weight)
        graph.constants[name] = constant
        declare(constant)
    produced = {name for node in proto.node for name in node.output if name}
    for name in produced - local.keys():
        declare(Variable(name))
    for node_proto in proto.node:
        model.names.add(node_proto.name)
        inputs = [_lookup(name, scope, local) for name in node_proto.input]
        outputs = [local[name] if name else Variable("") for name in node_proto.output]
        attrs = {a.name: _import_attribute(a, model, graph, scope) for a in node_proto.attribute}
        node = Node(
            node_proto.op_type,
            inputs,
            outputs,
            attrs,
            node_proto.name,
            node_proto.domain,
            node_proto,
        )
        node.imported = attrs
        node.graph = graph
        graph.nodes.append(node)
    for value in proto.output:
        tensor = _lookup(value.name, scope, local)
        graph.outputs.append(tensor)
        tensor.is_output = True
    graph.imported_nodes = list(graph.nodes)
    graph.imported_constants = list(graph.constants.values())
    return graph


def _lookup(name: str, scope: ChainMap[str, Tensor], local: MutableMapping[str, Tensor]) -> Tensor:
    if not name:
        return Variable("")
    if name not in scope:  # a dangling name: kept, for ORT to judge
        local[name] = Variable(name)
    return scope[name]


def _import_attribute(
    attribute: AttributeProto, model: ModelFacts, graph: Graph, scope: ChainMap[str, Tensor]
) -> Any:
    """A Python value; the proto itself where Python has no faithful one."""
    if attribute.ref_attr_name:
        return attribute
    match attribute.type:
        case AttributeProto.FLOAT:
            return attribute.f
        case AttributeProto.INT:
            return attribute.i
        case AttributeProto.STRING:
            return _text(attribute.s)
        case AttributeProto.FLOATS:
            return tuple(attribute.floats)
        case AttributeProto.INTS:
            return tuple(attribute.ints)
        case AttributeProto.STRINGS:
            return tuple(_text(text) for text in attribute.strings)
        case AttributeProto.TENSOR:
            return Constant(attribute.t.name, Weight(attribute.t, model.folder))
        case AttributeProto.GRAPH:
            return _import_graph(attribute.g, model, graph, scope)
    return attribute


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
