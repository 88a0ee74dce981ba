"""What a parser of a node sees: attributes, values, weights, constants, and how to refuse.

Refusal      why a node can't be a layer
TensorFact   what is known of a tensor
Scope        the tensors of a region while it is read, and the layers made so far
Node         one node in a scope
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from ort_optim.compiler.layers import Applied, Layer, Op, Shape, Weight
from ort_optim.kernels.sizes import Size, Sizes

FLOAT = TensorProto.FLOAT


class Refusal(Exception):  # noqa: N818
    """A node can't be a layer; the message says why. It never leaves the compiler."""


@dataclass(frozen=True)
class TensorFact:
    """An element type of ONNX, and dimensions (None where the rank is unknown)."""

    element_type: int
    dims: tuple[int | None, ...] | None


def _not_float(name: str, fact: TensorFact | None) -> str:
    is_known = fact is not None and fact.element_type != TensorProto.UNDEFINED
    return f"{name} is not float32" if is_known else f"the type of {name} is not known"


class Scope:
    """The tensors of a region by name, and its layers so far."""

    def __init__(self, opset: int, constants: Mapping[str, TensorProto]) -> None:
        self.opset = opset
        self.sizes = Sizes()
        self.constants = constants
        self.values: dict[str, int] = {}
        self.activations: list[int] = []
        self.shapes: list[Shape] = []
        self.weights: dict[str, Weight] = {}
        self.refused: dict[str, str] = {}
        """Inputs that can't be a value, and why: a node that needs them is refused."""
        self.layers: list[Layer] = []
        self.convolutions = 0
        self.guards: dict[tuple[int, int], tuple[Size, Size]] = {}

    def add_activation(self, name: str, number: int, fact: TensorFact | None) -> None:
        """Input `number` of the region, a value."""
        dims = fact.dims if fact is not None else None
        if fact is None or fact.element_type != FLOAT:
            self.refused[name] = _not_float(name, fact)
        elif dims is None or len(dims) != 4:
            rank = "unknown rank" if dims is None else f"rank {len(dims)}"
            self.refused[name] = f"{name} has {rank}, not 4"
        elif dims[1] is None or dims[1] < 1:
            self.refused[name] = f"the channels of {name} are not known"
        else:
            found = []
            for axis, dim in enumerate(dims):
                given = self.sizes.dim(number, axis)
                found.append(given if dim is None else self.sizes.const(dim))
                if dim is not None:
                    self.require_equal(given, found[axis])
            self.values[name] = self.add_value(Shape(found[0], dims[1], found[2], found[3]))
            self.activations.append(number)

    def add_weight(self, name: str, number: int, fact: TensorFact | None) -> None:
        """Input `number` of the region, a constant."""
        if fact is None or fact.element_type != FLOAT:
            self.refused[name] = _not_float(name, fact)
        elif fact.dims is None or None in fact.dims:
            self.refused[name] = f"the dimensions of {name} are not known"
        else:
            dims = tuple(dim for dim in fact.dims if dim is not None)
            self.weights[name] = Weight(number, dims)
            for axis, dim in enumerate(dims):
                self.require_equal(self.sizes.dim(number, axis), self.sizes.const(dim))

    def add_value(self, shape: Shape) -> int:
        """The number of a new value."""
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def require_equal(self, a: Size, b: Size) -> None:
        """Sizes that the code takes to be the same."""
        if a.known is not None and b.known is not None:
            if a.known != b.known:
                raise Refusal(f"sizes {a.known} and {b.known} are not the same")
        elif a.index != b.index:
            self.guards.setdefault((a.index, b.index), (a, b))


class Node:
    """A node in its scope. Whatever is not as a parser asks raises Refusal."""

    def __init__(self, proto: NodeProto, scope: Scope) -> None:
        self.proto = proto
        self.scope = scope
        self.sizes = scope.sizes
        self.opset = scope.opset
        self._attributes = {each.name: each for each in proto.attribute}

    # Attributes

    def allow(self, *names: str) -> None:
        """Refuse attributes that are not among these."""
        unknown = self._attributes.keys() - set(names)
        if unknown:
            raise Refusal(f"attribute {min(unknown)}")

    def _attribute(self, name: str, kind: int) -> AttributeProto | None:
        found = self._attributes.get(name)
        if found is not None and (found.type != kind or found.ref_attr_name):
            raise Refusal(f"attribute {name} has another type")
        return found

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self._attribute(name, AttributeProto.INT)
        return default if found is None else found.i

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        found = self._attribute(name, AttributeProto.FLOAT)
        return default if found is None else found.f

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self._attribute(name, AttributeProto.STRING)
        return default if found is None else found.s.decode("utf-8", "replace")

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, None where it is not given."""
        found = self._attribute(name, AttributeProto.INTS)
        return None if found is None else tuple(found.ints)

    def floats(self, name: str) -> tuple[float, ...] | None:
        """A list of floats, None where it is not given."""
        found = self._attribute(name, AttributeProto.FLOATS)
        return None if found is None else tuple(found.floats)

    def has_attribute(self, name: str) -> bool:
        """Whether it is given."""
        return name in self._attributes

    def pair(self, name: str, default: int = 1) -> tuple[int, int]:
        """A list of two integers from 1 on."""
        found = self.ints(name)
        if found is None:
            return default, default
        if len(found) != 2 or min(found) < 1:
            raise Refusal(f"{name}={list(found)}")
        return found[0], found[1]

    # Inputs

    @property
    def input_count(self) -> int:
        """Inputs, without those left out at the end."""
        given = [i for i, name in enumerate(self.proto.input) if name]
        return given[-1] + 1 if given else 0

    def has_input(self, index: int) -> bool:
        """Whether it is given."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def name(self, index: int) -> str:
        """The name of an input."""
        if not self.has_input(index):
            raise Refusal(f"input {index} is missing")
        name: str = self.proto.input[index]
        return name

    def value(self, index: int) -> int:
        """The number of the value that an input is."""
        name = self.name(index)
        if name not in self.scope.values:
            constant = name in self.scope.weights or name in self.scope.constants
            other = f"{name} is {'constant' if constant else 'not known'}"
            raise Refusal(self.scope.refused.get(name, other))
        return self.scope.values[name]

    def is_value(self, index: int) -> bool:
        """Whether an input is a value."""
        return self.has_input(index) and self.name(index) in self.scope.values

    def shape(self, index: int) -> Shape:
        """The shape of the value that an input is."""
        return self.scope.shapes[self.value(index)]

    def weight(self, index: int, rank: int) -> Weight:
        """The constant float32 tensor of this rank that an input is."""
        name = self.name(index)
        found = self.scope.weights.get(name)
        if found is None:
            raise Refusal(self.scope.refused.get(name, f"{name} is not a constant weight"))
        if len(found.dims) != rank:
            raise Refusal(f"{name} has rank {len(found.dims)}, not {rank}")
        return found

    def find_weight(self, index: int) -> Weight | None:
        """The weight that an input is, or None."""
        return self.scope.weights.get(self.name(index))

    def array(self, index: int) -> np.ndarray[Any, Any]:
        """The value of a small constant input."""
        name = self.name(index)
        tensor = self.scope.constants.get(name)
        if tensor is None:
            raise Refusal(f"{name} is not a constant that is known")
        return numpy_helper.to_array(tensor)

    def integers(self, index: int) -> tuple[int, ...]:
        """A constant input: a list of integers."""
        found = self.array(index)
        if found.dtype.kind not in "iu" or found.ndim > 1:
            raise Refusal(f"{self.name(index)} is no list of integers")
        return tuple(int(each) for each in found.reshape(-1))

    def number(self, index: int) -> float:
        """A constant float32 input with one element."""
        found = self.array(index)
        if found.dtype != np.float32 or found.size != 1:
            raise Refusal(f"{self.name(index)} is not one float32 number")
        return float(found.reshape(-1)[0])

    def find_number(self, index: int) -> float | None:
        """The number that a constant input is, if it is one."""
        tensor = self.scope.constants.get(self.name(index))
        if tensor is None or tensor.data_type != FLOAT or math.prod(tensor.dims) != 1:
            return None
        return self.number(index) if len(tensor.dims) <= 4 else None

    # Results

    def add(
        self,
        op: Op,
        inputs: Sequence[int],
        shape: Shape,
        epilogue: Sequence[Applied] = (),
        output: int = 0,
    ) -> int:
        """A layer that makes an output of this node, the last one if several do; its value."""
        value = self.scope.add_value(shape)
        self.scope.values[self.proto.output[output]] = value
        label = self.proto.name or self.proto.output[output]
        self.scope.layers.append(
            Layer(op, tuple(inputs), value, f"{self.proto.op_type} {label}", tuple(epilogue))
        )
        return value
