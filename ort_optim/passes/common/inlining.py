"""Moves the nodes of a subgraph into the graph around it, in the place of the node that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ort_optim.graph.view import Constant, Graph, Node, Tensor


def copies_needed(owner: Node, body: Graph, results: Sequence[Tensor]) -> int:
    """How many Identity nodes `inline` has to add for outputs of the graph around."""
    made = {out for node in body.nodes for out in node.outputs}
    count = 0
    for out, result in zip(owner.outputs, results, strict=True):
        if out.name and out.is_output:
            count += result not in made
            made.discard(result)  # two outputs of a graph can't be one tensor
    return count


def inline(
    owner: Node, body: Graph, arguments: Mapping[Tensor, Tensor], results: Sequence[Tensor]
) -> None:
    """Put the nodes of `body`, a subgraph of `owner`, in the owner's place and remove the owner.

    `arguments` are what the body's inputs stand for, `results` the tensors that become the
    owner's outputs: tensors of the body, or of graphs around. Tensors of the body get fresh
    names, as another subgraph may have the same ones. The body is empty afterwards.
    """
    graph = owner.graph
    assert graph is not None
    outputs = list(owner.outputs)
    for source, argument in arguments.items():
        graph.redirect(source, argument)
    stands_for = {**arguments, **{old: _adopt(old, graph) for old in body.constants.values()}}
    moved, body.nodes = body.nodes, []
    made = {out: node for node in moved for out in node.outputs}
    for out in made:
        out.is_output = False
        if out.name:
            out.name = graph.fresh_name(out.name)
    for node in moved:
        for below in node.subgraphs():
            below.parent = graph
    graph.insert(moved, at=owner)
    graph.remove(owner)
    for out, result in zip(outputs, results, strict=True):
        source = stands_for.get(result, result)
        if not out.name:
            continue
        if not out.is_output:
            graph.redirect(out, source)
        elif source in made:
            producer = made.pop(source)
            graph.redirect(source, out)
            producer.outputs[[id(each) for each in producer.outputs].index(id(source))] = out
            stands_for[source] = out
        else:
            graph.insert([graph.make("Identity", [source], [out], like=owner)], at=owner)


def _adopt(constant: Constant, graph: Graph) -> Constant:
    """The same constant as an initializer of `graph`."""
    made = constant.renamed(graph.fresh_name(constant.name))
    graph.constants[made.name] = made
    graph.redirect(constant, made)
    return made
