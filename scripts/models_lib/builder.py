"""Seeded random weights that keep a network's activations in range, and a small graph builder.

`fill_weights` draws the weights of any CNN graph, He-normal. An estimate of each tensor's mean and
variance is carried along the graph, and every batch normalisation gets the running statistics that
its input is expected to have, so that the depth neither blows up nor starves the signal; the last
matrix gives logits of standard deviation about 2.

    fill_weights, Weights    parameters by role
    Moments                  the estimate, and how each operator changes it
    GraphBuilder             nodes one by one
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LOGIT_STD = 2.0
RESIDUAL_GAIN = 0.5  # batch-norm scale on the branch of a residual add


class Weights:
    """Float parameters of a graph, drawn when first asked for."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
        self.shapes = shapes
        self.values: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(seed)

    def normal(self, name: str, mean: float, std: float) -> None:
        """Draws `name` unless a node before has drawn it (some files share small vectors)."""
        if name in self.shapes and name not in self.values:
            drawn = self._rng.standard_normal(self.shapes[name], np.float32)
            self.values[name] = drawn * np.float32(std) + np.float32(mean)

    def positive(self, name: str, centre: float) -> None:
        """Draws `name` evenly from 0.8 to 1.25 times `centre`."""
        if name in self.shapes and name not in self.values:
            drawn = self._rng.uniform(0.8, 1.25, self.shapes[name])
            self.values[name] = (drawn * centre).astype(np.float32)


class Moments(NamedTuple):
    """Mean and variance of a tensor's elements, over the random weights; `channels` weighs it in
    a Concat."""

    mean: float
    variance: float
    channels: int = 1

    @property
    def square(self) -> float:
        """E[x^2]."""
        return self.mean**2 + self.variance


INPUT_MOMENTS = Moments(0.0, 1.0)  # inputs are taken to be normalised pictures


def fill_weights(nodes: Sequence[onnx.NodeProto], weights: Weights, outputs: Sequence[str]) -> None:
    """Draws every parameter that `nodes` (in topological order) use, by its role."""
    moments: dict[str, Moments] = {}
    aliases: dict[str, str] = {}  # output of an Unsqueeze or Reshape of a parameter
    residual = _residual_branches(nodes)
    logits = _logits(nodes, outputs)
    for node in nodes:
        x = node.input[0]
        if node.op_type in ("Unsqueeze", "Reshape") and aliases.get(x, x) in weights.shapes:
            aliases[node.output[0]] = aliases.get(x, x)
            continue
        names = [aliases.get(name, name) for name in node.input]
        known = [moments.get(name, INPUT_MOMENTS) for name in node.input]
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            gain = LOGIT_STD**2 / known[0].square if node.output[0] in logits else 2.0
            result = _draw_product(node, names, known[0], gain, weights)
        elif node.op_type == "BatchNormalization":
            scale = RESIDUAL_GAIN if node.output[0] in residual else 1.0
            result = _draw_batch_norm(names, known[0], scale, weights)
        elif node.op_type in ("Mul", "Add") and names[1] in weights.shapes:
            if node.op_type == "Mul":
                weights.positive(names[1], 1.0)
            else:
                weights.normal(names[1], 0.0, 0.1)
            result = known[0]
        else:
            result = _pass_on(node, known)
        moments[node.output[0]] = result


def _draw_product(
    node: onnx.NodeProto, names: list[str], x: Moments, gain: float, weights: Weights
) -> Moments:
    """Draws matrix or kernel with variance gain / fan-in, and a small bias."""
    fan_in = _fan_in(node, weights.shapes[names[1]])
    weights.normal(names[1], 0.0, math.sqrt(gain / fan_in))
    if len(names) > 2:
        weights.normal(names[2], 0.0, 0.05)
    channels = weights.shapes[names[1]][0 if node.op_type == "Conv" else 1]
    return Moments(0.0, x.square * gain, channels)


def _draw_batch_norm(names: list[str], x: Moments, scale: float, weights: Weights) -> Moments:
    """Draws scale, bias, running mean and variance, the last two as the input needs them."""
    weights.positive(names[1], scale)
    weights.normal(names[2], 0.0, 0.1)
    weights.normal(names[3], x.mean, 0.1 * math.sqrt(x.variance))
    weights.positive(names[4], x.variance)
    return Moments(0.0, scale**2, x.channels)


def _pass_on(node: onnx.NodeProto, inputs: list[Moments]) -> Moments:
    """Moments of the output of a node without parameters."""
    op, x = node.op_type, inputs[0]
    if op == "Relu":  # of a normal variable
        std = math.sqrt(x.variance)
        below = 0.5 * (1 + math.erf(x.mean / std / math.sqrt(2)))
        density = math.exp(-0.5 * x.mean**2 / x.variance) / math.sqrt(2 * math.pi)
        mean = x.mean * below + std * density
        variance = x.square * below + x.mean * std * density - mean**2
        return Moments(mean, variance, x.channels)
    if op in ("Sum", "Add"):
        mean, variance = sum(m.mean for m in inputs), sum(m.variance for m in inputs)
        return Moments(mean, variance, x.channels)
    if op == "Concat":
        channels = sum(m.channels for m in inputs)
        mean = sum(m.mean * m.channels for m in inputs) / channels
        square = sum(m.square * m.channels for m in inputs) / channels
        return Moments(mean, square - mean**2, channels)
    if op == "MaxPool":  # by how much the largest of a window exceeds the average, as observed
        excess = 0.9 if _kernel_size(node) <= 4 else 1.4
        return Moments(x.mean + excess * math.sqrt(x.variance), x.variance, x.channels)
    if op in ("AveragePool", "GlobalAveragePool"):
        # Most of the variance is between channels, and stays.
        return Moments(x.mean, 0.85 * x.variance, x.channels)
    return x


def _fan_in(node: onnx.NodeProto, shape: tuple[int, ...]) -> float:
    """How many products each output element sums up."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":  # (Cout, Cin / group, KH, KW)
        return float(np.prod(shape[1:]))
    if node.op_type == "ConvTranspose":  # (Cin, Cout / group, KH, KW)
        return shape[0] * float(np.prod(shape[2:])) / np.prod(attributes.get("strides", [1]))
    # Some files hold the matrix with leading ones and a Reshape before the Gemm.
    matrix = [d for d in shape if d != 1] or [1]
    return float(matrix[-1] if attributes.get("transB", 0) else matrix[0])


def _kernel_size(node: onnx.NodeProto) -> int:
    """Elements in a pooling window."""
    shape = next(a for a in node.attribute if a.name == "kernel_shape")
    return math.prod(shape.ints)


def _residual_branches(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Outputs of the batch norms that end a residual branch: the first summand of Sum or Add
    where another summand comes straight from an activation or a shortcut of its own."""
    producers = {out: node for node in nodes for out in node.output}
    found = set()
    for node in nodes:
        if node.op_type in ("Sum", "Add") and len(node.input) == 2:
            first = producers.get(node.input[0])
            if first is not None and first.op_type == "BatchNormalization":
                found.add(node.input[0])
    return found


def _logits(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> set[str]:
    """Outputs of the last weighted node before each graph output, across Softmax and the like."""
    producers = {out: node for node in nodes for out in node.output}
    found = set()
    for output in outputs:
        node = producers[output]
        while node.op_type not in ("Conv", "Gemm"):
            node = producers[node.input[0]]
        found.add(node.output[0])
    return found


class GraphBuilder:
    """Appends nodes one by one; every weight is declared by shape and drawn by `build`."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._nodes: list[onnx.NodeProto] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._constants: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node with one output; returns the output's name."""
        label = f"{op}_{len(self._nodes)}"
        output = f"{label}_out"
        self._nodes.append(helper.make_node(op, inputs, [output], label, **attributes))
        return output

    def weight(self, role: str, *shape: int) -> str:
        """Declares a parameter; returns its name."""
        name = f"{role}_{len(self._shapes)}"
        self._shapes[name] = shape
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a constant as it is."""
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def conv(
        self, x: str, cin: int, cout: int, kernel: int, stride: int = 1, *, bias: bool = False
    ) -> str:
        """A square "same" convolution."""
        inputs = [x, self.weight("weight", cout, cin, kernel, kernel)]
        inputs += [self.weight("bias", cout)] if bias else []
        side = [kernel, kernel]
        return self.node(
            "Conv", *inputs, kernel_shape=side, strides=[stride] * 2, pads=[kernel // 2] * 4
        )

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalisation with its four parameters."""
        roles = ("scale", "bias", "mean", "var")
        return self.node("BatchNormalization", x, *(self.weight(r, channels) for r in roles))

    def conv_bn_relu(self, x: str, cin: int, cout: int, kernel: int, stride: int = 1) -> str:
        """Conv without bias, batch norm, ReLU."""
        return self.node("Relu", self.batch_norm(self.conv(x, cin, cout, kernel, stride), cout))

    def build(self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> onnx.ModelProto:
        """The model, opset 13, its weights drawn; `outputs` are names returned by `node`."""
        weights = Weights(self._shapes, self._seed)
        fill_weights(self._nodes, weights, list(outputs))
        initializers = [numpy_helper.from_array(v, n) for n, v in weights.values.items()]
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            initializers + self._constants,
        )
        opsets = [helper.make_opsetid("", 13)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
