"""Matrix products with what stands around them, as one Gemm.

    MatMul(A, B) + C                  =>  Gemm(A, B, C)
    Gemm(A, B) + C                    =>  Gemm(A, B, C)
    Gemm(Transpose(A), B), ...        =>  Gemm with transA or transB flipped
    MatMul(Transpose(A), B), ...      =>  Gemm(transA=1), the same for B
    MatMul(MatMul(x, V), W)           =>  MatMul(x, V W)            V and W constant

Conditions:

(1) A and B are known to be matrices of a floating-point type; products of higher rank stay, as
    Gemm with a Reshape on both sides is no faster in ONNX Runtime and more nodes;
(2) C is known to broadcast to the shape of the product without enlarging it;
(3) the opset has Gemm as it is today (7), and without C where C is absent (11);
(4) nothing else reads the tensor that disappears;
(5) neither A nor B is dequantized: ONNX Runtime has an integer MatMul for that, but no integer
    Gemm with such a C;
(6) V W is no larger than V and W together: a factorized layer stays factorized.

A factor or a row of constants beside a product with a constant weight is `affine.py`'s work.
"""

from __future__ import annotations

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.layers import HALF_ULP
from ort_optim.passes.common.match import (
    attr,
    input_or_none,
    is_float,
    producer,
    rank,
    sole_consumer,
)

NAME = "linear"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Rewrite one Add, Gemm or MatMul."""
    if graph.opset < 7:  # (3)
        return
    if node.is_op("Add"):
        _add(node, graph, ctx)
    elif not _transposed_operand(node, graph, ctx) and node.is_op("MatMul"):
        _product_of_constants(node, graph, ctx)


def _add(node: Node, graph: Graph, ctx: Context) -> None:
    """Product + C => Gemm."""
    for product, addend in (node.inputs, node.inputs[::-1]):
        matrix = producer(product, "MatMul", "Gemm")
        if matrix is None or sole_consumer(product) is not node:  # (4)
            continue
        reason = _no_gemm(matrix) or _no_addend(matrix, addend)
        if reason is not None:
            ctx.refuse(NAME, node, reason)
        elif ctx.fuel(NAME, node, f"into {matrix.op} {matrix.key}"):
            a, b = matrix.inputs[:2]
            attrs = {name: value for name, value in matrix.attrs.items() if name != "beta"}
            graph.replace(node, "Gemm", [a, b, addend], **attrs)  # here, where C exists
            graph.remove(matrix)
            return


def _transposed_operand(node: Node, graph: Graph, ctx: Context) -> bool:
    """Gemm or MatMul of a transposed matrix => Gemm of the matrix itself."""
    for index, flag in enumerate(("transA", "transB")):
        transpose = producer(node.inputs[index], "Transpose")
        if transpose is None or transpose.graph is not graph:
            continue
        source = transpose.inputs[0]
        if rank(source) != 2 or tuple(attr(transpose, "perm", (1, 0))) != (1, 0):
            continue
        reason = _no_gemm(node)
        if node.is_op("MatMul") and graph.opset < 11:
            reason = "Gemm without C needs opset 11"  # (3)
        elif sole_consumer(transpose.outputs[0]) is not node:
            reason = "something else reads the transposed matrix"  # (4)
        if reason is not None:
            ctx.refuse(NAME, node, reason)
        elif ctx.fuel(NAME, node, f"takes Transpose {transpose.key} into {flag}"):
            inputs = list(node.inputs)
            inputs[index] = source
            attrs = {**node.attrs, flag: 1 - int(attr(node, flag, 0))}
            graph.replace(node, "Gemm", inputs, **attrs)
            graph.remove(transpose)
            return True
    return False


def _product_of_constants(node: Node, graph: Graph, ctx: Context) -> None:
    """MatMul(MatMul(x, V), W) => MatMul(x, V W)."""
    inner = producer(node.inputs[0], "MatMul")
    outer_weight = node.inputs[1]
    if inner is None or not isinstance(outer_weight, Constant):
        return None
    inner_weight = inner.inputs[1]
    if not isinstance(inner_weight, Constant) or sole_consumer(inner.outputs[0]) is not node:
        return None  # (4)
    left, right = tuple(inner_weight.shape), tuple(outer_weight.shape)
    if len(left) != 2 or len(right) != 2 or inner_weight.dtype != outer_weight.dtype:
        return ctx.refuse(NAME, node, "the two weights are not matrices of one type")
    if inner_weight.dtype.name not in HALF_ULP:
        return ctx.refuse(NAME, node, "the weights are not of a floating-point type")  # (1)
    if left[0] * right[1] > left[0] * left[1] + right[0] * right[1]:
        return ctx.refuse(NAME, node, "the product of the weights is larger than both")  # (6)
    with np.errstate(over="ignore"):
        product = inner_weight.values.astype(np.float64) @ outer_weight.values.astype(np.float64)
        rounded = product.astype(inner_weight.dtype)
    if not np.all(np.isfinite(rounded.astype(np.float64))):
        return ctx.refuse(NAME, node, "the product of the weights would overflow")
    if ctx.fuel(NAME, node, f"with MatMul {inner.key}"):
        weight = graph.constant(rounded, f"{outer_weight.name}_product")
        graph.replace(node, "MatMul", [inner.inputs[0], weight])
        graph.remove(inner)
    return None


def _no_gemm(matrix: Node) -> str | None:
    """Why the node can't be, or stay, a Gemm with other operands; None if it can."""
    a, b = matrix.inputs[:2]
    if rank(a) != 2 or rank(b) != 2:
        return "a factor is not known to be a matrix"  # (1)
    if not (is_float(a) or is_float(b)):
        return "the factors are not known to be of a floating-point type"  # (1)
    if any(producer(each, "DequantizeLinear") is not None for each in (a, b)):
        return "a factor is dequantized"  # (5)
    return None


def _no_addend(matrix: Node, addend: Tensor) -> str | None:
    """Why `addend` can't be the C of the product; None if it can."""
    if matrix.is_op("Gemm") and input_or_none(matrix, 2) is not None:
        return "Gemm has a C already"
    a, b = matrix.inputs[:2]
    rows = a.shape[1 if attr(matrix, "transA", 0) else 0]
    columns = b.shape[0 if attr(matrix, "transB", 0) else 1]
    shape = addend.shape
    if shape is None or len(shape) > 2:
        return "the addend is not known to be a matrix or smaller"  # (2)
    for dim, wanted in zip(reversed(shape), (columns, rows), strict=False):
        if dim is None or dim not in (1, wanted):
            return "the addend is not known to have the product's shape"  # (2)
    return None


PASS = NodePass(NAME, frozenset({"Add", "Gemm", "MatMul"}), rewrite)
