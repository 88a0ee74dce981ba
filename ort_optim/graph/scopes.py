"""Tensor names that are unique over all graphs of a model.

ONNX lets two branches use one name for different tensors, and files exist in which a subgraph's
name hides one of the graph around it. Passes move nodes and tensors between graphs, so both are
renamed while loading. Inputs and outputs of subgraphs stay as they are where the operator is not a
standard one: BeamSearch of com.microsoft, for one, knows them by their names.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto

from ort_optim.graph.names import Names
from ort_optim.graph.walk import STANDARD_DOMAINS, node_graphs, subgraphs


def make_names_unique(model: ModelProto) -> int:
    """Rename tensors of subgraphs in place; how many hid a name of a graph around them."""
    taken = Names(name for graph in subgraphs(model.graph) for name in _own_names(graph))
    outermost = _own_names(model.graph)
    scope = ChainMap({name: name for name in outermost})
    used = set(outermost)
    return sum(_rename_inner(node, scope, used, taken) for node in model.graph.node)


def _own_names(graph: GraphProto) -> list[str]:
    """The names a graph defines, each once, in the order of definition."""
    names = [value.name for value in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    names += [name for node in graph.node for name in node.output]
    return [name for name in dict.fromkeys(names) if name]


def _rename_inner(node: NodeProto, scope: ChainMap[str, str], used: set[str], taken: Names) -> int:
    hidden = 0
    for graph in node_graphs(node):
        fixed: set[str] = set()
        if node.domain not in STANDARD_DOMAINS:
            fixed.update(value.name for value in (*graph.input, *graph.output))
        hidden += _rename(graph, scope, used, taken, fixed)
    return hidden


def _rename(
    graph: GraphProto,
    around: ChainMap[str, str],
    used: set[str],
    taken: Names,
    fixed: Collection[str],
) -> int:
    """`around` maps the original names of the graphs around to their new ones, `used` holds all
    final names so far, `taken` every name that a new one must differ from, `fixed` those that
    must not change."""
    hidden = 0
    scope = around.new_child()
    for name in _own_names(graph):
        scope[name] = name
        if name in fixed:
            continue
        hidden += name in around
        if name in used:
            scope[name] = taken.numbered(name)
        used.add(scope[name])
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name in scope:
                    field[index] = scope[name]
        hidden += _rename_inner(node, scope, used, taken)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = scope.get(value.name, value.name)
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        tensor.name = scope.get(tensor.name, tensor.name)
    for note in graph.quantization_annotation:
        note.tensor_name = scope.get(note.tensor_name, note.tensor_name)
    return hidden
