"""Operators that move, cut and join, and the shape arithmetic that feeds them."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from onnx import numpy_helper

from tests.random_graphs.builder import Builder, F, Step, UnfitError, Value, pad_node


def transpose(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    perm = b.draw(st.permutations(range(x.rank)))
    name = b.node("Transpose", [x.name], perm=perm)
    moved = b.add(name, [x.shape[axis] for axis in perm])
    if b.pick(True, False):  # and back, with something between
        between = b.unary(b.pick("Relu", "Tanh", "Identity"), moved)
        back = [perm.index(axis) for axis in range(x.rank)]
        b.add(b.node("Transpose", [between.name], perm=back), x.shape)


def reshape(b: Builder, x: Value) -> None:
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


def reshape_by_shape_arithmetic(b: Builder, x: Value) -> None:
    if x.rank < 2 or x.size == 0:
        raise UnfitError
    shape = b.node("Shape", [x.name])
    is_vector = b.pick(True, False)
    first = b.node("Gather", [shape, b.weight([0] if is_vector else 0, np.int64)], axis=0)
    if not is_vector:
        first = b.with_axes("Unsqueeze", first, [0], 13)
    target = b.node("Concat", [first, b.weight([-1], np.int64)], axis=0)
    b.add(b.node("Reshape", [x.name, target]), (x.shape[0], x.size // x.shape[0]))


def squeeze_unsqueeze(b: Builder, x: Value) -> None:
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


def flatten(b: Builder, x: Value) -> None:
    axis = b.draw(st.integers(0, x.rank))
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    columns = int(np.prod(x.shape[axis:], dtype=np.int64))
    b.add(b.node("Flatten", [x.name], axis=axis), (rows, columns))


def slice_(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    axis = b.draw(st.integers(0, x.rank - 1))
    start = b.draw(st.integers(0, max(x.shape[axis] - 1, 0)))
    stop = b.pick(x.shape[axis], 2**31 - 1, 2**63 - 1, start + 1)
    step = 1 if b.opset < 10 else b.pick(1, 1, 2)
    size = len(range(*slice(start, stop, step).indices(x.shape[axis])))
    shape = [*x.shape[:axis], size, *x.shape[axis + 1 :]]
    b.add(_slice(b, x.name, start, stop, axis, step), shape)


def slice_of_everything(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    b.add(_slice(b, x.name, 0, 2**63 - 1, b.draw(st.integers(0, x.rank - 1)), 1), x.shape)


def _slice(b: Builder, x: str, start: int, stop: int, axis: int, step: int) -> str:
    if b.opset < 10:
        return b.node("Slice", [x], starts=[start], ends=[stop], axes=[axis])
    numbers = [start], [stop], [axis], [step]
    return b.node("Slice", [x, *(b.weight(each, np.int64) for each in numbers)])


def split_and_concat(b: Builder, x: Value) -> None:
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


def concat(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    axis = b.draw(st.integers(-x.rank, x.rank - 1))
    count = b.pick(1, 2, 3)
    shape = list(x.shape)
    shape[axis] *= count
    b.add(b.node("Concat", [x.name] * count, axis=axis % x.rank), shape)


def gather(b: Builder, x: Value) -> None:
    axes = [axis for axis, dim in enumerate(x.shape) if dim]
    if not axes:
        raise UnfitError
    axis = b.draw(st.sampled_from(axes))
    last = x.shape[axis] - 1
    index = b.pick(0, last, [0], [last, 0], list(range(last + 1)))
    shape = [*x.shape[:axis], *np.shape(index), *x.shape[axis + 1 :]]
    b.add(b.node("Gather", [x.name, b.weight(index, np.int64)], axis=axis), shape)


def pad(b: Builder, x: Value) -> None:
    if not x.rank:
        raise UnfitError
    name, shape = pad_node(b, x)
    b.add(name, shape)


def resize_by_scale_one(b: Builder, x: Value) -> None:
    if b.opset < 13 or x.rank != 4 or x.size == 0:
        raise UnfitError
    b.add(b.node("Resize", [x.name, "", b.weight([1.0] * 4)], mode="nearest"), x.shape)


def slices_in_a_row(b: Builder, x: Value) -> None:
    for _ in range(b.pick(2, 3)):
        slice_(b, b.values[-1] if b.pick(True, True, False) else x)


def concats_in_a_row(b: Builder, x: Value) -> None:
    axes = [axis for axis in range(x.rank) if x.shape[axis]]
    if not axes:
        raise UnfitError
    axis = b.draw(st.sampled_from(axes))
    inner = b.node("Concat", [x.name, x.name], axis=axis)
    shape = [*x.shape[:axis], 3 * x.shape[axis], *x.shape[axis + 1 :]]
    b.add(b.node("Concat", b.pick([inner, x.name], [x.name, inner]), axis=axis), shape)


def channels_last(b: Builder, x: Value) -> None:
    """To channels last and back, with something between, as converted models have it."""
    if x.rank != 4:
        raise UnfitError
    N, C, H, W = x.shape
    moved = b.add(b.node("Transpose", [x.name], perm=[0, 2, 3, 1]), (N, H, W, C))
    for op in b.pick(["Relu"], ["Tanh", "Neg"], ["Add"], ["Mul", "Sigmoid"]):
        extra = [b.weight(b.random(C))] if op in ("Add", "Mul") else []
        moved = b.add(b.node(op, [moved.name, *extra]), moved.shape)
    b.add(b.node("Transpose", [moved.name], perm=[0, 3, 1, 2]), x.shape)


def count(b: Builder, x: Value) -> None:
    """Counting written out with NonZero."""
    if b.opset < 9 or not x.rank:
        raise UnfitError
    size = b.node("Gather", [b.node("Shape", [x.name]), b.weight([0], np.int64)], axis=0)
    one = numpy_helper.from_array(np.array([1], np.int64))
    places = b.node("NonZero", [b.node("ConstantOfShape", [size], value=one)])
    row = b.with_axes("Squeeze", b.node("Transpose", [places], perm=[1, 0]), [1], 13)
    b.add(b.node("Cast", [row], to=F), (x.shape[0],))


STEPS: tuple[Step, ...] = (
    transpose,
    reshape,
    reshape_by_shape_arithmetic,
    squeeze_unsqueeze,
    flatten,
    slice_,
    slice_of_everything,
    split_and_concat,
    concat,
    gather,
    pad,
    resize_by_scale_one,
    slices_in_a_row,
    concats_in_a_row,
    channels_last,
    count,
)
