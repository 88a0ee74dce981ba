"""Shape arithmetic, folded as far as the sizes are known, by number or by name.

    Shape(x: [2, 3]) -> Gather(1) -> ...                  =>  3
    Reshape(x, computed [n, 12, 64])                      =>  Reshape(x, [-1, 12, 64])
    Shape(x: [n, 3]) -> Gather(0), where y = Shape(x)[0]  =>  y

Sizes are carried through the arithmetic as polynomials over the names of dimensions; a name may
stand for 0. The cases:

(1) a value that comes out as numbers only becomes a constant;
(2) the target of a Reshape becomes constant where it has numbers, sizes equal to the input's at
    the same place (written 0), and at most one other size (written -1). As the number of elements
    is the same, -1 is exact where the others are numbers above 0. Beside a 0 it is refused, since
    an empty tensor could be reshaped before and could not any more, unless the -1 was there;
(3) the target of an Expand becomes constant where each size is a number or that of the input,
    which is written 1;
(4) the end of a Slice that provably reaches the end of its axis becomes INT64_MAX;
(5) the sizes of a Resize become scales where each is that of the input times a known number: the
    quotient of both, as ONNX Runtime computes it from sizes, if it gives these sizes back;
(6) a value known by name that an earlier tensor has too is read from there;
(7) a value known by name that is part of the shape of a tensor whose Shape is taken anyway
    becomes Shape(start, end), from opset 15 on, where that is fewer nodes or edges.
"""

from __future__ import annotations

from collections import ChainMap
from typing import Any

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.constants import materialize
from ort_optim.passes.common.match import attr, input_or_none, is_used
from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.arithmetic import Element
from ort_optim.passes.shapes.facts import Facts
from ort_optim.passes.shapes.symbolic import Poly, Size
from ort_optim.passes.shapes.values import slice_bounds

NAME = "shape-folding"

SHAPE_WITH_BOUNDS_OPSET = 15

Key = tuple[Any, ...]


def rewrite(root: Graph, ctx: Context) -> None:
    """Analyse the whole view once, then fold values and targets, then reuse equal values."""
    facts = Facts(root)
    facts.write_back()
    _Folder(facts, ctx).fold(root)
    for graph in root.walk():
        graph.settle()
    _Reuser(facts, ctx, _live_nodes(root)).reuse(root, ChainMap(), ChainMap())


class _Folder:
    """Cases (1) to (5)."""

    def __init__(self, facts: Facts, ctx: Context) -> None:
        self.facts = facts
        self.ctx = ctx

    def fold(self, graph: Graph) -> None:
        """Fold in this graph and all below, in the order of execution."""
        for node in graph.nodes:
            if node.dead or node.is_op("Constant"):
                continue
            if self._is_known(node):
                self._fold_known(node)
            elif node.is_op("Reshape"):
                self._fold_reshape(node, graph)
            elif node.is_op("Expand"):
                self._fold_expand(node, graph)
            elif node.is_op("Slice"):
                self._fold_slice(node, graph)
            elif node.is_op("Resize"):
                self._fold_resize(node, graph)
            for below in node.subgraphs():
                self.fold(below)

    def _is_known(self, node: Node) -> bool:
        if (NAME, node.key) in self.ctx.denied:
            return False
        values = [self.facts.value(out) for out in node.outputs if is_used(out)]
        return bool(values) and all(value is not None and value.is_known for value in values)

    def _fold_known(self, node: Node) -> None:
        """(1), for values that something reads which is not itself a known value."""
        values = {}
        for out in node.outputs:
            if is_used(out) and (value := self.facts.value(out)) is not None:
                values[out] = value.to_array()
        needed = any(
            out.is_output or any(not self._is_known(user) for user in out.outputs)
            for out in node.outputs
        )
        if needed and self.ctx.fuel(NAME, node, f"known: {next(iter(values.values())).tolist()}"):
            materialize(node, values)

    def _fold_reshape(self, node: Node, graph: Graph) -> None:
        source, target = node.inputs[0], input_or_none(node, 1)
        if not isinstance(target, Variable):
            return
        found = self._reshape_target(node, source, target)
        if found is None:
            return
        if isinstance(found, str):
            self.ctx.refuse(NAME, node, found)
        elif self.ctx.fuel(NAME, node, f"constant target {found}"):
            shape = graph.constant(np.array(found, np.int64), f"{node.key}_shape")
            graph.replace(node, "Reshape", [source, shape])

    def _reshape_target(
        self, node: Node, source: Tensor, target: Variable
    ) -> list[int] | str | None:
        """(2): the constant target, why there is none, or None if nothing at all is known."""
        value, made = self.facts.value(target), self.facts.shape(node.outputs[0])
        before = self.facts.shape(source) or []
        rank = len(made) if made is not None else (len(value.flat) if value is not None else None)
        if rank is None or (value is not None and len(value.flat) != rank):
            return None
        elements: list[Element] = value.flat if value is not None else [None] * rank
        found: list[int] = []
        unknown: list[int] = []
        stated_minus_one = False
        for axis, element in enumerate(elements):
            size: Size | None = made[axis] if made is not None else None
            given: Size | None = element if isinstance(element, (int, Poly)) else None
            equal_to_source = axis < len(before) and before[axis] in (size, given)
            if isinstance(size, int) and size > 0:
                found.append(size)
            elif isinstance(given, int) and (given > 0 or given == -1):
                stated_minus_one |= given == -1
                found.append(given)
            elif equal_to_source or (given == 0 and not attr(node, "allowzero", 0)):
                found.append(0)
            else:
                unknown.append(axis)
                found.append(-1)
        if len(unknown) + stated_minus_one > 1:
            return f"{len(unknown)} sizes of the target are not known"
        if unknown and 0 in found:
            return "-1 beside a copied size would fail on an empty tensor"
        return found

    def _fold_expand(self, node: Node, graph: Graph) -> None:
        """(3); sizes are aligned at the end."""
        source, target = node.inputs
        if not isinstance(target, Variable):
            return None
        value, made = self.facts.value(target), self.facts.shape(node.outputs[0])
        before = self.facts.shape(source)
        if before is None or (value is None and made is None):
            return None
        rank = len(made) if made is not None else max(len(before), len(value.flat if value else []))
        elements = ([None] * rank if value is None else [1] * rank + value.flat)[-rank:]
        padded: list[Size] = ([1] * rank + before)[-rank:] if rank else []
        found: list[int] = []
        for axis in range(rank):
            size: Size | None = made[axis] if made is not None else None
            given = elements[axis]
            if isinstance(size, int):
                found.append(size)
            elif isinstance(given, int):
                found.append(given)
            elif padded[axis] in (size, given):
                found.append(1)
            else:
                return self.ctx.refuse(NAME, node, f"size {axis} of the target is not known")
        if self.ctx.fuel(NAME, node, f"constant target {found}"):
            shape = graph.constant(np.array(found, np.int64), f"{node.key}_shape")
            graph.replace(node, "Expand", [source, shape])
        return None

    def _fold_slice(self, node: Node, graph: Graph) -> None:
        """(4), where starts, axes and steps are constant already."""
        if len(node.inputs) < 3 or not isinstance(node.inputs[2], Variable):
            return
        before = self.facts.shape(node.inputs[0])
        bounds = slice_bounds(node, [self.facts.value(tensor) for tensor in node.inputs])
        dtype = node.inputs[2].dtype
        if before is None or bounds is None or dtype is None:
            return
        ends: list[int] = []
        for axis, _, end, step in bounds:
            if isinstance(end, int):
                ends.append(end)
                continue
            reaches = isinstance(end, Poly) and symbolic.compare(end, before[axis]) in (0, 1, 2)
            if not reaches or not isinstance(step, int) or step < 0:
                return
            ends.append(int(np.iinfo(dtype).max))
        if self.ctx.fuel(NAME, node, f"constant ends {ends}"):
            made = graph.constant(np.array(ends, dtype), f"{node.key}_ends")
            sources = [*node.inputs[:2], made, *node.inputs[3:]]
            graph.replace(node, "Slice", sources, **node.attrs)

    def _fold_resize(self, node: Node, graph: Graph) -> None:
        """(5)"""
        sizes = input_or_none(node, 3)
        if not isinstance(sizes, Variable) or attr(node, "axes", None) is not None:
            return
        if attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
            return
        value, before = self.facts.value(sizes), self.facts.shape(node.inputs[0])
        if value is None or before is None or len(value.flat) != len(before):
            return
        scales = [_scale(*each) for each in zip(value.flat, before, strict=True)]
        found = [scale for scale in scales if scale is not None]
        if len(found) < len(scales):
            self.ctx.refuse(NAME, node, "a size is no known multiple of the input's")
        elif self.ctx.fuel(NAME, node, f"constant scales {found}"):
            made = graph.constant(np.array(found, np.float32), f"{node.key}_scales")
            graph.replace(node, "Resize", [*node.inputs[:2], made], **node.attrs)


def _scale(wanted: Element, size: Size | None) -> float | None:
    """What a size of a Resize is of the input's; None where that is not known."""
    if wanted is None or size is None or isinstance(wanted, float):
        return None
    if wanted == size:
        return 1.0
    if isinstance(wanted, int) and isinstance(size, int):
        if min(wanted, size) < 1:
            return None
        scale = np.float32(wanted) / np.float32(size)
        return float(scale) if int(np.float32(size) * scale) == wanted else None
    times = symbolic.divide_exactly(wanted, size)
    return float(times) if isinstance(times, int) and times > 0 else None


class _Reuser:
    """Cases (6) and (7): values known by name, taken from where they are already.

    `seen` maps a value to the tensor that has it, `parts` runs of sizes to (tensor, start, end);
    a subgraph sees what was computed before its node in the graphs around.
    """

    def __init__(self, facts: Facts, ctx: Context, live: set[Node]) -> None:
        self.facts = facts
        self.ctx = ctx
        self.live = live

    def reuse(
        self,
        graph: Graph,
        seen: ChainMap[Key, Variable],
        parts: ChainMap[Key, tuple[Tensor, int, int]],
    ) -> None:
        """Reuse values in this graph and all below, in the order of execution."""
        for node in graph.nodes:
            if node.dead or node not in self.live:
                continue
            for below in node.subgraphs():
                self.reuse(below, seen.new_child(), parts.new_child())
            key = self._key(node)
            if key is not None and not self._replaced(node, graph, key, seen, parts):
                seen[key] = node.outputs[0]
            if not node.dead and node.is_op("Shape"):
                self._note_parts(node.inputs[0], parts)

    def _key(self, node: Node) -> Key | None:
        """What identifies the value of a node's only output, if it is known by name."""
        value = self.facts.value(node.outputs[0]) if len(node.outputs) == 1 else None
        if value is None or not value.is_symbolic:
            return None
        return (value.dtype.str, value.elements.shape, *value.flat)

    def _replaced(
        self,
        node: Node,
        graph: Graph,
        key: Key,
        seen: ChainMap[Key, Variable],
        parts: ChainMap[Key, tuple[Tensor, int, int]],
    ) -> bool:
        earlier = seen.get(key)
        if earlier is not None:
            if reason := graph.can_bypass(node, earlier):
                self.ctx.refuse(NAME, node, reason)
            elif self.ctx.fuel(NAME, node, f"equals {earlier.name}"):  # (6)
                graph.bypass(node, earlier)
                return True
            return False
        dtype, shape, *sizes = key
        part = parts.get(tuple(sizes))
        if (
            part is None
            or node.is_op("Shape")
            or (graph.opset or 0) < SHAPE_WITH_BOUNDS_OPSET
            or dtype != np.dtype(np.int64).str
            or len(shape) != 1
        ):
            return False
        source, start, end = part
        if not self.ctx.fuel(NAME, node, f"sizes {start} to {end} of {source.name}"):  # (7)
            return False
        bounds = {} if end - start == len(self.facts.shape(source) or ()) else {"end": end}
        if start:
            bounds["start"] = start
        made = graph.replace(node, "Shape", [source], **bounds)
        seen[key] = made.outputs[0]
        return True

    def _note_parts(self, source: Tensor, parts: ChainMap[Key, tuple[Tensor, int, int]]) -> None:
        sizes = self.facts.shape(source) or []
        for start in range(len(sizes)):
            for end in range(start + 1, len(sizes) + 1):
                parts.setdefault(tuple(sizes[start:end]), (source, start, end))


def _live_nodes(root: Graph) -> set[Node]:
    """The nodes that the outputs of the graphs depend on."""
    live: set[Node] = set()
    for graph in reversed(list(root.walk())):
        for node in reversed(graph.nodes):
            if any(
                out.is_output or any(user in live for user in out.outputs) for out in node.outputs
            ):
                live.add(node)
    return live


PASS = GraphPass(NAME, rewrite)
