"""Multiplication and addition of per-channel constants, folded into the linear layer beside them.

    L(x) * c     c * L(x)     L(x) / c       =>  L'(x)
    L(x) + c     c + L(x)     L(x) - c       =>  L'(x)
    c - L(x)                                 =>  L'(x)
    L(x * c)     L(x / c)     L(x + c) ...   =>  L'(x)
    (MatMul(x, W) + b) * c                   =>  MatMul(x, c W) + c b

L is Conv, ConvTranspose, Gemm, MatMul or, before the constant, BatchNormalization; chains fold
one link at a time. `folding.py` has the conditions all of these share. Here:

(1) c is one value, or one per channel in the axis of the channels and 1 in all others, and has no
    more dimensions than x: broadcasting leaves the shape alone;
(2) x has the layer's number of channels, which needs to be known where c comes before the layer;
(3) a divisor has no zero: c / L(x) is not linear and stays;
(4) operators before opset 7 broadcast by attributes, and are left alone;
(5) c is not the last factor of a GELU, nor the scale or bias of a normalization, written out: with
    it ONNX Runtime fuses those, without it does not;
(6) a MatMul of matrices takes an addend as Gemm, any other MatMul only a factor: ONNX Runtime
    runs MatMul and Add of higher rank better than a Gemm between two Reshapes.
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.folding import Terms, into_consumer, into_producer
from ort_optim.passes.common.layers import (
    OPS,
    Layer,
    channel_vector,
    fold_after,
    layer_of,
    replace_layer,
)
from ort_optim.passes.common.match import ends_fused_pattern, producer, rank, sole_consumer

NAME = "affine"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Fold one Mul, Div, Add or Sub with a constant."""
    operands = operand_and_constant(node)
    if operands is None or graph.opset < 7:  # (4)
        return
    x, constant = operands
    before = producer(x, *OPS)
    if before is not None and before.outputs[0] is x:
        layer = layer_of(before)
        if isinstance(layer, str):
            ctx.refuse(NAME, node, f"{before.op} before it: {layer}")
        elif _fold_after(node, constant, layer, graph, ctx):
            return
    elif _fold_through_bias(node, x, constant, graph, ctx):
        return
    after = sole_consumer(node.outputs[0], "Conv", "ConvTranspose", "Gemm", "MatMul")
    if after is not None and after.inputs[0] is node.outputs[0]:
        layer = layer_of(after)
        if ends_fused_pattern(x):
            ctx.refuse(NAME, node, "ONNX Runtime fuses it with what comes before")  # (5)
        elif isinstance(layer, str):
            ctx.refuse(NAME, node, f"{after.op} after it: {layer}")
        else:
            _fold_before(node, x, constant, layer, graph, ctx)


def operand_and_constant(node: Node) -> tuple[Variable, Constant] | None:
    """The computed and the constant operand of a binary node, if it has one of each."""
    left, right = node.inputs
    if isinstance(left, Constant) == isinstance(right, Constant):
        return None
    return (right, left) if isinstance(left, Constant) else (left, right)


def terms_of(node: Node, constant: Constant, channels: int, trailing: int, top: int) -> Terms | str:
    """s and t with node(x) = s * x + t, for x of rank `top`; or why it is not that."""
    values = channel_vector(constant, channels, trailing, top)
    if values is None:
        return "the constant is not one value, or one per channel"  # (1)
    leads = node.inputs[0] is constant
    match node.op:
        case "Mul":
            return values, None
        case "Add":
            return None, values
        case "Sub":
            return (np.full(channels, -1.0), values) if leads else (None, -values)
    if leads or not np.all(values):
        return "a constant divided by the input, or a division by zero"  # (3)
    return 1.0 / values, None


def _fold_after(node: Node, constant: Constant, layer: Layer, graph: Graph, ctx: Context) -> bool:
    top = layer.rank if layer.rank is not None else 1
    terms = terms_of(node, constant, layer.outputs, layer.trailing, top)
    if isinstance(terms, str):
        ctx.refuse(NAME, node, terms)
        return False
    return into_producer(NAME, node, layer, terms, graph, ctx)


def _fold_through_bias(
    node: Node, x: Variable, constant: Constant, graph: Graph, ctx: Context
) -> bool:
    """Rewrite (MatMul(x, W) + b) * c as MatMul(x, c W) + c b."""
    add = producer(x, "Add") if node.op in ("Mul", "Div") else None
    operands = operand_and_constant(add) if add is not None else None
    if add is None or operands is None or sole_consumer(x) is not node:
        return False
    product, bias = operands
    matmul = producer(product, "MatMul")
    if matmul is None or sole_consumer(product) is not add:
        return False
    layer = layer_of(matmul)
    if isinstance(layer, str):
        return False
    top = layer.rank if layer.rank is not None else 1
    terms = terms_of(node, constant, layer.outputs, 0, top)
    if isinstance(terms, str) or terms[0] is None or len(bias.shape) > top:
        return False
    folded = fold_after(layer, terms[0], None)
    with np.errstate(over="ignore"):
        scaled = (bias.values.astype(np.float64) * terms[0]).astype(bias.dtype)
    if isinstance(folded, str) or not np.all(np.isfinite(scaled.astype(np.float64))):
        ctx.refuse(NAME, node, "a weight would lose precision or overflow")
        return False
    reason = graph.can_bypass(node, x)
    if reason is None and folded.grows_bytes > ctx.max_growth_bytes:
        reason = "its weight is shared, and a copy would make the model grow too much"
    if reason is not None:
        ctx.refuse(NAME, node, reason)
        return False
    if not ctx.fuel(NAME, node, f"into MatMul {matmul.key} and the Add after it"):
        return False
    replace_layer(graph, layer, folded)
    made = graph.constant(scaled, f"{bias.name}_folded")
    graph.replace(add, "Add", [made if tensor is bias else tensor for tensor in add.inputs])
    graph.bypass(node, x)
    return True


def _fold_before(
    node: Node, x: Variable, constant: Constant, layer: Layer, graph: Graph, ctx: Context
) -> None:
    known = rank(x)
    if math.prod(constant.shape) > 1 and not _has_channels(x, layer):
        return ctx.refuse(NAME, node, "the channels of its input are not known")  # (2)
    if known is None and len(constant.shape) > 1:
        return ctx.refuse(NAME, node, "the rank of its input is not known")  # (1)
    terms = terms_of(node, constant, layer.inputs, layer.trailing, 1 if known is None else known)
    if isinstance(terms, str):
        return ctx.refuse(NAME, node, terms)
    into_consumer(NAME, node, x, layer, terms, graph, ctx)
    return None


def _has_channels(x: Tensor, layer: Layer) -> bool:
    known = rank(x)
    if known is None or known != layer.rank:
        return False
    return bool(x.shape[known - 1 - layer.trailing] == layer.inputs)


PASS = NodePass(NAME, frozenset({"Mul", "Div", "Add", "Sub"}), rewrite)
