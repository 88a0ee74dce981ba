"""Elementwise operators that undo or repeat the one before them.

(1) f(f(x)) => x      Not, Neg
(2) f(g(x)) => g(x)   f = g = Sign; any two of Floor, Ceil, Round; Abs or Relu of what is never
                      negative: Abs, Relu, Sigmoid, HardSigmoid, Exp

Exact for every x.
"""

from __future__ import annotations

from ort_optim.graph.view import Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop
from ort_optim.passes.common.match import producer

NAME = "repeated-op"

_UNDO_THEMSELVES = frozenset({"Not", "Neg"})
_ROUNDING = ("Floor", "Ceil", "Round")
_NEVER_NEGATIVE = ("Abs", "Relu", "Sigmoid", "HardSigmoid", "Exp")
_CHANGE_NOTHING_AFTER = {
    "Sign": ("Sign",),
    "Floor": _ROUNDING,
    "Ceil": _ROUNDING,
    "Round": _ROUNDING,
    "Abs": _NEVER_NEGATIVE,
    "Relu": _NEVER_NEGATIVE,
}


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Remove one node that the node before it makes superfluous."""
    if node.op in _UNDO_THEMSELVES:
        before = producer(node.inputs[0], node.op)
        if before is not None:  # (1)
            drop(NAME, node, before.inputs[0], ctx, f"{node.op} twice is nothing")
        return
    before = producer(node.inputs[0], *_CHANGE_NOTHING_AFTER[node.op])
    if before is not None:  # (2)
        drop(NAME, node, node.inputs[0], ctx, f"after {before.op} it changes nothing")


PASS = NodePass(NAME, _UNDO_THEMSELVES | _CHANGE_NOTHING_AFTER.keys(), rewrite)
