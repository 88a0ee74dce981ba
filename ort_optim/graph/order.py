"""Topological order that changes as little as possible."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from onnx import GraphProto, NodeProto

from ort_optim.graph.walk import node_graphs, subgraphs


def sort_nodes(nodes: Sequence[NodeProto]) -> list[NodeProto] | None:
    """The nodes so that each comes after those it reads from, None if there is a cycle.

    Among the nodes that may come next, the one that stood first goes first, so a list that is in
    order comes back as it was. What a subgraph reads counts as read by the node that holds it.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [
        {producer[name] for name in reads(node) if name in producer} - {i}
        for i, node in enumerate(nodes)
    ]
    users: list[list[int]] = [[] for _ in nodes]
    for i, needed in enumerate(needs):
        for j in needed:
            users[j].append(i)
    missing = [len(needed) for needed in needs]
    ready = [i for i, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    ordered: list[NodeProto] = []
    while ready:
        i = heapq.heappop(ready)
        ordered.append(nodes[i])
        for j in users[i]:
            missing[j] -= 1
            if missing[j] == 0:
                heapq.heappush(ready, j)
    return ordered if len(ordered) == len(nodes) else None


def reads(node: NodeProto) -> list[str]:
    """The names a node reads, those its subgraphs capture included."""
    names = [name for name in node.input if name]
    for graph in node_graphs(node):
        names.extend(_captures(graph))
    return names


def _captures(graph: GraphProto) -> list[str]:
    own = {value.name for value in graph.input}
    own.update(tensor.name for tensor in graph.initializer)
    own.update(sparse.values.name for sparse in graph.sparse_initializer)
    own.update(name for node in graph.node for name in node.output)
    wanted = [name for node in graph.node for name in reads(node)]
    wanted.extend(value.name for value in graph.output)
    return [name for name in wanted if name not in own]


def sort_graph(graph: GraphProto) -> bool:
    """Sort a graph and its subgraphs in place; whether anything moved. Cycles are left alone."""
    moved = False
    for each in subgraphs(graph):
        ordered = sort_nodes(each.node)
        if ordered is None or all(a is b for a, b in zip(ordered, each.node, strict=True)):
            continue
        copies = []
        for node in ordered:
            copy = NodeProto()
            copy.CopyFrom(node)
            copies.append(copy)
        del each.node[:]
        each.node.extend(copies)
        moved = True
    return moved
