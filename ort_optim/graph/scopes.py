"""Tensor names that are unique over all graphs of a model.

ONNX lets two branches use one name for different tensors, and files exist in which a subgraph's
name hides one of the graph around it. Passes move nodes and tensors between graphs, so both are
renamed while loading. Inputs and outputs of subgraphs stay as they are where the operator is not a
standard one: BeamSearch of com.microsoft, for one, knows them by their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from ort_optim.graph.load import subgraphs

STANDARD_DOMAINS = ("", "ai.onnx")


def make_names_unique(model: ModelProto) -> int:
    """Rename tensors of subgraphs in place; how many hid a name of a graph around them."""
    taken: set[str] = set()
    for graph in subgraphs(model.graph):
        taken.update(_own_names(graph))
    outermost = _own_names(model.graph)
    used, visible = set(outermost), frozenset(outermost)
    return sum(_rename_inner(node, {}, visible, used, taken) for node in model.graph.node)


def _own_names(graph: GraphProto) -> list[str]:
    """The names a graph defines, each once, in the order of definition."""
    names = [value.name for value in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    names += [name for node in graph.node for name in node.output]
    return [name for name in dict.fromkeys(names) if name]


def _rename_inner(
    node: NodeProto,
    renamed: Mapping[str, str],
    visible: frozenset[str],
    used: set[str],
    taken: set[str],
) -> int:
    hidden = 0
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            fixed: set[str] = set()
            if node.domain not in STANDARD_DOMAINS:
                fixed.update(value.name for value in (*graph.input, *graph.output))
            hidden += _rename(graph, renamed, visible, used, taken, fixed)
    return hidden


def _rename(
    graph: GraphProto,
    renamed: Mapping[str, str],
    visible: frozenset[str],
    used: set[str],
    taken: set[str],
    fixed: Collection[str],
) -> int:
    """`renamed` holds the new names of the graphs around, `visible` their original ones, `used`
    all final names so far, `taken` every name that a new one must differ from, `fixed` those that
    must not change."""
    hidden = 0
    scope = dict(renamed)
    own = _own_names(graph)
    for name in own:
        scope.pop(name, None)
        if name in fixed:
            continue
        hidden += name in visible
        if name in used:
            scope[name] = _fresh(name, taken)
        used.add(scope.get(name, name))
    inner_visible = visible.union(own)
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name in scope:
                    field[index] = scope[name]
        hidden += _rename_inner(node, scope, inner_visible, used, taken)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = scope.get(value.name, value.name)
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        tensor.name = scope.get(tensor.name, tensor.name)
    for note in graph.quantization_annotation:
        note.tensor_name = scope.get(note.tensor_name, note.tensor_name)
    return hidden


def _fresh(name: str, taken: set[str]) -> str:
    fresh = next(f"{name}_{n}" for n in itertools.count(1) if f"{name}_{n}" not in taken)
    taken.add(fresh)
    return fresh
