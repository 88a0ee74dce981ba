"""Consecutive Transposes become one, or nothing.

    Transpose(Transpose(x, p), q)   =>  Transpose(x, r)   with r[i] = p[q[i]]
                                    =>  x                 if r is the identity

The first one must go when the pair becomes one: (1) it is merged into all its readers at once, if
they all are Transposes, or not at all.
"""

from __future__ import annotations

from ort_optim.graph.view import Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop
from ort_optim.passes.common.movement import permutation

NAME = "transpose-chain"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Merge one Transpose into the Transposes that read it."""
    source, out = node.inputs[0], node.outputs[0]
    first = permutation(node)
    if first is None:
        return
    composed: dict[Node, tuple[int, ...]] = {}
    for reader in list(out.outputs):
        second = permutation(reader) if reader.is_op("Transpose") else None
        if second is None or reader.graph is not graph:
            continue
        both = tuple(first[axis] for axis in second)
        undone = list(both) == sorted(both)
        if undone and drop(NAME, reader, source, ctx, "it undoes the Transpose before it"):
            continue
        composed[reader] = both
    if out.is_output or not composed or len(composed) != len(out.outputs):  # (1)
        return
    if ctx.fuel(NAME, node, "goes into the Transposes after it"):
        for reader, perm in composed.items():
            graph.replace(reader, "Transpose", [source], perm=perm)
        graph.remove(node)


PASS = NodePass(NAME, frozenset({"Transpose"}), rewrite)
