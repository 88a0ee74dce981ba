"""Elementwise operators, and activations written out."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from onnx import TensorProto, numpy_helper

from tests.random_graphs.builder import Builder, F, Step, UnfitError, Value


def identity(b: Builder, x: Value) -> None:
    b.unary("Identity", x)


def dropout(b: Builder, x: Value) -> None:
    b.unary("Dropout", x)


def cast(b: Builder, x: Value) -> None:
    wide = b.node("Cast", [x.name], to=b.pick(F, TensorProto.DOUBLE))
    b.add(b.node("Cast", [wide], to=F), x.shape)


def activation(b: Builder, x: Value) -> None:
    op = b.pick("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "LeakyRelu", "Elu", "Softplus", "Selu")
    b.unary(op, x)


def clip(b: Builder, x: Value) -> None:
    low, high = sorted(b.pick((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-3.0, 2.0)))
    if b.opset < 11:
        b.unary("Clip", x, min=low, max=high)
    else:
        b.add(b.node("Clip", [x.name, b.weight(low), b.weight(high)]), x.shape)


def clip_by_min_and_max(b: Builder, x: Value) -> None:
    below = b.node("Max", [x.name, b.weight(0.0)])
    b.add(b.node("Min", [below, b.weight([6.0])]), x.shape if x.rank else (1,))


def sigmoid_times_x(b: Builder, x: Value) -> None:
    gate = b.node("Sigmoid", [x.name])
    b.add(b.node("Mul", b.pick([x.name, gate], [gate, x.name])), x.shape)


def hard_swish(b: Builder, x: Value) -> None:
    shifted = b.node("Add", [x.name, b.weight(3.0)])
    if b.opset < 11:
        clipped = b.node("Clip", [shifted], min=0.0, max=6.0)
    else:
        clipped = b.node("Clip", [shifted, b.weight(0.0), b.weight(6.0)])
    if b.pick(True, False):
        gate = b.node("Div", [clipped, b.weight(6.0)])
        b.add(b.node("Mul", [x.name, gate]), x.shape)
    else:
        product = b.node("Mul", [x.name, clipped])
        b.add(b.node("Div", [product, b.weight(6.0)]), x.shape)


def gelu_by_erf(b: Builder, x: Value) -> None:
    if b.opset < 9:
        raise UnfitError
    erf = b.node("Erf", [b.node("Div", [x.name, b.weight(np.sqrt(2))])])
    product = b.node("Mul", [x.name, b.node("Add", [erf, b.weight(1.0)])])
    b.add(b.node("Mul", [product, b.weight(0.5)]), x.shape)


def gelu_by_tanh(b: Builder, x: Value) -> None:
    bounded = b.unary("Tanh", x)
    cube = b.node("Pow", [bounded.name, b.weight(3.0)])
    inner = b.node("Add", [bounded.name, b.node("Mul", [cube, b.weight(0.044715)])])
    tanh = b.node("Tanh", [b.node("Mul", [inner, b.weight(np.sqrt(2 / np.pi))])])
    half = b.node("Mul", [bounded.name, b.weight(0.5)])
    b.add(b.node("Mul", [half, b.node("Add", [tanh, b.weight(1.0)])]), x.shape)


def mish(b: Builder, x: Value) -> None:
    tanh = b.node("Tanh", [b.node("Softplus", [x.name])])
    b.add(b.node("Mul", [x.name, tanh]), x.shape)


def arithmetic_with_constant(b: Builder, x: Value) -> None:
    op = b.pick("Add", "Sub", "Mul", "Div")
    kinds = [(), (1,)]
    if x.rank:
        kinds.append((x.shape[-1],))
    if x.rank >= 3:
        kinds.append((x.shape[1], *[1] * (x.rank - 2)))
        kinds.append((1, x.shape[1], *[1] * (x.rank - 2)))
    shape = b.pick(*kinds)
    constant = b.random(*shape)
    if b.pick(True, False, False):  # what makes the operation do nothing
        constant = np.full(shape, 0.0 if op in ("Add", "Sub") else 1.0, np.float32)
    elif op == "Div":
        constant = np.where(constant < 0, constant - 0.5, constant + 0.5)
    names = [x.name, b.weight(constant)]
    if op in ("Add", "Mul", "Sub") and b.pick(True, False):
        names.reverse()
    b.add(b.node(op, names), np.broadcast_shapes(x.shape, shape))


def arithmetic_of_two(b: Builder, x: Value) -> None:
    same = [each for each in b.values if each.shape == x.shape]
    other = b.draw(st.sampled_from(same))
    b.add(b.node(b.pick("Add", "Sub", "Mul", "Max", "Min"), [x.name, other.name]), x.shape)


def power(b: Builder, x: Value) -> None:
    if b.pick(True, False):
        b.add(b.node("Pow", [x.name, b.weight(b.pick(1.0, 2.0))]), x.shape)
    else:
        above = b.node("Add", [b.node("Abs", [x.name]), b.weight(1.0)])
        b.add(b.node("Pow", [above, b.weight(b.pick(0.5, -0.5, -1.0))]), x.shape)


def where(b: Builder, x: Value) -> None:
    if b.opset < 9 or not x.rank:
        raise UnfitError
    mask = b.weight(b.rng.integers(0, 2, x.shape[-1:]), np.bool_)
    b.add(b.node("Where", [mask, x.name, b.weight(b.pick(0.0, 1.0))]), x.shape)


def twin(b: Builder, x: Value) -> None:
    """The same computation twice."""
    op = b.pick("Relu", "Tanh", "Sigmoid")
    b.add(b.node("Add", [b.node(op, [x.name]), b.node(op, [x.name])]), x.shape)


def constant_subgraph(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    made = b.node("Mul", [b.weight(b.random(x.shape[-1])), b.weight(b.random(1))])
    b.add(b.node("Add", [x.name, b.node("Abs", [made])]), x.shape)


def expand_by_shape(b: Builder, x: Value) -> None:
    row = b.weight(b.random(1))
    b.add(b.node("Expand", [row, b.node("Shape", [x.name])]), x.shape or (1,))


def constant_of_shape(b: Builder, x: Value) -> None:
    if b.opset < 9 or not x.rank:
        raise UnfitError
    value = numpy_helper.from_array(np.array([b.pick(0.0, 1.0, 0.5)], np.float32))
    filled = b.node("ConstantOfShape", [b.node("Shape", [x.name])], value=value)
    b.add(b.node(b.pick("Add", "Mul"), [x.name, filled]), x.shape)


def leaky_rectifier(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    form = b.pick("max", "prelu", "relus")
    if form == "prelu":
        b.add(b.node("PRelu", [x.name, b.weight(b.pick([0.25], [1.5]))]), x.shape)
    elif form == "max":
        b.add(b.node("Max", [x.name, b.node("Mul", [x.name, b.weight(0.1)])]), x.shape)
    else:
        below = b.node("Relu", [b.node("Neg", [x.name])])
        scaled = b.node("Mul", [below, b.weight([0.2])])
        b.add(b.node("Sub", [b.node("Relu", [x.name]), scaled]), x.shape)


def scale_and_shift(b: Builder, x: Value) -> None:
    if x.rank != 4:
        raise UnfitError
    shape = (x.shape[1], 1, 1)
    product = b.node("Mul", [x.name, b.weight(b.random(*shape))])
    b.add(b.node("Add", [product, b.weight(b.random(*shape))]), x.shape)


STEPS: tuple[Step, ...] = (
    identity,
    dropout,
    cast,
    activation,
    clip,
    clip_by_min_and_max,
    sigmoid_times_x,
    hard_swish,
    gelu_by_erf,
    gelu_by_tanh,
    mish,
    arithmetic_with_constant,
    arithmetic_of_two,
    power,
    where,
    twin,
    constant_subgraph,
    expand_by_shape,
    constant_of_shape,
    leaky_rectifier,
    scale_and_shift,
)
