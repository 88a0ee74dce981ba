"""Layers that are linear in their input and have constant weights, and arithmetic folded into them.

    Conv                 W (Cout, Cin/group, *kernel)                  channel axis 1 of the output
    ConvTranspose        W (Cin, Cout/group, *kernel)                  channel axis 1
    Gemm                 B (K, N), or (N, K) with transB;              channel axis 1
                         Y = alpha A' B' + beta C
    MatMul               B (K, N)                                      channel axis last
    BatchNormalization   scale, B, mean, var (C)                       channel axis 1

For a layer L with channels c, per-channel constants s and t:

    s * L(x) + t  =>  L'(x)   with W'[c] = s[c] W[c],  bias'[c] = s[c] bias[c] + t[c]
    L(s * x + t)  =>  L'(x)   with W'[., k] = s[k] W[., k],  bias' = bias + sum_k W[., k] t[k]

All arithmetic is done in float64 and rounded once to the type of the weight.

Names used here
    Layer            a node and its constant weight and bias
    layer_of         Node -> Layer, or why not
    channel_vector   a constant operand -> one value per channel, if that is what it is
    fold_after       constants for s * L(x) + t
    fold_before      constants for L(s * x + t)
    replace_layer    puts the folded constants into the graph; a MatMul that gets a bias as Gemm
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.graph.weights import Array
from ort_optim.passes.common.match import attr, input_or_none, is_float, rank

Vector = NDArray[np.float64]

OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")

HALF_ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
"""The largest relative error of rounding a normal number to the type."""

SMALLEST_NORMAL = {
    "float16": 0.0,
    "bfloat16": 2.0**-126,
    "float32": 2.0**-126,
    "float64": 2.0**-1022,
}
"""What a weight may lose at any rate: channels that training drove to 1e-40 do exist, and are zero.
Half precision has no such numbers to give away."""


@dataclass(frozen=True)
class Layer:
    """A linear layer. `trailing` counts the output's dimensions after the channel axis.

    `rank` is that of the input and the output, None if unknown (MatMul only).
    """

    node: Node
    weight: Constant
    bias: Constant | None
    inputs: int  # channels in
    outputs: int  # channels out
    trailing: int
    rank: int | None

    @property
    def output(self) -> Variable:
        """The layer's output tensor."""
        made: Variable = self.node.outputs[0]
        return made

    @property
    def can_shift(self) -> bool:
        """Whether it has a bias, or is a MatMul of matrices, which a Gemm with a bias replaces."""
        if not self.node.is_op("MatMul"):
            return True
        return self.rank == 2 and self.node.graph is not None and self.node.graph.opset >= 7

    @property
    def group(self) -> int:
        """Channel groups; 1 but for convolutions."""
        return int(attr(self.node, "group", 1))


@dataclass(frozen=True)
class Folded:
    """New constants of a layer; None where the old one stays."""

    weight: Array | None
    bias: Array | None
    grows_bytes: int


def layer_of(node: Node) -> Layer | str:
    """The node as a layer, or the reason why nothing can be folded into it."""
    if not node.is_op(*OPS) or len(node.inputs) < 2:
        return "not a linear layer"
    weight = node.inputs[1]
    if not isinstance(weight, Constant):
        return "its weight is not a constant"
    if not is_float(weight) or weight.dtype.name not in HALF_ULP:
        return "its weight is not of a floating-point type"
    bias = input_or_none(node, 2)
    if bias is not None and not isinstance(bias, Constant):
        return "its bias is not a constant"
    shape = tuple(weight.shape)
    match node.op:
        case "Conv" | "ConvTranspose":
            return _convolution(node, weight, bias, shape)
        case "Gemm":
            if node.graph is None or node.graph.opset < 7 or len(shape) != 2:
                return "Gemm of an old opset, or its weight is not a matrix"
            k, n = shape if not attr(node, "transB", 0) else shape[::-1]
            if bias is not None and not _is_row(bias.shape, n):
                return "its bias is not one value per column"
            return Layer(node, weight, bias, k, n, 0, 2)
        case "MatMul":
            if len(shape) != 2:
                return "its weight is not a matrix"
            return Layer(node, weight, None, shape[0], shape[1], 0, rank(node.inputs[0]))
    return _batch_normalization(node, weight, bias, shape)


def _convolution(
    node: Node, weight: Constant, bias: Constant | None, shape: tuple[int, ...]
) -> Layer | str:
    group = int(attr(node, "group", 1))
    if len(shape) < 3 or group < 1 or shape[0] % group or 0 in shape:
        return "its weight has an impossible shape"
    inputs, outputs = shape[1] * group, shape[0]
    if node.op == "ConvTranspose":
        inputs, outputs = outputs, inputs
    if bias is not None and tuple(bias.shape) != (outputs,):
        return "its bias is not one value per channel"
    return Layer(node, weight, bias, inputs, outputs, len(shape) - 2, len(shape))


def _batch_normalization(
    node: Node, weight: Constant, bias: Constant | None, shape: tuple[int, ...]
) -> Layer | str:
    found = batch_normalization_terms(node)
    if isinstance(found, str):
        return found
    known = rank(node.inputs[0])
    if known is None or known < 2:
        return "the rank of its input is unknown"
    return Layer(node, weight, bias, shape[0], shape[0], known - 2, known)


def batch_normalization_terms(node: Node) -> tuple[Vector, Vector] | str:
    """s and t of BatchNormalization(x) = s * x + t, or why it is not that.

    (1) inference only, (2) statistics per channel (spatial), (3) all four parameters constant
    vectors, (4) var + epsilon positive, so that s and t are finite.
    """
    opset = node.graph.opset if node.graph is not None else 1
    if attr(node, "training_mode", 0) or (opset < 7 and not attr(node, "is_test", 0)):
        return "it is in training mode"  # (1)
    if any(out.name for out in node.outputs[1:]):
        return "its running statistics are outputs"  # (1)
    if opset < 9 and attr(node, "spatial", 1) != 1:
        return "its statistics are not per channel (spatial=0)"  # (2)
    parameters = node.inputs[1:5]
    if len(parameters) < 4 or not all(isinstance(each, Constant) for each in parameters):
        return "its parameters are not constants"  # (3)
    if len({tuple(each.shape) for each in parameters}) != 1 or len(parameters[0].shape) != 1:
        return "its parameters are not vectors of one length"  # (3)
    scale, bias, mean, variance = (each.values.astype(np.float64) for each in parameters)
    widened = variance + attr(node, "epsilon", 1e-5)
    if not np.all(widened > 0):
        return "var + epsilon is not positive"  # (4)
    s = scale / np.sqrt(widened)
    t = bias - mean * s
    if not (np.all(np.isfinite(s)) and np.all(np.isfinite(t))):
        return "its parameters are not finite"
    return s, t


def channel_vector(operand: Tensor, channels: int, trailing: int, max_rank: int) -> Vector | None:
    """The constant as one float64 value per channel, (channels,).

    None unless `operand` is a constant that, broadcast against a tensor of rank `max_rank` with
    its `channels` at `trailing` dimensions from the end, leaves that tensor's shape as it is and
    depends on the channel alone.
    """
    if not isinstance(operand, Constant) or operand.dtype.name not in HALF_ULP:
        return None
    shape = tuple(operand.shape)
    if len(shape) > max_rank:
        return None
    if math.prod(shape) == 1:
        return np.full(channels, float(operand.values.astype(np.float64).reshape(-1)[0]))
    if math.prod(shape) != channels or len(shape) <= trailing:
        return None
    if shape[len(shape) - 1 - trailing] != channels:
        return None
    return operand.values.astype(np.float64).reshape(-1)


def fold_after(layer: Layer, scale: Vector | None, shift: Vector | None) -> Folded | str:
    """Constants that make the layer compute scale * L(x) + shift, or why rounding forbids it."""
    weight = None
    if scale is not None:
        weight = _scaled(layer.weight, *_output_blocks(layer), scale)
        if weight is None:
            return "a weight would lose precision or overflow"
    bias = _bias(layer)
    if scale is not None and layer.bias is not None:
        bias = bias * scale
    if shift is not None:
        bias = bias + shift
    if shift is None and (layer.bias is None or scale is None):
        return _folded(layer, weight, None)
    return _with_bias(layer, weight, bias)


def fold_before(layer: Layer, scale: Vector | None, shift: Vector | None) -> Folded | str:
    """Constants that make the layer compute L(scale * x + shift), or why rounding forbids it.

    A shift needs every output to see the whole kernel: no padding, and no ConvTranspose, whose
    border sums fewer terms.
    """
    if layer.node.is_op("BatchNormalization"):
        return "a batch normalization has no weight to fold into"
    is_uniform = all(terms is None or np.ptp(terms) == 0 for terms in (scale, shift))
    if layer.node.is_op("Gemm") and attr(layer.node, "transA", 0) and not is_uniform:
        return "it contracts the other axis of what it transposes"
    blocks = _input_blocks(layer)
    weight = None
    if scale is not None:
        weight = _scaled(layer.weight, *blocks, scale)
        if weight is None:
            return "a weight would lose precision or overflow"
    if shift is None or not np.any(shift):
        return _folded(layer, weight, None)
    shape, axes = blocks
    if layer.node.is_op("Conv") and not is_unpadded(layer.node):
        return "its padding would have to be shifted as well"
    spread = np.reshape(shift, [dim if i in axes else 1 for i, dim in enumerate(shape)])
    products = layer.weight.values.reshape(shape).astype(np.float64) * spread
    match layer.node.op:
        case "Conv":  # (group, Cout/group, Cin/group, KH*KW) -> (Cout,)
            added = products.sum(axis=(2, 3)).reshape(-1)
        case "Gemm" | "MatMul":  # (K, N) or (N, K) -> (N,)
            added = attr(layer.node, "alpha", 1.0) * products.sum(axis=axes[0])
        case _:
            return "it has no bias that could take the shift"
    return _with_bias(layer, weight, _bias(layer) + added)


def replace_layer(graph: Graph, layer: Layer, folded: Folded, source: Tensor | None = None) -> Node:
    """Put a layer with the folded constants, reading `source` if given, in the layer's place."""
    node = layer.node
    inputs: list[Tensor] = list(node.inputs)
    attrs: dict[str, Any] = dict(node.attrs)
    if source is not None:
        inputs[0] = source
    if folded.weight is not None:
        inputs[1] = graph.constant(folded.weight, f"{layer.weight.name}_folded")
    if folded.bias is not None:
        hint = layer.bias.name if layer.bias is not None else f"{node.key}_bias"
        made = graph.constant(folded.bias, f"{hint}_folded")
        inputs[2:3] = [made]
        attrs.pop("beta", None)
    op = "Gemm" if node.is_op("MatMul") and folded.bias is not None else node.op
    return graph.replace(node, op, inputs, **attrs)


def is_unpadded(convolution: Node) -> bool:
    """Whether every output of a Conv is computed from inputs alone, whatever the input's size."""
    if attr(convolution, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    return attr(convolution, "auto_pad", "NOTSET") == "VALID" or not any(
        attr(convolution, "pads", ())
    )


def _bias(layer: Layer) -> Vector:
    """The bias as it is added, beta included, (outputs,)."""
    if layer.bias is None:
        return np.zeros(layer.outputs)
    values = layer.bias.values.astype(np.float64).reshape(-1)
    beta = attr(layer.node, "beta", 1.0) if layer.node.is_op("Gemm") else 1.0
    return np.broadcast_to(values * beta, (layer.outputs,))


def _with_bias(layer: Layer, weight: Array | None, bias: Vector) -> Folded | str:
    if not layer.can_shift:
        return "it has no bias that could take the shift"
    dtype = layer.bias.dtype if layer.bias is not None else layer.weight.dtype
    with np.errstate(over="ignore"):
        rounded = bias.astype(dtype)
    if not np.all(np.isfinite(rounded.astype(np.float64))):
        return "the bias would overflow"
    return _folded(layer, weight, rounded)


def _folded(layer: Layer, weight: Array | None, bias: Array | None) -> Folded:
    shared = weight is not None and len(layer.weight.outputs) > 1
    return Folded(weight, bias, layer.weight.nbytes if shared else 0)


def _scaled(
    weight: Constant, shape: Sequence[int], axes: tuple[int, ...], scale: Vector
) -> Array | None:
    """The weight, seen in `shape`, times one factor per index of `axes`; None if it suffers.

    Rounding may move no element by more than half an ulp of the largest one of its channel. This
    refuses overflow, and in half precision a channel that sinks below the smallest normal number.
    """
    factors = np.reshape(scale, [dim if i in axes else 1 for i, dim in enumerate(shape)])
    exact = weight.values.reshape(shape) * factors.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(weight.dtype)
    others = tuple(i for i in range(len(shape)) if i not in axes)
    largest = np.maximum(np.max(exact, axis=others), -np.min(exact, axis=others))
    error = np.subtract(rounded, exact, out=exact)  # in place: weights may fill half the memory
    error = np.abs(error, out=error).max(axis=others)
    name = weight.dtype.name
    if not np.all(error <= np.maximum(HALF_ULP[name] * largest, SMALLEST_NORMAL[name])):  # nor NaN
        return None
    return rounded.reshape(weight.shape)


def _output_blocks(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape of the weight, and its axes that run over the output channels."""
    shape, group = tuple(layer.weight.shape), layer.group
    match layer.node.op:
        case "Conv":
            return (shape[0], math.prod(shape[1:])), (0,)
        case "ConvTranspose":  # (Cin, Cout/group, ...) -> (group, Cin/group, Cout/group, KH*KW)
            return (group, shape[0] // group, shape[1], math.prod(shape[2:])), (0, 2)
        case "Gemm" if attr(layer.node, "transB", 0):
            return shape, (0,)
        case "BatchNormalization":
            return shape, (0,)
    return shape, (1,)


def _input_blocks(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape of the weight, and its axes that run over the input channels."""
    shape, group = tuple(layer.weight.shape), layer.group
    match layer.node.op:
        case "Conv":  # (Cout, Cin/group, ...) -> (group, Cout/group, Cin/group, KH*KW)
            return (group, shape[0] // group, shape[1], math.prod(shape[2:])), (0, 2)
        case "ConvTranspose":
            return (shape[0], math.prod(shape[1:])), (0,)
        case "Gemm" if attr(layer.node, "transB", 0):
            return shape, (1,)
    return shape, (0,)


def _is_row(shape: Sequence[int], columns: int) -> bool:
    """Whether a Gemm bias of this shape is one value for each column."""
    if len(shape) > 2 or (len(shape) == 2 and shape[0] != 1):
        return False
    return math.prod(shape) == 1 or shape[-1] == columns
