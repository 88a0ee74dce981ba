"""A Concat that only a Concat of the same axis reads becomes part of it.

    Concat(a, Concat(b, c), d)   =>  Concat(a, b, c, d)

(1) nothing else reads the inner one; (2) both axes are known to be the same.
"""

from __future__ import annotations

from ort_optim.graph.view import Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import attr, producer, rank, sole_consumer
from ort_optim.passes.common.movement import normalized_axis

NAME = "concat-chain"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Take the Concats that this one alone reads into it."""
    inner = [
        before
        for tensor in node.inputs
        if (before := producer(tensor, "Concat")) is not None
        and sole_consumer(before.outputs[0]) is node  # (1)
        and _same_axis(node, before)  # (2)
    ]
    if not inner:
        return
    if ctx.fuel(NAME, node, f"takes in {len(inner)} Concat before it"):
        inputs: list[Tensor] = []
        for tensor in node.inputs:
            before = producer(tensor, "Concat")
            inputs.extend(before.inputs if before in inner and before is not None else [tensor])
        graph.replace(node, "Concat", inputs, **node.attrs)
        for before in inner:
            graph.remove(before)


def _same_axis(outer: Node, inner: Node) -> bool:
    axes = [attr(node, "axis", 1) for node in (outer, inner)]
    if axes[0] == axes[1]:
        return True
    known = rank(outer.outputs[0])
    if known is None:
        known = rank(inner.outputs[0])
    normalized = [normalized_axis(axis, known) for axis in axes]
    return None not in normalized and normalized[0] == normalized[1]


PASS = NodePass(NAME, frozenset({"Concat"}), rewrite)
