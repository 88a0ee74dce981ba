"""What a model does with its inputs, found by following them to their consumers.

    find_uses      the model -> InputUses: per input, the rules it ends at and the dimensions that
                   weights demand
    Use            one rule as it applies to the input itself (bounds carried back through casts,
                   adds and multiplications by constants)

The walk goes through ops that hand values on (rules.CARRIERS), into subgraphs (by capture and as
inputs of Loop and Scan bodies) and into model-local functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from ort_optim.graph.walk import node_graphs
from ort_optim.verify.rules import (
    AXIS_DEMANDS,
    CARRIERS,
    RULES,
    SHAPE_KEEPERS,
    VOCABULARIES,
    Kind,
)

MOST_STEPS = 2000  # of one input's walk: a backstop, real models stay far below
LARGE_PENALTY = 1000.0  # (1 - mask) * -10000: a constant that large means "switch off"
MOST_KEYS = 50


@dataclass(frozen=True)
class Extent:
    """Dimension `axis` of a tensor of the main graph, known once shapes are chosen.

    `axis` None is the smallest dimension; "all" is the list of all of them.
    """

    tensor: str
    axis: int | Literal["all"] | None


@dataclass(frozen=True)
class Use:
    """How an input's values should be drawn, in terms of the input itself.

    `low`, `high` are inclusive. `limit` is the exclusive upper bound of an index (or the longest
    length), already a number or still an Extent; `scale`, `shift` lead from the input's values
    to those the consumer sees. `values` holds what a "compared" or "keys" rule lists.
    """

    kind: Kind
    op: str
    low: float = -math.inf
    high: float = math.inf
    limit: int | Extent | None = None
    scale: float = 1.0
    shift: float = 0.0
    values: tuple[object, ...] = ()


@dataclass
class InputUses:
    """Uses and demanded dimensions (axis -> size) by input name."""

    uses: dict[str, list[Use]] = field(default_factory=dict)
    dims: dict[str, dict[int, int]] = field(default_factory=dict)

    @property
    def extents(self) -> set[Extent]:
        """All dimensions that some use still needs to know."""
        return {u.limit for us in self.uses.values() for u in us if isinstance(u.limit, Extent)}


class _Scope:
    """A graph or function body with the names visible in it."""

    def __init__(
        self, body: GraphProto | FunctionProto, outer: _Scope | None = None, main: bool = False
    ) -> None:
        self.body = body
        self.outer = outer
        self.main = main
        self.initializers: dict[str, TensorProto] = (
            {t.name: t for t in body.initializer} if isinstance(body, GraphProto) else {}
        )
        self.consumers: dict[str, list[tuple[NodeProto, int]]] = {}
        self.producers: dict[str, NodeProto] = {}
        self._inner: dict[int, list[_Scope]] = {}
        for node in body.node:
            for index, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, index))
            for subgraph in node_graphs(node):
                for name in _used_names(subgraph):
                    self.consumers.setdefault(name, []).append((node, -1))
            for name in node.output:
                self.producers[name] = node

    def inner(self, node: NodeProto) -> list[_Scope]:
        """The scopes of a node's subgraphs, made once."""
        if id(node) not in self._inner:
            self._inner[id(node)] = [_Scope(g, self) for g in node_graphs(node)]
        return self._inner[id(node)]

    def initializer(self, name: str) -> TensorProto | None:
        """The initializer or Constant node behind a name, through Identity and outer scopes."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.initializers:
                return scope.initializers[name]
            if name in scope.producers:
                node = scope.producers[name]
                if node.op_type == "Identity":
                    return scope.initializer(node.input[0])
                if node.op_type == "Constant":
                    return next((a.t for a in node.attribute if a.name == "value"), None)
                return None
            scope = scope.outer
        return None

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small constant; None for anything else."""
        tensor = self.initializer(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        if math.prod(tensor.dims) > MOST_KEYS:
            return None
        try:
            return onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError):
            return None

    def extent(self, name: str, axis: int | None) -> int | Extent | None:
        """A dimension of a tensor: a number for constants, else an Extent of the main graph."""
        tensor = self.initializer(name)
        if tensor is not None:
            if axis is None:
                return min(tensor.dims, default=None)
            rank = len(tensor.dims)
            return int(tensor.dims[axis]) if -rank <= axis < rank else None
        return Extent(name, axis) if self.main else None


@dataclass(frozen=True)
class _Place:
    """A tensor on the walk. `axes[i]` is the input's axis that axis i of this tensor is."""

    scope: _Scope
    name: str
    scale: float = 1.0
    shift: float = 0.0
    axes: tuple[int, ...] | None = None
    in_parts: bool = False  # behind a Concat: only one element of a size vector


def find_uses(model: ModelProto, names: Sequence[str]) -> InputUses:
    """Follow the graph inputs `names` through the model."""
    functions = {(f.domain, f.name, f.overload): _Scope(f) for f in model.functions}
    main = _Scope(model.graph, main=True)
    ranks = {
        i.name: len(i.type.tensor_type.shape.dim)
        for i in model.graph.input
        if i.type.tensor_type.HasField("shape")
    }
    found = InputUses()
    for name in names:
        uses: dict[Use, None] = {}
        dims: dict[int, int] = {}
        axes = tuple(range(ranks[name])) if name in ranks else None
        pending = [_Place(main, name, axes=axes)]
        seen: set[tuple[int, str]] = set()
        while pending and len(seen) < MOST_STEPS:
            place = pending.pop()
            key = (id(place.scope), place.name)
            if key in seen:
                continue
            seen.add(key)
            for node, index in place.scope.consumers.get(place.name, ()):
                if (use := _use(place, node, index)) is not None:
                    uses[use] = None
                _note_demands(place, node, index, dims)
                pending += _next_places(place, node, index, functions)
        found.uses[name] = list(uses)
        found.dims[name] = dims
    return found


def _use(place: _Place, node: NodeProto, index: int) -> Use | None:
    """What this consumer asks of the input, if there is a rule for it."""
    if place.scale == 0:
        return None
    rule = RULES.get(node.op_type, {}).get(index)
    if rule is None:
        if min(abs(place.shift), abs(place.scale)) >= LARGE_PENALTY:
            return Use("mask", node.op_type)
        plain = (place.scale, place.shift) == (1.0, 0.0)
        if (
            node.op_type == "Add"
            and plain
            and place.scope.initializer(node.input[1 - index]) is None
        ):
            return Use("added", node.op_type)
        return None
    kind = rule.kind
    scope = place.scope
    limit: int | Extent | None = None
    if rule.of is not None:
        if rule.of >= len(node.input) or not node.input[rule.of]:
            return None
        axis: int | None = (
            _int_attribute(node, rule.axis, rule.axis_default)
            if isinstance(rule.axis, str)
            else rule.axis
        )
        if kind == "like":
            limit = Extent(node.input[rule.of], "all") if scope.main else None
        else:
            limit = scope.extent(node.input[rule.of], axis)
    low, high = rule.low, rule.high
    if kind == "range":
        low, high = sorted((b - place.shift) / place.scale for b in (low, high))
    if kind in ("reshape", "like", "split") and place.in_parts:
        kind, limit = "one", None
    values: tuple[object, ...] = ()
    if kind == "compared":
        values = _compared_values(place, node, index)
        if not values:
            return None
    elif kind == "keys":
        values = _keys(node)
        if not values:
            return None
    return Use(kind, node.op_type, low, high, limit, place.scale, place.shift, values)


def _next_places(
    place: _Place,
    node: NodeProto,
    index: int,
    functions: Mapping[tuple[str, str, str], _Scope],
) -> Iterator[_Place]:
    """Where the values that go into input `index` of `node` come out again."""

    def at(scope: _Scope, name: str, **changes: object) -> _Place:
        kept = {"scale": place.scale, "shift": place.shift, "in_parts": place.in_parts}
        return _Place(scope, name, **{**kept, **changes})  # type: ignore[arg-type]

    if index < 0:  # captured by a subgraph
        for scope in place.scope.inner(node):
            own = {value.name for value in getattr(scope.body, "input", ())}
            if place.name not in own:
                yield at(scope, place.name, axes=place.axes)
        return
    function = functions.get((node.domain, node.op_type, node.overload))
    if function is not None:
        assert isinstance(function.body, FunctionProto)
        if index < len(function.body.input):
            yield at(function, function.body.input[index])
        return
    if node.op_type in ("Loop", "Scan"):
        first = 2 if node.op_type == "Loop" else 0  # M and cond have no counterpart in the body
        for scope in place.scope.inner(node):
            assert isinstance(scope.body, GraphProto)
            if first <= index < len(scope.body.input):
                yield at(scope, scope.body.input[index].name)
        return
    axes = _moved_axes(place, node, index)
    if index in CARRIERS.get(node.op_type, ()):
        for name in node.output:
            yield at(place.scope, name, axes=axes)
    elif node.op_type == "Concat":
        yield at(place.scope, node.output[0], in_parts=True)
    elif node.op_type in ("Add", "Sub", "Mul", "Neg"):
        affine = _affine(place, node, index)
        if affine is not None:
            yield at(place.scope, node.output[0], scale=affine[0], shift=affine[1], axes=axes)
    elif axes is not None and node.op_type in SHAPE_KEEPERS and index == 0:
        # the values are others from here on; scale 0 says that only shapes are of interest
        yield at(place.scope, node.output[0], scale=0.0, axes=axes)


def _moved_axes(place: _Place, node: NodeProto, index: int) -> tuple[int, ...] | None:
    """Which input axis each axis of the node's output is; None where that is lost."""
    if place.axes is None or index != 0:
        return None
    if node.op_type == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        order = order or list(range(len(place.axes)))[::-1]
        return tuple(place.axes[i] for i in order) if len(order) == len(place.axes) else None
    if node.op_type in SHAPE_KEEPERS:
        return place.axes
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        other = place.scope.constant(node.input[1])
        return place.axes if other is not None and other.size == 1 else None
    return None


def _affine(place: _Place, node: NodeProto, index: int) -> tuple[float, float] | None:
    """(scale, shift) behind an Add, Sub, Mul or Neg with a scalar constant."""
    scale, shift = place.scale, place.shift
    if node.op_type == "Neg":
        return -scale, -shift
    other = place.scope.constant(node.input[1 - index])
    if other is None or other.size != 1 or other.dtype.kind not in "iuf":
        return None
    c = float(other.reshape(-1)[0])
    if not math.isfinite(c):
        return None
    if node.op_type == "Add":
        return scale, shift + c
    if node.op_type == "Mul":
        return scale * c, shift * c
    return (scale, shift - c) if index == 0 else (-scale, c - shift)


def _compared_values(place: _Place, node: NodeProto, index: int) -> tuple[object, ...]:
    """Values on both sides of a comparison with a scalar constant, in the input's terms."""
    other = place.scope.constant(node.input[1 - index])
    if other is None or other.size != 1 or other.dtype.kind not in "iuf":
        return ()
    c = (float(other.reshape(-1)[0]) - place.shift) / place.scale
    return (c, c + 1) if node.op_type == "Equal" else (c + 1, c - 1)


def _keys(node: NodeProto) -> tuple[object, ...]:
    for attribute in node.attribute:
        if attribute.name in VOCABULARIES:
            listed = [*attribute.strings, *attribute.ints, *attribute.floats][:MOST_KEYS]
            return tuple(k.decode(errors="replace") if isinstance(k, bytes) else k for k in listed)
    return ()


def _note_demands(place: _Place, node: NodeProto, index: int, dims: dict[int, int]) -> None:
    """Write down the dimension of the input that a weight of this consumer fixes, if any."""
    if place.axes is None:
        return
    if node.op_type == "Conv" and index == 0:
        weight = place.scope.initializer(node.input[1])
        if weight is not None and len(weight.dims) > 1 and len(place.axes) > 1:
            dims[place.axes[1]] = int(weight.dims[1]) * _int_attribute(node, "group", 1)
        return
    if node.op_type == "Gemm" and index == 0:
        weight = place.scope.initializer(node.input[1])
        if weight is not None and len(weight.dims) == 2 and len(place.axes) == 2:
            axis = 0 if _int_attribute(node, "transA", 0) else 1
            dims[place.axes[axis]] = int(weight.dims[1 if _int_attribute(node, "transB", 0) else 0])
        return
    demand = AXIS_DEMANDS.get((node.op_type, index))
    if demand is None:
        return
    axis, weight_index, weight_axis = demand
    if weight_index >= len(node.input):
        return
    weight = place.scope.initializer(node.input[weight_index])
    if weight is None or not -len(weight.dims) <= weight_axis < len(weight.dims):
        return
    if -len(place.axes) <= axis < len(place.axes):
        dims[place.axes[axis]] = int(weight.dims[weight_axis])


def _int_attribute(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _used_names(graph: GraphProto) -> set[str]:
    """Every name that the graph or its subgraphs consume."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for subgraph in node_graphs(node):
            names |= _used_names(subgraph)
    names.discard("")
    return names
