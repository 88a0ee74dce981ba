"""Facts of a model: nodes, weights, and what each layer computes. Reads, never changes.

count_ops        nodes by op, as a session runs them
weight_stats     elements and bytes of all stored tensors
layers           each node with its shapes, multiply-accumulates and parameters
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto
from onnx.inliner import inline_local_functions

from ort_optim.graph import weights
from ort_optim.graph.macs import Macs, Shape, node_macs
from ort_optim.graph.shapes import dims_of, infer
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.graph.walk import STANDARD_DOMAINS, node_graphs, tensors

REPEATING_OPS = frozenset({"Loop", "Scan"})
LOOP_SYMBOL = "iterations"
"""What the counts of a body that runs again and again are multiplied by."""


@dataclass(frozen=True)
class WeightStats:
    """Stored tensors: initializers, Constant nodes and sparse ones, wherever they are."""

    parameter_count: int
    size_bytes: int


@dataclass(frozen=True)
class Layer:
    """One node. Shapes are None where unknown; `macs` is None for ops that have none to count.

    `graph` is "" in the main graph, else the path of the subgraph, such as "If_3.then_branch".
    `parameter_count` counts the constants it reads; shared ones count at each reader.
    """

    name: str
    op: str
    graph: str
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    macs: Macs | None
    parameter_count: int


def op_name(node: NodeProto) -> str:
    """`Conv`, or `com.microsoft.FusedConv` outside the standard domain."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"


def count_ops(model: ModelProto) -> Counter[str]:
    """How many nodes of each op a session runs, before its own optimizations.

    Constant nodes are not counted; nodes of subgraphs are, once. A call of a model-local function
    counts as the nodes of its body, inner calls likewise.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    bodies: dict[tuple[str, str, str], Counter[str] | None] = {}

    def count(nodes: Iterable[NodeProto]) -> Counter[str]:
        total: Counter[str] = Counter()
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in functions and key not in bodies:
                bodies[key] = None  # a function that calls itself is counted as a node
                bodies[key] = count(functions[key].node)
            body = bodies.get(key)
            if body is not None:
                total += body
            elif op_name(node) != "Constant":
                total[op_name(node)] += 1
            for graph in node_graphs(node):
                total += count(graph.node)
        return total

    return count(model.graph.node)


def weight_stats(model: ModelProto) -> WeightStats:
    """Elements and bytes of all stored tensors; external data is not read."""
    count = size = 0
    for tensor in tensors(model):
        size += weights.size_bytes(tensor)
        count += math.prod(tensor.dims)
    return WeightStats(count, size)


def layers(model: ModelProto) -> list[Layer]:
    """Every node but Constants, in the file's order, nodes of subgraphs after their owner.

    Calls of model-local functions appear as the nodes of their bodies. Shapes are those that
    inference finds, with the file's own where it finds none. Bodies of Loop and Scan count their
    multiply-accumulates times the symbol "iterations"; both branches of an If are listed.
    """
    bare = _inlined(skeleton_model(model))
    return list(_layers(infer(bare).graph, "", {}, ()))


def _inlined(model: ModelProto) -> ModelProto:
    if not model.functions:
        return model
    try:
        return inline_local_functions(model)
    except Exception:  # calls that the inliner can't resolve stay calls
        return model


def _layers(
    graph: GraphProto, path: str, outer: Mapping[str, _Value], loops: tuple[str, ...]
) -> Iterator[Layer]:
    values = {**outer, **_values(graph)}
    for node in graph.node:
        if op_name(node) == "Constant":
            continue
        name = node.name or next(filter(None, node.output), "")
        inputs = tuple(values.get(each, UNKNOWN_VALUE) for each in node.input)
        shapes = tuple(value.shape for value in inputs)
        outputs = tuple(values.get(each, UNKNOWN_VALUE).shape for each in node.output)
        macs = node_macs(node, shapes, outputs)
        for symbol in loops:
            macs = macs.times(symbol) if macs else None
        distinct = dict(zip(node.input, inputs, strict=True)).values()
        yield Layer(
            name=name,
            op=op_name(node),
            graph=path,
            inputs=shapes,
            outputs=outputs,
            macs=macs,
            parameter_count=sum(value.stored_elements for value in distinct),
        )
        inner_loops = (*loops, LOOP_SYMBOL) if node.op_type in REPEATING_OPS else loops
        for attribute, inner in _named_graphs(node).items():
            inner_path = f"{path}/{name}.{attribute}" if path else f"{name}.{attribute}"
            yield from _layers(inner, inner_path, values, inner_loops)


@dataclass(frozen=True)
class _Value:
    """What is known of a value: its shape, and how many elements are stored if it is constant."""

    shape: Shape | None
    stored_elements: int = 0


UNKNOWN_VALUE = _Value(None)


def _values(graph: GraphProto) -> dict[str, _Value]:
    found = {
        info.name: _Value(_shape(info.type))
        for info in (*graph.output, *graph.input, *graph.value_info)
    }
    stored = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if op_name(node) == "Constant" and node.output:
            stored += [(node.output[0], a.t) for a in node.attribute if a.HasField("t")]
    found |= {name: _Value(tuple(tensor.dims), _elements(tensor)) for name, tensor in stored}
    return found


def _elements(tensor: TensorProto) -> int:
    return math.prod(tensor.dims)


def _shape(type_proto: TypeProto) -> Shape | None:
    dims = dims_of(type_proto)
    if dims is None:
        return None
    # "unk__7" is what inference calls a dimension it knows nothing of
    return tuple(None if isinstance(d, str) and d.startswith("unk__") else d for d in dims)


def _named_graphs(node: NodeProto) -> dict[str, GraphProto]:
    """The node's graph attributes by name; lists of graphs get an index."""
    found: dict[str, GraphProto] = {}
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH or attribute.HasField("g"):
            found[attribute.name] = attribute.g
        found |= {f"{attribute.name}[{i}]": graph for i, graph in enumerate(attribute.graphs)}
    return found
