"""Random small graphs out of the operators that the passes touch, valid by construction.

    graphs()      a hypothesis strategy of `RandomGraph`: a model, and inputs that fit it

`_Builder` keeps the concrete type and shape of every tensor, so each step adds only nodes that
run; sizes of inputs may be symbolic in the file all the same. Steps that would turn a rounding
error into a different answer (rounding, comparing, dividing by what may be zero) are left out or
kept away from floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSETS = (8, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21)
NEWEST_IR = {8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 17: 8, 18: 8, 20: 9, 21: 10}
MOST_ELEMENTS = 600

F = TensorProto.FLOAT
I64 = TensorProto.INT64


@dataclass(frozen=True)
class RandomGraph:
    """A model, and one set of inputs that it runs on."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Value:
    """A float tensor of the graph."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class UnfitError(Exception):
    """The step has no use for the tensor that was drawn."""


class _Builder:
    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.opset = draw(st.sampled_from(OPSETS))
        self.rng = np.random.default_rng(draw(st.integers(0, 2**31)))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: list[Value] = []
        self.count = 0

    def name(self, hint: str) -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def weight(self, values: Any, dtype: Any = np.float32) -> str:
        """A constant: an initializer or a Constant node."""
        array = np.asarray(values, dtype)
        name = self.name("w")
        if self.pick(True, True, False):
            self.weights.append(numpy_helper.from_array(array, name))
        else:
            tensor = numpy_helper.from_array(array, self.name("t"))
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def random(self, *shape: int) -> np.ndarray[Any, Any]:
        return self.rng.uniform(-1, 1, shape).astype(np.float32)

    def node(self, op: str, inputs: Sequence[str], *, outputs: int = 1, **attrs: Any) -> str:
        """Add a node and return its first output's name; further ones are `name_1`, ..."""
        first = self.name(op.lower())
        names = [first, *(f"{first}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attrs))
        return first

    def add(self, name: str, shape: Sequence[int]) -> Value:
        value = Value(name, tuple(int(dim) for dim in shape))
        self.values.append(value)
        return value

    def unary(self, op: str, x: Value, **attrs: Any) -> Value:
        return self.add(self.node(op, [x.name], **attrs), x.shape)

    def with_axes(self, op: str, x: str, axes: Sequence[int], since: int, **attrs: Any) -> str:
        """A node whose axes are an attribute before opset `since` and an input from then on."""
        if self.opset < since:
            return self.node(op, [x], axes=list(axes), **attrs)
        return self.node(op, [x, self.weight(axes, np.int64)], **attrs)


# ---- steps: each takes the builder and one tensor, and adds at least one


def identity(b: _Builder, x: Value) -> None:
    b.unary("Identity", x)


def dropout(b: _Builder, x: Value) -> None:
    b.unary("Dropout", x)


def activation(b: _Builder, x: Value) -> None:
    op = b.pick("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "LeakyRelu", "Elu", "Softplus", "Selu")
    b.unary(op, x)


def clip(b: _Builder, x: Value) -> None:
    low, high = sorted(b.pick((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-3.0, 2.0)))
    if b.opset < 11:
        b.unary("Clip", x, min=low, max=high)
    else:
        b.add(b.node("Clip", [x.name, b.weight(low), b.weight(high)]), x.shape)


def clip_by_min_and_max(b: _Builder, x: Value) -> None:
    below = b.node("Max", [x.name, b.weight(0.0)])
    b.add(b.node("Min", [below, b.weight([6.0])]), x.shape if x.rank else (1,))


def sigmoid_times_x(b: _Builder, x: Value) -> None:
    gate = b.node("Sigmoid", [x.name])
    b.add(b.node("Mul", b.pick([x.name, gate], [gate, x.name])), x.shape)


def hard_swish(b: _Builder, x: Value) -> None:
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


def gelu_by_erf(b: _Builder, x: Value) -> None:
    if b.opset < 9:
        raise UnfitError
    erf = b.node("Erf", [b.node("Div", [x.name, b.weight(np.sqrt(2))])])
    product = b.node("Mul", [x.name, b.node("Add", [erf, b.weight(1.0)])])
    b.add(b.node("Mul", [product, b.weight(0.5)]), x.shape)


def gelu_by_tanh(b: _Builder, x: Value) -> None:
    bounded = b.unary("Tanh", x)
    cube = b.node("Pow", [bounded.name, b.weight(3.0)])
    inner = b.node("Add", [bounded.name, b.node("Mul", [cube, b.weight(0.044715)])])
    tanh = b.node("Tanh", [b.node("Mul", [inner, b.weight(np.sqrt(2 / np.pi))])])
    half = b.node("Mul", [bounded.name, b.weight(0.5)])
    b.add(b.node("Mul", [half, b.node("Add", [tanh, b.weight(1.0)])]), x.shape)


def mish(b: _Builder, x: Value) -> None:
    tanh = b.node("Tanh", [b.node("Softplus", [x.name])])
    b.add(b.node("Mul", [x.name, tanh]), x.shape)


def layer_norm(b: _Builder, x: Value) -> None:
    if not x.rank or x.shape[-1] < 2:
        raise UnfitError
    mean = _reduce(b, "ReduceMean", x.name, [-1], keepdims=1)
    centred = b.node("Sub", [x.name, mean])
    square = b.pick(
        lambda: b.node("Pow", [centred, b.weight(2.0)]), lambda: b.node("Mul", [centred, centred])
    )()
    variance = _reduce(b, "ReduceMean", square, [-1], keepdims=1)
    root = b.node("Sqrt", [b.node("Add", [variance, b.weight(1e-1)])])
    normal = b.node("Div", [centred, root])
    scaled = b.node("Mul", [normal, b.weight(b.random(x.shape[-1]))])
    b.add(b.node("Add", [scaled, b.weight(b.random(x.shape[-1]))]), x.shape)


def arithmetic_with_constant(b: _Builder, x: Value) -> None:
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


def arithmetic_of_two(b: _Builder, x: Value) -> None:
    same = [each for each in b.values if each.shape == x.shape]
    other = b.draw(st.sampled_from(same))
    b.add(b.node(b.pick("Add", "Sub", "Mul", "Max", "Min"), [x.name, other.name]), x.shape)


def power(b: _Builder, x: Value) -> None:
    if b.pick(True, False):
        b.add(b.node("Pow", [x.name, b.weight(b.pick(1.0, 2.0))]), x.shape)
    else:
        above = b.node("Add", [b.node("Abs", [x.name]), b.weight(1.0)])
        b.add(b.node("Pow", [above, b.weight(b.pick(0.5, -0.5, -1.0))]), x.shape)


def transpose(b: _Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    perm = b.draw(st.permutations(range(x.rank)))
    name = b.node("Transpose", [x.name], perm=perm)
    moved = b.add(name, [x.shape[axis] for axis in perm])
    if b.pick(True, False):  # and back, with something between
        between = b.unary(b.pick("Relu", "Tanh", "Identity"), moved)
        back = [perm.index(axis) for axis in range(x.rank)]
        b.add(b.node("Transpose", [between.name], perm=back), x.shape)


def reshape(b: _Builder, x: Value) -> None:
    options = [(x.size,), (1, x.size), (*x.shape, 1)]
    if x.rank >= 2:
        options.append((x.shape[0] * x.shape[1], *x.shape[2:]))
        options.append((x.shape[0], x.size // max(x.shape[0], 1)))
    if x.rank and x.shape[-1] % 2 == 0:
        options.append((*x.shape[:-1], x.shape[-1] // 2, 2))
    shape = b.draw(st.sampled_from([each for each in options if len(each) <= 5]))
    asked = list(shape)
    if x.size and b.pick(True, False):
        asked[b.draw(st.integers(0, len(asked) - 1))] = -1
    if (
        x.size
        and asked[0] == shape[0]
        and x.rank
        and x.shape[0] == shape[0]
        and b.pick(True, False)
    ):
        asked[0] = 0
    b.add(b.node("Reshape", [x.name, b.weight(asked, np.int64)]), shape)


def reshape_by_shape_arithmetic(b: _Builder, x: Value) -> None:
    if x.rank < 2 or x.size == 0:
        raise UnfitError
    shape = b.node("Shape", [x.name])
    first = b.node("Gather", [shape, b.weight(b.pick(0, [0]), np.int64)], axis=0)
    if len(_constant_shape(b, b.nodes[-1].input[1])) == 0:
        first = b.with_axes("Unsqueeze", first, [0], 13)
    target = b.node("Concat", [first, b.weight([-1], np.int64)], axis=0)
    b.add(b.node("Reshape", [x.name, target]), (x.shape[0], x.size // x.shape[0]))


def expand_by_shape(b: _Builder, x: Value) -> None:
    row = b.weight(b.random(1))
    b.add(b.node("Expand", [row, b.node("Shape", [x.name])]), x.shape or (1,))


def constant_of_shape(b: _Builder, x: Value) -> None:
    if b.opset < 9 or not x.rank:
        raise UnfitError
    value = numpy_helper.from_array(np.array([b.pick(0.0, 1.0, 0.5)], np.float32))
    filled = b.node("ConstantOfShape", [b.node("Shape", [x.name])], value=value)
    b.add(b.node(b.pick("Add", "Mul"), [x.name, filled]), x.shape)


def squeeze_unsqueeze(b: _Builder, x: Value) -> None:
    if x.rank >= 5:
        raise UnfitError
    axis = b.draw(st.integers(0, x.rank))
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    wide = b.add(b.with_axes("Unsqueeze", x.name, [axis], 13), shape)
    if b.pick(True, False):
        ones = [i for i, dim in enumerate(wide.shape) if dim == 1]
        which = b.draw(st.sampled_from(ones))
        left = [dim for i, dim in enumerate(wide.shape) if i != which]
        b.add(b.with_axes("Squeeze", wide.name, [which], 13), left)


def flatten(b: _Builder, x: Value) -> None:
    axis = b.draw(st.integers(0, x.rank))
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    columns = int(np.prod(x.shape[axis:], dtype=np.int64))
    b.add(b.node("Flatten", [x.name], axis=axis), (rows, columns))


def slice_(b: _Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    axis = b.draw(st.integers(0, x.rank - 1))
    start = b.draw(st.integers(0, max(x.shape[axis] - 1, 0)))
    stop = b.pick(x.shape[axis], 2**31 - 1, 2**63 - 1, start + 1)
    step = 1 if b.opset < 10 else b.pick(1, 1, 2)
    size = len(range(*slice(start, stop, step).indices(x.shape[axis])))
    shape = [*x.shape[:axis], size, *x.shape[axis + 1 :]]
    b.add(_slice(b, x.name, start, stop, axis, step), shape)


def slice_of_everything(b: _Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    b.add(_slice(b, x.name, 0, 2**63 - 1, b.draw(st.integers(0, x.rank - 1)), 1), x.shape)


def _slice(b: _Builder, x: str, start: int, stop: int, axis: int, step: int) -> str:
    if b.opset < 10:
        return b.node("Slice", [x], starts=[start], ends=[stop], axes=[axis])
    numbers = [start], [stop], [axis], [step]
    return b.node("Slice", [x, *(b.weight(each, np.int64) for each in numbers)])


def split_and_concat(b: _Builder, x: Value) -> None:
    axes = [axis for axis, dim in enumerate(x.shape) if dim >= 2]
    if not axes:
        raise UnfitError
    axis = b.draw(st.sampled_from(axes))
    cut = b.draw(st.integers(1, x.shape[axis] - 1))
    sizes = [cut, x.shape[axis] - cut]
    if b.pick(True, False):
        if b.opset < 13:
            first = b.node("Split", [x.name], outputs=2, axis=axis, split=sizes)
        else:
            first = b.node("Split", [x.name, b.weight(sizes, np.int64)], outputs=2, axis=axis)
        parts = [first, f"{first}_1"]
    else:
        parts = [
            _slice(b, x.name, 0, cut, axis, 1),
            _slice(b, x.name, cut, 2**63 - 1, axis, 1),
        ]
    for part, size in zip(parts, sizes, strict=True):
        b.add(part, [*x.shape[:axis], size, *x.shape[axis + 1 :]])
    if b.pick(True, True, False):
        if b.pick(True, False, False):
            parts.reverse()
        b.add(b.node("Concat", parts, axis=axis), x.shape)


def concat(b: _Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    axis = b.draw(st.integers(-x.rank, x.rank - 1))
    count = b.pick(1, 2, 3)
    shape = list(x.shape)
    shape[axis] *= count
    b.add(b.node("Concat", [x.name] * count, axis=axis % x.rank), shape)


def gather(b: _Builder, x: Value) -> None:
    axes = [axis for axis, dim in enumerate(x.shape) if dim]
    if not axes:
        raise UnfitError
    axis = b.draw(st.sampled_from(axes))
    last = x.shape[axis] - 1
    index = b.pick(0, last, [0], [last, 0], list(range(last + 1)))
    shape = [*x.shape[:axis], *np.shape(index), *x.shape[axis + 1 :]]
    b.add(b.node("Gather", [x.name, b.weight(index, np.int64)], axis=axis), shape)


def cast(b: _Builder, x: Value) -> None:
    wide = b.node("Cast", [x.name], to=b.pick(F, TensorProto.DOUBLE))
    b.add(b.node("Cast", [wide], to=F), x.shape)


def reduce(b: _Builder, x: Value) -> None:
    if not x.rank or x.size == 0:
        raise UnfitError
    count = b.draw(st.integers(1, x.rank))
    axes = sorted(b.draw(st.permutations(range(x.rank)))[:count])
    keep = b.pick(0, 1)
    shape = [1 if i in axes else dim for i, dim in enumerate(x.shape) if keep or i not in axes]
    op = b.pick("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")
    b.add(_reduce(b, op, x.name, axes, keepdims=keep), shape)


def _reduce(b: _Builder, op: str, x: str, axes: Sequence[int], *, keepdims: int) -> str:
    if b.opset < 11:  # negative axes came later
        rank = next((v.rank for v in b.values if v.name == x), None)
        if rank is None and any(axis < 0 for axis in axes):
            raise UnfitError
        axes = [axis % rank for axis in axes] if rank else axes
    return b.with_axes(op, x, axes, 13 if op == "ReduceSum" else 18, keepdims=keepdims)


def pad(b: _Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    name, shape = _pad(b, x)
    b.add(name, shape)


def _pad(b: _Builder, x: Value) -> tuple[str, list[int]]:
    zero = b.pick(True, False)
    pads = [0 if zero else b.draw(st.integers(0, 2)) for _ in range(2 * x.rank)]
    if x.rank == 4 and b.pick(True, True, False):
        pads[0] = pads[1] = pads[4] = pads[5] = 0
    shape = [dim + pads[i] + pads[i + x.rank] for i, dim in enumerate(x.shape)]
    value = b.pick(0.0, 0.0, 1.5)
    if b.opset < 11:
        return b.node("Pad", [x.name], pads=pads, value=value, mode="constant"), shape
    names = [x.name, b.weight(pads, np.int64)]
    if value or b.pick(True, False):
        names.append(b.weight(value))
    return b.node("Pad", names), shape


def convolution(b: _Builder, x: Value) -> None:
    """Conv with what stands around it in real files: Pad, BatchNormalization, factors, ReLU."""
    if x.rank != 4 or min(x.shape) < 1 or min(x.shape[2:]) < 2:
        raise UnfitError
    name, shape = x.name, list(x.shape)
    if b.pick(True, False):
        name, shape = _pad(b, x)
    N, Cin, H, W = shape
    if Cin > 12 or H * W > 100:
        raise UnfitError
    group = b.pick(1, 1, Cin)
    Cout = group * b.pick(1, 2)
    K = b.pick(1, 2)
    pads = b.pick([0, 0, 0, 0], [1, 0, 0, 1])
    inputs = [name, b.weight(b.random(Cout, Cin // group, K, K))]
    if b.pick(True, False):
        inputs.append(b.weight(b.random(Cout)))
    out = b.node("Conv", inputs, group=group, kernel_shape=[K, K], pads=pads)
    made = b.add(out, (N, Cout, H + pads[0] + pads[2] - K + 1, W + pads[1] + pads[3] - K + 1))
    _after_layer(b, made)


def transposed_convolution(b: _Builder, x: Value) -> None:
    if x.rank != 4 or min(x.shape) < 1 or x.shape[1] > 12 or x.shape[2] * x.shape[3] > 64:
        raise UnfitError
    N, Cin, H, W = x.shape
    group = b.pick(1, Cin)
    inputs = [x.name, b.weight(b.random(Cin, 2, 2, 2))]
    if b.pick(True, False):
        inputs.append(b.weight(b.random(2 * group)))
    out = b.node("ConvTranspose", inputs, group=group, kernel_shape=[2, 2], strides=[2, 2])
    _after_layer(b, b.add(out, (N, 2 * group, 2 * H, 2 * W)))


def batch_norm(b: _Builder, x: Value) -> None:
    if x.rank < 2:
        raise UnfitError
    C = x.shape[1]
    statistics = [b.random(C), b.random(C), b.random(C), np.abs(b.random(C)) + 0.5]
    names = [x.name, *(b.weight(each) for each in statistics)]
    b.add(b.node("BatchNormalization", names, epsilon=1e-3), x.shape)


def _after_layer(b: _Builder, x: Value) -> None:
    for step in b.draw(st.lists(st.sampled_from(AFTER_LAYER), max_size=3)):
        step(b, b.values[-1])


def pooling(b: _Builder, x: Value) -> None:
    if x.rank != 4 or min(x.shape) < 1 or min(x.shape[2:]) < 2:
        raise UnfitError
    name, shape = x.name, list(x.shape)
    if b.pick(True, False):
        name, shape = _pad(b, x)
    op = b.pick("MaxPool", "AveragePool", "GlobalAveragePool")
    if op == "GlobalAveragePool":
        b.add(b.node(op, [name]), (*shape[:2], 1, 1))
        return
    pads = b.pick([0, 0, 0, 0], [1, 1, 1, 1])
    attrs = {"count_include_pad": b.pick(0, 1)} if op == "AveragePool" else {}
    extents = [shape[i] + pads[0] * 2 - 1 for i in (2, 3)]
    b.add(b.node(op, [name], kernel_shape=[2, 2], pads=pads, **attrs), (*shape[:2], *extents))


def matmul(b: _Builder, x: Value) -> None:
    if not x.rank or not 1 <= x.shape[-1] <= 40:
        raise UnfitError
    columns = b.pick(1, 3, 4)
    product = b.node("MatMul", [x.name, b.weight(b.random(x.shape[-1], columns))])
    made = b.add(product, (*x.shape[:-1], columns))
    if b.pick(True, False):
        b.add(b.node("Add", [made.name, b.weight(b.random(columns))]), made.shape)


def gemm(b: _Builder, x: Value) -> None:
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


def softmax(b: _Builder, x: Value) -> None:
    if not x.rank or x.size == 0:
        raise UnfitError
    b.unary(b.pick("Softmax", "LogSoftmax"), x, axis=x.rank - 1)


def lrn(b: _Builder, x: Value) -> None:
    if x.rank != 4 or x.size == 0:
        raise UnfitError
    b.unary("LRN", x, size=b.pick(1, 3, 5), alpha=1e-2, beta=0.75, bias=1.0)


def resize_by_scale_one(b: _Builder, x: Value) -> None:
    if b.opset < 13 or x.rank != 4 or x.size == 0:
        raise UnfitError
    b.add(b.node("Resize", [x.name, "", b.weight([1.0] * 4)], mode="nearest"), x.shape)


def where(b: _Builder, x: Value) -> None:
    if b.opset < 9 or not x.rank:
        raise UnfitError
    mask = b.weight(b.rng.integers(0, 2, x.shape[-1:]), np.bool_)
    b.add(b.node("Where", [mask, x.name, b.weight(b.pick(0.0, 1.0))]), x.shape)


def if_(b: _Builder, x: Value) -> None:
    """A condition that is constant, or comes from a shape; branches read tensors around them."""
    if b.pick(True, False) or not x.rank:
        condition = b.weight(b.pick(True, False), np.bool_)
    else:
        size = b.node("Gather", [b.node("Shape", [x.name]), b.weight(0, np.int64)], axis=0)
        condition = b.node("Equal", [size, b.weight(b.pick(x.shape[0], 77), np.int64)])
    branches = []
    for op in (b.pick("Relu", "Identity"), b.pick("Tanh", "Neg")):
        made, result = b.name("inner"), b.name("branch")
        nodes = [
            helper.make_node(op, [x.name], [made]),
            helper.make_node(b.pick("Identity", "Abs"), [made], [result]),
        ]
        output = helper.make_tensor_value_info(result, F, x.shape)
        branches.append(helper.make_graph(nodes, b.name("body"), [], [output]))
    b.add(b.node("If", [condition], then_branch=branches[0], else_branch=branches[1]), x.shape)


def loop(b: _Builder, x: Value) -> None:
    """A counted Loop that carries one tensor."""
    if b.opset < 11:
        raise UnfitError
    count, going, before, after = (b.name(hint) for hint in ("i", "go", "carry", "next"))
    op = b.pick("Tanh", "Identity", "Sigmoid")
    nodes = [
        helper.make_node("Identity", [going], [f"{going}_out"]),
        helper.make_node(op, [before], [after]),
    ]
    body = helper.make_graph(
        nodes,
        b.name("body"),
        [
            helper.make_tensor_value_info(count, I64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            helper.make_tensor_value_info(before, F, x.shape),
        ],
        [
            helper.make_tensor_value_info(f"{going}_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info(after, F, x.shape),
        ],
    )
    trips = b.weight(b.pick(0, 1, 3), np.int64)
    b.add(b.node("Loop", [trips, b.weight(True, np.bool_), x.name], body=body), x.shape)


def twin(b: _Builder, x: Value) -> None:
    """The same computation twice."""
    op = b.pick("Relu", "Tanh", "Sigmoid")
    b.add(b.node("Add", [b.node(op, [x.name]), b.node(op, [x.name])]), x.shape)


def constant_subgraph(b: _Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    made = b.node("Mul", [b.weight(b.random(x.shape[-1])), b.weight(b.random(1))])
    b.add(b.node("Add", [x.name, b.node("Abs", [made])]), x.shape)


AFTER_LAYER: tuple[Callable[[_Builder, Value], None], ...] = (
    batch_norm,
    arithmetic_with_constant,
    activation,
    clip,
    sigmoid_times_x,
    hard_swish,
)
STEPS: tuple[Callable[[_Builder, Value], None], ...] = (
    *AFTER_LAYER,
    identity,
    dropout,
    clip_by_min_and_max,
    gelu_by_erf,
    gelu_by_tanh,
    mish,
    layer_norm,
    arithmetic_of_two,
    power,
    transpose,
    reshape,
    reshape_by_shape_arithmetic,
    expand_by_shape,
    constant_of_shape,
    squeeze_unsqueeze,
    flatten,
    slice_,
    slice_of_everything,
    split_and_concat,
    concat,
    gather,
    cast,
    reduce,
    pad,
    convolution,
    transposed_convolution,
    pooling,
    matmul,
    gemm,
    softmax,
    lrn,
    resize_by_scale_one,
    where,
    if_,
    loop,
    twin,
    constant_subgraph,
)

INPUT_SHAPES = ((1, 3, 4, 4), (2, 4, 3, 3), (1, 2, 5, 4), (2, 3, 4), (3, 4), (1, 6), (4,), (2, 1))


@st.composite
def graphs(draw: st.DrawFn) -> RandomGraph:
    """Random graphs of up to about 30 nodes."""
    b = _Builder(draw)
    shapes = draw(st.lists(st.sampled_from(INPUT_SHAPES), min_size=1, max_size=2))
    inputs = [b.add(f"x{i}", shape) for i, shape in enumerate(shapes)]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8)):
        recent = b.values[-4:]
        x = draw(st.sampled_from(recent))
        if x.rank > 5 or x.size > MOST_ELEMENTS:
            continue
        before = len(b.nodes), len(b.values)
        try:
            step(b, x)
        except UnfitError:  # what it added already stays, for dead-code to find
            del b.values[before[1] :]
    made = b.values[len(inputs) :]
    if not made:
        identity(b, inputs[0])
        made = b.values[-1:]
    outputs = {made[-1].name: made[-1]}
    for value in draw(st.lists(st.sampled_from(made), max_size=2)):
        outputs[value.name] = value
    return RandomGraph(
        _model(b, inputs, list(outputs.values())),
        {value.name: b.rng.uniform(-2, 2, value.shape).astype(np.float32) for value in inputs},
    )


def _model(b: _Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.ModelProto:
    symbolic = b.pick(True, False)
    graph = helper.make_graph(
        b.nodes,
        "random",
        [
            helper.make_tensor_value_info(
                value.name,
                F,
                [
                    f"{value.name}_{i}" if symbolic and i != 1 else d
                    for i, d in enumerate(value.shape)
                ],
            )
            for value in inputs
        ],
        [
            helper.make_tensor_value_info(
                value.name, F, [None] * value.rank if symbolic else value.shape
            )
            for value in outputs
        ],
        b.weights,
    )
    if NEWEST_IR[b.opset] < 4:  # weights are graph inputs then
        graph.input.extend(
            helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in b.weights
        )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", b.opset)],
        ir_version=NEWEST_IR[b.opset],
    )


def _constant_shape(b: _Builder, name: str) -> list[int]:
    for weight in b.weights:
        if weight.name == name:
            return list(weight.dims)
    return next(list(node.attribute[0].t.dims) for node in b.nodes if name in node.output)
