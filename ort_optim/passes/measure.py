"""Why the passes terminate: a measure that every change must lower.

The measure is five natural numbers, compared in order: the weight of all nodes, the number of edges
that carry computed tensors, the number of nodes of arithmetic that read a constant with one short
axis, the number of constants, the number of edges. Such tuples have no infinite falling sequence,
so passes that lower it each time they change something reach a fixed point. The driver checks it
after every pass, in production too: it costs one walk over the nodes.
"""

from __future__ import annotations

import math

from ort_optim.graph.view import Constant, Graph, Tensor

NODE_WEIGHT = 10

WEIGHTS = {
    "Constant": 1,  # what is left of a folded node whose result the graph gives out
    "Pad": 9,  # takes the place of a Concat with zeros
    "Shape": 9,  # takes the place of what gathers sizes one by one
    "FusedConv": 41,  # becomes Conv, Add and an activation
    "ImageScaler": 25,  # becomes Mul and Add
    "Affine": 25,  # the same
    "Crop": 11,  # becomes Slice
    "LRN": 200,  # becomes a chain of cheap nodes
    "If": 11,  # becomes a branch, and an Identity where that gives out a captured tensor
    "Loop": 60,  # run once becomes its body, and a few nodes for what it gives out
    "SequenceAt": 11,  # becomes Squeeze
    "ConcatFromSequence": 11,  # becomes Concat
    "Div": 11,  # by a constant becomes Mul
    "Mish": 85,  # becomes Exp and six cheap nodes
    "Softplus": 65,  # the same, with Tanh and Mul after it
    "ReduceMean": 11,  # of all spatial axes becomes GlobalAveragePool
    "AveragePool": 11,  # the same
    "PRelu": 25,  # becomes Mul and Max
    "Pow": 21,  # to -1/2 becomes Sqrt and Reciprocal
    "Sub": 11,  # of a constant becomes Add
    "Min": 12,  # with a scalar becomes Clip
    "Max": 12,
    "Clip": 11,  # without an upper bound becomes Relu
}
"""Operators that may be replaced by several nodes weigh more than all of those together; a
ConvTranspose with output_shape weighs more than one with padding."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})
SHORT = range(2, 33)

Measure = tuple[int, int, int, int, int]


def measure(root: Graph) -> Measure:
    """The measure of the graph and all its subgraphs together."""
    weight = computed = short = constants = edges = 0
    for graph in root.walk():
        constants += len(graph.constants)
        for node in graph.nodes:
            weight += WEIGHTS.get(node.op, NODE_WEIGHT) + ("output_shape" in node.attrs)
            named = [tensor for tensor in node.inputs if tensor.name]
            edges += len(named)
            computed += sum(not isinstance(tensor, Constant) for tensor in named)
            short += node.op in ARITHMETIC and any(map(has_short_axis, named))
    return weight, computed, short, constants, edges


def has_short_axis(tensor: Tensor) -> bool:
    """Whether it is a constant whose elements all lie along a last axis of at most 32."""
    if not isinstance(tensor, Constant) or not tensor.shape:
        return False
    return tensor.shape[-1] in SHORT and math.prod(tensor.shape) == tensor.shape[-1]
