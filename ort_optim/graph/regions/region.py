"""A group of nodes as one call sees it: what goes in, what comes out, what stays inside.

A constant that a region reads becomes one of two things.
    weight     an input of the call, after the activations. Code does not depend on its values, so
               regions that differ in their weights alone share one body and one name.
    constant   a Constant node in the body, for what says how to compute: sizes, axes, scales,
               bounds, a factor for all elements. Code may depend on it.
Weights are all that is larger than 1 KB; of the rest, floats of several elements, and what stands
where an operator takes its parameters, however small (the bias of three output channels, say), and
what a Constant of the model's operator set may not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from ort_optim.graph.regions.wiring import Wiring
from ort_optim.graph.walk import STANDARD_DOMAINS
from ort_optim.graph.weights import is_external, size_bytes

EMBEDDED_BYTES = 1 << 13
"""Of a constant in a body: what a Gather picks of 1024 channels."""

PARAMETERS = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
}
"""Inputs that are weights whatever their size."""

SETTINGS = {"Resize": (1, 2, 3), "Upsample": (1,)}
"""Inputs whose floats say how to compute, several as they may be."""

FIRST_OPSET_OF_WHOLE_CONSTANTS = 9  # before, a Constant holds floats alone

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_WHOLE_NUMBERS = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)


@dataclass(frozen=True)
class Region:
    """A convex group of nodes of a model's main graph.

    `nodes` are in topological order, the order of the body; `positions` are their places in the
    graph, `anchors` the indices in `nodes` of those that the region is there for. The names of
    tensors are the graph's. `outputs` are what others read or the graph gives.
    """

    nodes: tuple[NodeProto, ...]
    positions: tuple[int, ...]
    anchors: tuple[int, ...]
    activations: tuple[str, ...]
    weights: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]


def make_region(
    wiring: Wiring, numbers: Iterable[int], anchors: Iterable[int], opset: int
) -> Region:
    """The region of the nodes with these numbers in `wiring`, in a model of this operator set."""
    members = sorted(numbers)
    inside = set(members)
    nodes = [wiring.nodes[i] for i in members]
    uses: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in nodes:
        for index, name in enumerate(node.input):
            if name and wiring.producer.get(name) not in inside:
                uses.setdefault(name, []).append((node, index))
    activations, weights, constants = [], [], []
    for name, places in uses.items():
        tensor = wiring.constants.get(name)
        if tensor is None:
            activations.append(name)
        elif all(_is_embedded(tensor, node, index, opset) for node, index in places):
            constants.append(name)
        else:
            weights.append(name)
    made = [name for node in nodes for name in node.output if name]
    place = {number: i for i, number in enumerate(members)}
    return Region(
        nodes=tuple(nodes),
        positions=tuple(wiring.positions[i] for i in members),
        anchors=tuple(sorted(place[i] for i in anchors if i in inside)),
        activations=tuple(activations),
        weights=tuple(weights),
        constants=tuple(constants),
        outputs=tuple(
            name
            for name in made
            if name in wiring.outputs or not wiring.readers.get(name, set()) <= inside
        ),
    )


def _is_embedded(tensor: TensorProto, node: NodeProto, index: int, opset: int) -> bool:
    """Whether this input of the node belongs in the body."""
    op = node.op_type if node.domain in STANDARD_DOMAINS else ""
    if is_external(tensor) or index in PARAMETERS.get(op, ()):
        return False
    if tensor.data_type in _WHOLE_NUMBERS:
        fits = opset >= FIRST_OPSET_OF_WHOLE_CONSTANTS
    else:
        says_how = math.prod(tensor.dims) <= 1 or index in SETTINGS.get(op, ())
        fits = tensor.data_type in _FLOATS and says_how
    return fits and size_bytes(tensor) <= EMBEDDED_BYTES
