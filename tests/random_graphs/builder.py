"""What steps build on: a graph in the making, and the tensors with known shapes in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSETS = (8, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21)

F = TensorProto.FLOAT
I64 = TensorProto.INT64


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


class Builder:
    """The nodes and weights so far, and the tensors that steps may go on from."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.opset = draw(st.sampled_from(OPSETS))
        self.rng = np.random.default_rng(draw(st.integers(0, 2**31)))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values: list[Value] = []
        self.count = 0

    def mark(self) -> tuple[int, int, int]:
        """Where the graph stands, for `back`."""
        return len(self.nodes), len(self.weights), len(self.values)

    def back(self, mark: tuple[int, int, int]) -> None:
        """Forget what was added since."""
        for entries, length in zip((self.nodes, self.weights, self.values), mark, strict=True):
            del entries[length:]

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


def pad_node(b: Builder, x: Value) -> tuple[str, list[int]]:
    """A Pad, of nothing now and then; its output and shape."""
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


def reduce_node(b: Builder, op: str, x: str, axes: Sequence[int], *, keepdims: int) -> str:
    """A reduction of a tensor in `b.values`, or over axes that are not negative."""
    if b.opset < 11:  # negative axes came later
        rank = next((v.rank for v in b.values if v.name == x), None)
        if rank is None and any(axis < 0 for axis in axes):
            raise UnfitError
        axes = [axis % rank for axis in axes] if rank else axes
    return b.with_axes(op, x, axes, 13 if op == "ReduceSum" else 18, keepdims=keepdims)


Step = Callable[[Builder, Value], None]
"""Adds nodes that start from the value; raises UnfitError if it has no use for it."""
