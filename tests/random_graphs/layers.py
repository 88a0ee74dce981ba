"""Layers with weights, with what stands around them in real files, and normalizations."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np

from tests.random_graphs.builder import (
    Builder,
    Step,
    UnfitError,
    Value,
    pad_node,
    reduce_node,
)
from tests.random_graphs.elementwise import (
    activation,
    arithmetic_with_constant,
    clip,
    hard_swish,
    scale_and_shift,
    sigmoid_times_x,
)


def convolution(b: Builder, x: Value) -> None:
    """Conv with what stands around it in real files: Pad, BatchNormalization, factors, ReLU."""
    if x.rank != 4 or min(x.shape) < 1 or min(x.shape[2:]) < 2:
        raise UnfitError
    name, shape = x.name, list(x.shape)
    if b.pick(True, False):
        name, shape = pad_node(b, x)
    N, Cin, H, W = shape
    if Cin > 12 or H * W > 100:
        raise UnfitError
    group = b.pick(1, 1, Cin)
    Cout = group * b.pick(1, 2)
    K = b.pick(1, 2)
    pads = b.pick([0, 0, 0, 0], [1, 0, 0, 1])
    inputs = [name, b.weight(b.random(Cout, Cin // group, K, K))]
    if b.pick(True, False):
        inputs.append(b.weight(b.random(Cout) * b.pick(0, 1, 1)))
    out = b.node("Conv", inputs, group=group, kernel_shape=[K, K], pads=pads)
    made = b.add(out, (N, Cout, H + pads[0] + pads[2] - K + 1, W + pads[1] + pads[3] - K + 1))
    _after_layer(b, made)


def transposed_convolution(b: Builder, x: Value) -> None:
    if x.rank != 4 or min(x.shape) < 1 or x.shape[1] > 12 or x.shape[2] * x.shape[3] > 64:
        raise UnfitError
    N, Cin, H, W = x.shape
    group = b.pick(1, Cin)
    inputs = [x.name, b.weight(b.random(Cin, 2, 2, 2))]
    if b.pick(True, False):
        inputs.append(b.weight(b.random(2 * group)))
    out = b.node("ConvTranspose", inputs, group=group, kernel_shape=[2, 2], strides=[2, 2])
    _after_layer(b, b.add(out, (N, 2 * group, 2 * H, 2 * W)))


def batch_norm(b: Builder, x: Value) -> None:
    if x.rank < 2:
        raise UnfitError
    C = x.shape[1]
    statistics = [b.random(C), b.random(C), b.random(C), np.abs(b.random(C)) + 0.5]
    names = [x.name, *(b.weight(each) for each in statistics)]
    b.add(b.node("BatchNormalization", names, epsilon=1e-3), x.shape)


def pooling(b: Builder, x: Value) -> None:
    if x.rank != 4 or min(x.shape) < 1 or min(x.shape[2:]) < 2:
        raise UnfitError
    name, shape = x.name, list(x.shape)
    if b.pick(True, False):
        name, shape = pad_node(b, x)
    op = b.pick("MaxPool", "AveragePool", "GlobalAveragePool")
    if op == "GlobalAveragePool":
        b.add(b.node(op, [name]), (*shape[:2], 1, 1))
        return
    pads = b.pick([0, 0, 0, 0], [1, 1, 1, 1])
    attrs = {"count_include_pad": b.pick(0, 1)} if op == "AveragePool" else {}
    extents = [shape[i] + pads[0] * 2 - 1 for i in (2, 3)]
    b.add(b.node(op, [name], kernel_shape=[2, 2], pads=pads, **attrs), (*shape[:2], *extents))


def matmul(b: Builder, x: Value) -> None:
    if not x.rank or not 1 <= x.shape[-1] <= 40:
        raise UnfitError
    columns = b.pick(1, 3, 4)
    product = b.node("MatMul", [x.name, b.weight(b.random(x.shape[-1], columns))])
    made = b.add(product, (*x.shape[:-1], columns))
    if b.pick(True, False):
        b.add(b.node("Add", [made.name, b.weight(b.random(columns))]), made.shape)


def gemm(b: Builder, x: Value) -> None:
    if x.rank != 2 or not 1 <= min(x.shape) <= max(x.shape) <= 40:
        raise UnfitError
    rows, inner = x.shape
    columns = b.pick(1, 3)
    transA, transB = b.pick(0, 0, 1), b.pick(0, 1)
    if transA:
        rows, inner = inner, rows
    B = b.random(columns, inner) if transB else b.random(inner, columns)
    C = b.random(*b.pick((columns,), (1,), (rows, 1)))
    attrs = {
        "transA": transA,
        "transB": transB,
        "alpha": b.pick(1.0, 0.5),
        "beta": b.pick(1.0, 2.0),
    }
    inputs = [x.name, b.weight(B), b.weight(C)]
    made = b.add(b.node("Gemm", inputs, **attrs), (rows, columns))
    if b.pick(True, False):
        arithmetic_with_constant(b, made)


def softmax(b: Builder, x: Value) -> None:
    if not x.rank or x.size == 0:
        raise UnfitError
    b.unary(b.pick("Softmax", "LogSoftmax"), x, axis=x.rank - 1)


def lrn(b: Builder, x: Value) -> None:
    if x.rank != 4 or x.size == 0:
        raise UnfitError
    b.unary("LRN", x, size=b.pick(1, 3, 5), alpha=1e-2, beta=0.75, bias=1.0)


def layer_norm(b: Builder, x: Value) -> None:
    if not x.rank or x.shape[-1] < 2:
        raise UnfitError
    mean = reduce_node(b, "ReduceMean", x.name, [-1], keepdims=1)
    centred = b.node("Sub", [x.name, mean])
    square = b.pick(
        lambda: b.node("Pow", [centred, b.weight(2.0)]), lambda: b.node("Mul", [centred, centred])
    )()
    variance = reduce_node(b, "ReduceMean", square, [-1], keepdims=1)
    root = b.node("Sqrt", [b.node("Add", [variance, b.weight(1e-1)])])
    normal = b.node("Div", [centred, root])
    scaled = b.node("Mul", [normal, b.weight(b.random(x.shape[-1]))])
    b.add(b.node("Add", [scaled, b.weight(b.random(x.shape[-1]))]), x.shape)


def reduce(b: Builder, x: Value) -> None:
    if not x.rank or x.size == 0:
        raise UnfitError
    count = b.draw(st.integers(1, x.rank))
    axes = sorted(b.draw(st.permutations(range(x.rank)))[:count])
    keep = b.pick(0, 1)
    shape = [1 if i in axes else dim for i, dim in enumerate(x.shape) if keep or i not in axes]
    op = b.pick("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")
    b.add(reduce_node(b, op, x.name, axes, keepdims=keep), shape)


def spatial_mean(b: Builder, x: Value) -> None:
    if x.rank != 4 or x.size == 0:
        raise UnfitError
    b.add(reduce_node(b, "ReduceMean", x.name, [2, 3], keepdims=1), (*x.shape[:2], 1, 1))


def product_of_transposed(b: Builder, x: Value) -> None:
    if x.rank != 2 or not 1 <= min(x.shape) <= max(x.shape) <= 20:
        raise UnfitError
    rows, columns = x.shape
    turned = b.node("Transpose", [x.name], perm=[1, 0])
    if b.pick(True, False):
        product, size = b.node("MatMul", [turned, x.name]), columns
    else:
        product, size = b.node("MatMul", [x.name, turned]), rows
    b.add(b.node("Add", [product, b.weight(b.random(size))]), (size, size))


def products_in_a_row(b: Builder, x: Value) -> None:
    if not x.rank or not 1 <= x.shape[-1] <= 40:
        raise UnfitError
    first = b.node("MatMul", [x.name, b.weight(b.random(x.shape[-1], 3))])
    b.add(b.node("MatMul", [first, b.weight(b.random(3, 2))]), (*x.shape[:-1], 2))


def lstm(b: Builder, x: Value) -> None:
    """With initial states of zeros, as exporters write them."""
    if b.opset < 14 or x.rank != 3 or x.size == 0:
        raise UnfitError
    S, B, size = x.shape
    weights = [b.weight(b.random(1, 8, size)), b.weight(b.random(1, 8, 2))]
    states = [b.weight(np.zeros((1, B, 2))), b.weight(b.random(1, B, 2) * b.pick(0, 1))]
    names = [x.name, *weights, "", "", *states]
    b.add(b.node("LSTM", names, hidden_size=2), (S, 1, B, 2))


AFTER_LAYER: tuple[Step, ...] = (
    batch_norm,
    arithmetic_with_constant,
    scale_and_shift,
    activation,
    clip,
    sigmoid_times_x,
    hard_swish,
    spatial_mean,
)


def _after_layer(b: Builder, x: Value) -> None:
    for step in b.draw(st.lists(st.sampled_from(AFTER_LAYER), max_size=3)):
        step(b, b.values[-1])


STEPS: tuple[Step, ...] = (
    convolution,
    transposed_convolution,
    batch_norm,
    pooling,
    matmul,
    gemm,
    softmax,
    lrn,
    layer_norm,
    reduce,
    spatial_mean,
    product_of_transposed,
    products_in_a_row,
    lstm,
)
