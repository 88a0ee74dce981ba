"""Sequences whose elements are known one by one, taken apart.

    SequenceAt(SequenceConstruct(a, b), 1)            =>  b
    ConcatFromSequence(SequenceConstruct(a, b))       =>  Concat(a, b)
    SequenceAt(SplitToSequence(x), 0), ... At(.., 1)  =>  Split(x) -> two tensors

(1) A sequence is known if it is made by SequenceEmpty, SequenceConstruct, SequenceInsert and
    SequenceErase at constant positions, in the same graph as its reader.
(2) SequenceAt of a constant position of a known sequence is that element, or an Identity of it
    where the graph gives it out.
(3) ConcatFromSequence of a known, non-empty sequence is a Concat; with new_axis it stays, as each
    element would need an Unsqueeze.
(4) SequenceLength of a known sequence is a constant.
(5) SplitToSequence becomes Split where all its readers are SequenceAt at constant positions and
    the number and sizes of its parts are known. With keepdims=0 each part goes through a Squeeze.

Sequences keep ONNX Runtime from reusing memory, and most of its optimizations stop at them.
"""

from __future__ import annotations

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.constants import materialize
from ort_optim.passes.common.match import attr, input_or_none, ints, static_shape

NAME = "static-sequences"

INPUT_OPSET = 13  # Split takes its sizes and Squeeze its axes as an input from here on
MAX_PARTS = 1024

Elements = dict[Tensor, tuple[Tensor, ...] | None]


def rewrite(root: Graph, ctx: Context) -> None:
    """Take apart all known sequences."""
    for graph in root.walk():
        known: Elements = {}
        for node in graph.nodes:
            if node.dead:
                continue
            if node.is_op("SequenceAt"):
                _rewrite_at(node, graph, known, ctx)
            elif node.is_op("ConcatFromSequence"):
                _rewrite_concat(node, graph, known, ctx)
            elif node.is_op("SequenceLength"):
                _rewrite_length(node, known, ctx)
            elif node.is_op("SplitToSequence"):
                _rewrite_split(node, graph, ctx)
            else:
                _follow(node, known)


def _follow(node: Node, known: Elements) -> None:
    """(1)"""
    if node.is_op("SequenceEmpty"):
        known[node.outputs[0]] = ()
    elif node.is_op("SequenceConstruct"):
        known[node.outputs[0]] = tuple(node.inputs)
    elif node.is_op("SequenceInsert", "SequenceErase"):
        inserts = node.op == "SequenceInsert"
        before = known.get(node.inputs[0])
        if before is None or len(before) >= MAX_PARTS:
            return
        given = input_or_none(node, 2 if inserts else 1)
        position = _position(given, len(before)) if given is not None else None
        if given is not None and position is None:
            return
        if inserts:
            at = len(before) if position is None else position
            known[node.outputs[0]] = (*before[:at], node.inputs[1], *before[at:])
        else:
            at = len(before) - 1 if position is None else position
            known[node.outputs[0]] = (*before[:at], *before[at + 1 :])


def _position(tensor: Tensor, length: int) -> int | None:
    """A constant position, counted from the start."""
    found = ints(tensor)
    if found is None or len(found) != 1 or not -length <= found[0] <= length:
        return None
    return found[0] + length if found[0] < 0 else found[0]


def _rewrite_at(node: Node, graph: Graph, known: Elements, ctx: Context) -> None:
    elements = known.get(node.inputs[0])
    if elements is None:
        return
    position = _position(node.inputs[1], len(elements))
    if position is None or position == len(elements):
        ctx.refuse(NAME, node, "the position is not a constant within the sequence")
        return
    if not ctx.fuel(NAME, node, f"element {position} of a known sequence"):  # (2)
        return
    if node.outputs[0].is_output:
        graph.replace(node, "Identity", [elements[position]])
    else:
        graph.bypass(node, elements[position])


def _rewrite_concat(node: Node, graph: Graph, known: Elements, ctx: Context) -> None:
    elements = known.get(node.inputs[0])
    if not elements:
        return None
    if attr(node, "new_axis", 0):
        return ctx.refuse(NAME, node, "each element would need an Unsqueeze")
    if ctx.fuel(NAME, node, f"{len(elements)} known elements"):  # (3)
        graph.replace(node, "Concat", elements, axis=node.attrs["axis"])
    return None


def _rewrite_length(node: Node, known: Elements, ctx: Context) -> None:
    elements = known.get(node.inputs[0])
    if elements is not None and ctx.fuel(NAME, node, f"length {len(elements)}"):  # (4)
        materialize(node, {node.outputs[0]: np.array(len(elements), np.int64)})


def _rewrite_split(node: Node, graph: Graph, ctx: Context) -> None:
    """(5)"""
    sequence: Variable = node.outputs[0]
    readers = list(sequence.outputs)
    if sequence.is_output or not readers:
        return None
    if not all(reader.is_op("SequenceAt") and reader.graph is graph for reader in readers):
        return ctx.refuse(NAME, node, "something else than SequenceAt reads the sequence")
    source, axis = node.inputs[0], attr(node, "axis", 0)
    sizes = _part_sizes(node, source, axis)
    if sizes is None or len(sizes) > MAX_PARTS:
        return ctx.refuse(NAME, node, "the sizes of its parts are not known")
    positions = [_position(reader.inputs[1], len(sizes)) for reader in readers]
    if any(position is None or position == len(sizes) for position in positions):
        return ctx.refuse(NAME, node, "a position is not a constant within the sequence")
    squeezes = not attr(node, "keepdims", 1) and input_or_none(node, 1) is None
    if not squeezes and any(reader.outputs[0].is_output for reader in readers):
        return ctx.refuse(NAME, node, "an element is an output of the graph")
    if not ctx.fuel(NAME, node, f"{len(sizes)} known parts"):
        return None
    parts = [graph.variable(f"{sequence.name}_{index}") for index in range(len(sizes))]
    _make_split(node, graph, source, parts, sizes, axis)
    for reader, position in zip(readers, positions, strict=True):
        assert position is not None
        if squeezes:
            _make_squeeze(reader, graph, parts[position], axis)
        else:
            graph.bypass(reader, parts[position])
    return None


def _part_sizes(node: Node, source: Tensor, axis: int) -> list[int] | None:
    shape = static_shape(source)
    length = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    given = input_or_none(node, 1)
    if given is None:
        return None if length is None else [1] * length
    found = ints(given)
    if found is None or given.shape is None:
        return None
    if len(given.shape) == 1:
        return list(found)
    if length is None or found[0] <= 0:
        return None
    return [min(found[0], length - start) for start in range(0, length, found[0])]


def _make_split(
    node: Node, graph: Graph, source: Tensor, parts: list[Variable], sizes: list[int], axis: int
) -> None:
    inputs: list[Tensor] = [source]
    attrs: dict[str, object] = {"axis": axis}
    if (graph.opset or 0) >= INPUT_OPSET:
        inputs.append(graph.constant(np.array(sizes, np.int64), f"{node.key}_sizes"))
    else:
        attrs["split"] = tuple(sizes)
    graph.insert([graph.make("Split", inputs, parts, attrs, like=node)], at=node)
    graph.remove(node)


def _make_squeeze(reader: Node, graph: Graph, part: Variable, axis: int) -> None:
    if (graph.opset or 0) >= INPUT_OPSET:
        axes = graph.constant(np.array([axis], np.int64), f"{reader.key}_axes")
        graph.replace(reader, "Squeeze", [part, axes])
    else:
        graph.replace(reader, "Squeeze", [part], axes=(axis,))


PASS = GraphPass(NAME, rewrite)
