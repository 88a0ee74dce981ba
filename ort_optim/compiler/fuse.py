"""What can be done in passing is: activations and sums move into the layer that makes their input.

Conv -> Add -> Relu      becomes      Conv with an epilogue of add and relu

(1) x * sigmoid(x) and other functions that are written out are one (patterns.py).
(2) A function of a value that nothing else reads joins the layer that makes it. Of a sum of two
    such values the later one takes it: the other has to be in memory by then anyway, and of a
    convolution and something else the convolution. The layer moves to where the function was,
    so that all it reads is there.
(3) A slice of channels that were picked picks them itself.
(4) Layers that nothing reads are dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ort_optim.compiler.layers import (
    Applied,
    AveragePool,
    Convolution,
    Elementwise,
    GlobalAveragePool,
    Layer,
    LayerGraph,
    MaxPool,
    Pick,
    Resize,
    Slice,
)
from ort_optim.compiler.patterns import named

HOSTS = (Convolution, Elementwise, MaxPool, AveragePool, GlobalAveragePool, Resize)
"""Operations that apply an epilogue."""


def fuse(graph: LayerGraph) -> LayerGraph:
    """The same computation with fewer passes over memory."""
    layers = live(_picked(graph, named(graph.layers)), graph.outputs)
    return replace(graph, layers=tuple(_joined(layers, graph.outputs)))


def _uses(layers: Sequence[Layer], outputs: Sequence[int]) -> Counter[int]:
    uses = Counter(value for layer in layers for value in layer.reads)
    uses.update(outputs)
    return uses


def _picked(graph: LayerGraph, layers: Sequence[Layer]) -> list[Layer]:
    """(3)"""
    picks: dict[int, tuple[Pick, Layer]] = {}
    found = []
    for layer in layers:
        if isinstance(layer.op, Slice) and layer.inputs[0] in picks:
            (pick, source), start = picks[layer.inputs[0]], layer.op.start
            channels = pick.channels[start : start + graph.shapes[layer.output].C]
            layer = replace(layer, op=Pick(channels), inputs=source.inputs)
        if isinstance(layer.op, Pick):
            picks[layer.output] = layer.op, layer
        found.append(layer)
    return found


def live(layers: Sequence[Layer], outputs: Iterable[int]) -> list[Layer]:
    """(4): the layers that the outputs need."""
    needed = set(outputs)
    kept = []
    for layer in reversed(layers):
        if layer.output in needed:
            needed.update(layer.reads)
            kept.append(layer)
    return kept[::-1]


def _joined(layers: Sequence[Layer], outputs: Sequence[int]) -> list[Layer]:
    """(2)"""
    uses = _uses(layers, outputs)
    order: dict[int, Layer] = {}
    """Layers so far by the values they make, in order."""
    for layer in layers:
        if isinstance(layer.op, Elementwise):
            layer = _into_host(layer, order, uses)
        order[layer.output] = layer
    return list(order.values())


def _into_host(layer: Layer, order: dict[int, Layer], uses: Counter[int]) -> Layer:
    """The layer as part of one that makes what it reads, which `order` loses; or as is."""
    hosts = [
        (order[value], epilogue)
        for value, epilogue in _sides(layer)
        if value in order and uses[value] == 1 and isinstance(order[value].op, HOSTS)
    ]
    if not hosts:
        return layer
    # Values are numbered in the order in which they are made.
    host, epilogue = max(hosts, key=lambda h: (isinstance(h[0].op, Convolution), h[0].output))
    del order[host.output]
    return replace(host, output=layer.output, epilogue=host.epilogue + epilogue)


def _sides(layer: Layer) -> list[tuple[int, tuple[Applied, ...]]]:
    """The values that a function applies to, each with the epilogue that it is from there."""
    first = layer.epilogue[0]
    found = [(layer.inputs[0], layer.epilogue)]
    if first.operation.operand == "tensor" and isinstance(first.operand, int):
        turned = replace(first.operation, swapped=not first.operation.swapped)
        found.append((first.operand, (Applied(turned, layer.inputs[0]),)))
    return found
