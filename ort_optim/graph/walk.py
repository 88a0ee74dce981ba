"""Ways through a model's protos: its graphs and its constant tensors, nested ones included.

node_graphs      the graphs in a node's attributes
subgraphs        a graph and all graphs below it
tensors          all constant tensors;  inner_tensors all but the main graph's initializers
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

STANDARD_DOMAINS = ("", "ai.onnx")
"""The two names of the domain of ONNX's own operators."""


def node_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in the attributes of a node, such as the two branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph itself and everything nested in its nodes, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in node_graphs(node):
            yield from subgraphs(inner)


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All constant tensors: initializers and attributes, in subgraphs and functions too."""
    yield from model.graph.initializer
    yield from inner_tensors(model)


def inner_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All constant tensors but the main graph's dense initializers."""
    yield from _graph_tensors(model.graph, initializers=False)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: GraphProto, *, initializers: bool = True) -> Iterator[TensorProto]:
    if initializers:
        yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)
        for graph in node_graphs(node):
            yield from _graph_tensors(graph)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor.values
        yield attribute.sparse_tensor.indices
