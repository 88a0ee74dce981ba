"""Batch normalization folded into the linear layer before it, else into the one after it.

    L(x) -> BatchNormalization   =>  L'(x)     L is Conv, ConvTranspose, Gemm, MatMul or another
                                               BatchNormalization
    BatchNormalization(x) -> L   =>  L'(x)     L is Conv, ConvTranspose, Gemm or MatMul

BatchNormalization(x) = s x + t per channel, with s = scale / sqrt(var + epsilon) and
t = B - mean s; `layers.batch_normalization_terms` says when it is that, `folding.py` when it can
be folded, and here it matters besides that

(1) the layer has as many channels as the normalization;
(2) after a MatMul the channels are the last axis only if the input is known to be a matrix.

A normalization that stays is left as it is: as Mul and Add it is one node more, and slower
(1x64x56x56 between two depthwise convolutions, one thread: 0.13 ms as it is, 0.19 ms as Mul and
Add; ONNX Runtime runs it as a depthwise convolution in its blocked layout).
"""

from __future__ import annotations

from ort_optim.graph.view import Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.folding import into_consumer, into_producer
from ort_optim.passes.common.layers import OPS, batch_normalization_terms, layer_of
from ort_optim.passes.common.match import producer, sole_consumer

NAME = "batch-norm"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Fold one BatchNormalization."""
    before = producer(node.inputs[0], *OPS)
    after = sole_consumer(node.outputs[0], "Conv", "ConvTranspose", "Gemm", "MatMul")
    if before is None and after is None:
        return ctx.refuse(NAME, node, "no linear layer before or after it")
    terms = batch_normalization_terms(node)
    if isinstance(terms, str):
        return ctx.refuse(NAME, node, terms)
    if before is not None:
        layer = layer_of(before)
        if isinstance(layer, str):
            ctx.refuse(NAME, node, f"{before.op} before it: {layer}")
        elif layer.outputs != len(terms[0]):  # (1)
            ctx.refuse(NAME, node, f"{before.op} before it has another number of channels")
        elif layer.rank is None or layer.trailing != layer.rank - 2:  # (2)
            ctx.refuse(NAME, node, f"{before.op} before it: its input is not a matrix")
        elif into_producer(NAME, node, layer, terms, graph, ctx):
            return None
    if after is not None and after.inputs[0] is node.outputs[0]:
        layer = layer_of(after)
        if isinstance(layer, str):
            ctx.refuse(NAME, node, f"{after.op} after it: {layer}")
        elif layer.inputs != len(terms[0]):  # (1)
            ctx.refuse(NAME, node, f"{after.op} after it has another number of channels")
        elif layer.rank is None or layer.trailing != layer.rank - 2:  # (2)
            ctx.refuse(NAME, node, f"{after.op} after it: its input is not a matrix")
        else:
            into_consumer(NAME, node, node.inputs[0], layer, terms, graph, ctx)
    return None


PASS = NodePass(NAME, frozenset({"BatchNormalization"}), rewrite)
