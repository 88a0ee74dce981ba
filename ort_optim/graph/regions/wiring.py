"""Who makes and who reads what in a graph, and which of its tensors are constant.

Wiring           the nodes in topological order, and the edges between them
constant_tensor  the tensor in a Constant node, however it is written
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from ort_optim.graph.order import reads, sort_nodes
from ort_optim.graph.walk import STANDARD_DOMAINS

_PLAIN_VALUES: dict[str, Callable[[Any], Any]] = {
    "value_float": lambda a: np.array(a.f, np.float32),
    "value_floats": lambda a: np.array(a.floats, np.float32),
    "value_int": lambda a: np.array(a.i, np.int64),
    "value_ints": lambda a: np.array(a.ints, np.int64),
}


class Wiring:
    """A graph's nodes as numbers in topological order.

    nodes          the nodes in that order; empty if the graph has a cycle
    positions      where each stands in the graph
    successors, predecessors
                   edges between nodes, what subgraphs capture included
    producer       which node makes a tensor
    readers        which nodes read a tensor
    constants      the tensors that no run can change: initializers that are no inputs of the
                   graph, and what Constant nodes give
    outputs        the names of the graph's outputs
    """

    def __init__(self, graph: GraphProto) -> None:
        listed = list(graph.node)
        places = {id(node): i for i, node in enumerate(listed)}
        ordered = sort_nodes(listed)
        self.nodes: list[NodeProto] = ordered or []
        self.positions = [places[id(node)] for node in self.nodes]
        self.has_cycle = ordered is None
        self.producer = {name: i for i, n in enumerate(self.nodes) for name in n.output if name}
        self.readers: dict[str, set[int]] = {}
        self.successors: list[set[int]] = [set() for _ in self.nodes]
        self.predecessors: list[set[int]] = [set() for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for name in reads(node):
                self.readers.setdefault(name, set()).add(i)
                source = self.producer.get(name)
                if source is not None:
                    self.successors[source].add(i)
                    self.predecessors[i].add(source)
        inputs = {value.name for value in graph.input}
        self.constants = {t.name: t for t in graph.initializer if t.name not in inputs}
        for node in self.nodes:
            tensor = constant_tensor(node)
            if tensor is not None:
                self.constants[node.output[0]] = tensor
        self.outputs = {value.name for value in graph.output}


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """What a Constant node gives; None for other nodes, sparse values, strings and references."""
    if not is_constant(node) or len(node.attribute) != 1 or len(node.output) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.ref_attr_name:
        return None
    if attribute.name == "value" and attribute.type == onnx.AttributeProto.TENSOR:
        return attribute.t
    if attribute.name in _PLAIN_VALUES:
        return numpy_helper.from_array(_PLAIN_VALUES[attribute.name](attribute))
    return None


def is_constant(node: NodeProto) -> bool:
    """Whether the node is ONNX's Constant."""
    return node.op_type == "Constant" and node.domain in STANDARD_DOMAINS
