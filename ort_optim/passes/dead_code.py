"""Dead code: nodes whose outputs nobody reads, and weights that no node uses.

    x -> Conv -> y (unused)         =>  nothing
    initializer that nothing reads  =>  nothing

No ONNX operator does anything but compute its outputs, so a node is dead when none of them is read
or given out. Initializers of any graph that nothing reads go with it.
"""

from __future__ import annotations

from ort_optim.graph.view import Graph
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.match import is_used

NAME = "dead-code"


def rewrite(root: Graph, ctx: Context) -> None:
    """Remove dead nodes from the end of each graph to its start, then unused constants."""
    for graph in list(root.walk()):
        for node in reversed(graph.nodes):
            if node.dead or any(is_used(out) for out in node.outputs):
                continue
            if ctx.fuel(NAME, node, "no output is used"):
                graph.remove(node)
    for graph in list(root.walk()):
        graph.settle()
        for constant in list(graph.constants.values()):
            if not is_used(constant):
                graph.drop_constant(constant)


PASS = GraphPass(NAME, rewrite)
