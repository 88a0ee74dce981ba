"""How a node that computes s * x + t per channel disappears into the layer before or after it.

`batch_norm.py` and `affine.py` find s and t; the rewriting itself, with its conditions, is here:

(1) nothing else reads the tensor between the two;
(2) the node leaves the shape of that tensor as it is;
(3) the layer has constant weights, and rounding the new ones loses no more than rounding does;
(4) a shift needs a bias, and before the layer also an input without padding;
(5) weights that others share are not copied beyond the growth limit.
"""

from __future__ import annotations

from ort_optim.graph.view import Graph, Node, Tensor
from ort_optim.passes.base import Context
from ort_optim.passes.common.layers import (
    Folded,
    Layer,
    Vector,
    fold_after,
    fold_before,
    replace_layer,
)
from ort_optim.passes.common.match import sole_consumer

Terms = tuple[Vector | None, Vector | None]
"""Scale s and shift t, one value per channel; None for a factor of 1 or a term of 0."""


def into_producer(
    name: str, node: Node, layer: Layer, terms: Terms, graph: Graph, ctx: Context
) -> bool:
    """Rewrite node(L(x)) as L'(x), under the fuel of pass `name`; whether it was done."""
    if sole_consumer(layer.output) is not node:  # (1)
        ctx.refuse(name, node, f"something else reads the output of {layer.node.op}")
        return False
    folded = fold_after(layer, *terms)  # (3) (4)
    reason = _objection(folded, ctx) or graph.can_bypass(node, layer.output)
    if reason is not None or isinstance(folded, str):
        ctx.refuse(name, node, f"{layer.node.op} before it: {reason}")
        return False
    if not ctx.fuel(name, node, f"into {layer.node.op} {layer.node.key}"):
        return False
    output = layer.output
    replace_layer(graph, layer, folded)
    graph.bypass(node, output)
    return True


def into_consumer(
    name: str, node: Node, source: Tensor, layer: Layer, terms: Terms, graph: Graph, ctx: Context
) -> bool:
    """Rewrite L(node(source)) as L'(source), under the fuel of pass `name`; whether it was done.

    The caller knows that `layer` is the only reader of the node (1).
    """
    folded = fold_before(layer, *terms)  # (3) (4)
    reason = _objection(folded, ctx)
    if reason is not None or isinstance(folded, str):
        ctx.refuse(name, node, f"{layer.node.op} after it: {reason}")
        return False
    if not ctx.fuel(name, node, f"into {layer.node.op} {layer.node.key}"):
        return False
    replace_layer(graph, layer, folded, source)
    graph.remove(node)
    return True


def _objection(folded: Folded | str, ctx: Context) -> str | None:
    if isinstance(folded, str):
        return folded
    if folded.grows_bytes > ctx.max_growth_bytes:  # (5)
        return "its weight is shared, and a copy would make the model grow too much"
    return None
