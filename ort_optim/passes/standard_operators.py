"""Operators that only ONNX Runtime has, written as those of the standard.

(1) FusedConv(x, w, b, z; activation)   =>  activation(Conv(x, w, b) + z)
(2) ImageScaler(x; scale, bias)         =>  x * scale + bias, a bias for each channel
(3) Affine(x; alpha, beta)              =>  x * alpha + beta
(4) Crop(x; border, scale)              =>  Slice(x), rows and columns

FusedConv (domain com.microsoft) is what ONNX Runtime writes when it saves a model that it has
optimized; in a session it fuses Conv and activation again. The others were experiments of ONNX 1.0
to 1.4, which ONNX Runtime keeps up to opset 9. Shape inference stops at any of them, and with it
all that asks for a type, a rank or a size.

Measured on whole models, one thread, ms: as they were, with this and the passes that then find
something to do, and with regions, which there could be none of before:

    openseeface gaze       FusedConv      0.35    0.20    0.14
    openseeface landmarks  FusedConv      3.05    2.74    2.31
    squeezenet             ImageScaler    3.61    3.09    1.81
    fns_candy              all three      383     378     182

Conditions: (5) float32, the only type of their kernels on CPUs; (6) attributes that those kernels
accept, else the model fails as it did; (7) opset 7 where Add and Mul come in, of which ONNX Runtime
has no kernels before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor, Variable
from ort_optim.graph.walk import STANDARD_DOMAINS
from ort_optim.graph.weights import Array
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.edits import compute
from ort_optim.passes.common.match import attr, input_or_none
from ort_optim.passes.common.movement import END, Window, slice_inputs

NAME = "standard-operators"

CONTRIB = "com.microsoft"

ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""What FusedConv fuses, and its parameters in the order of `activation_params`."""

Rewrite = Callable[[Node, Graph, Context], None]


def rewrite(root: Graph, ctx: Context) -> None:
    """Replace all such operators."""
    for graph in list(root.walk()):
        for node in graph.nodes:
            kind = ("" if node.domain in (*STANDARD_DOMAINS, None) else node.domain, node.op)
            if kind in _REWRITES and kind not in graph.model.functions and not node.dead:
                _REWRITES[kind](node, graph, ctx)


def _fused_conv(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (1)."""
    attrs = dict(node.attrs)
    op = attrs.pop("activation", "")
    parameters = tuple(attrs.pop("activation_params", ()))
    weights, added = node.inputs[1], input_or_none(node, 3)
    if weights.dtype != np.float32:  # (5)
        return ctx.refuse(NAME, node, "its weights are not known to be float32")
    if added is not None and graph.opset < 7:  # (7)
        return ctx.refuse(NAME, node, f"opset {graph.opset}")
    if op and (op not in ACTIVATIONS or len(parameters) != len(ACTIVATIONS[op])):  # (6)
        return ctx.refuse(NAME, node, f"activation '{op}' with {len(parameters)} parameters")
    if not ctx.fuel(NAME, node, " and ".join(filter(None, ("Conv", "Add" * bool(added), op)))):
        return None
    last = op or ("Add" if added is not None else "Conv")
    inputs: list[Tensor] = list(node.inputs[:3])
    if last != "Conv":
        inputs = [_computed("Conv", inputs, attrs, node)]
        attrs = {}
    if added is not None:
        inputs.append(added)
        if last != "Add":
            inputs = [_computed("Add", inputs, {}, node)]
    if op == "Clip" and graph.opset >= 11:
        bounds = zip(ACTIVATIONS[op], parameters, strict=True)
        inputs += [
            graph.constant(np.array(b, np.float32), f"{node.key}_{name}") for name, b in bounds
        ]
    else:
        attrs |= dict(zip(ACTIVATIONS.get(op, ()), parameters, strict=True))
    graph.replace(node, last, inputs, **attrs)
    return None


def _computed(op: str, inputs: Sequence[Tensor], attrs: Mapping[str, Any], node: Node) -> Variable:
    """A step of `node`, of whose output inference has yet to find the shape."""
    made = compute(op, inputs, op.lower(), attrs, at=node)
    made.dtype, made.shape = np.dtype(np.float32), None
    return made


def _image_scaler(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (2)."""
    bias = np.array(attr(node, "bias", ()), np.float32)
    if "scale" not in node.attrs or bias.size == 0:  # (6)
        return ctx.refuse(NAME, node, "it has no scale or no bias")
    _scaled(node, float(node.attrs["scale"]), bias.reshape(-1, 1, 1), graph, ctx)
    return None


def _affine(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (3)."""
    if not {"alpha", "beta"} <= node.attrs.keys():  # (6)
        return ctx.refuse(NAME, node, "it has no alpha or no beta")
    shift = np.array(node.attrs["beta"], np.float32)
    _scaled(node, float(node.attrs["alpha"]), shift, graph, ctx)
    return None


def _scaled(node: Node, scale: float, shift: Array, graph: Graph, ctx: Context) -> None:
    """x * scale + shift."""
    if graph.opset < 7:  # (7)
        return ctx.refuse(NAME, node, f"opset {graph.opset}")
    if not ctx.fuel(NAME, node, "Mul and Add"):
        return None
    factor = graph.constant(np.array(scale, np.float32), f"{node.key}_scale")
    product = compute("Mul", [node.inputs[0], factor], "scaled", at=node)
    graph.replace(node, "Add", [product, graph.constant(shift, f"{node.key}_shift")])
    return None


def _crop(node: Node, graph: Graph, ctx: Context) -> None:
    """Case (4)."""
    border, size = attr(node, "border", ()), attr(node, "scale", ())
    if len(border) != 4 or len(size) not in (0, 2) or min((*border, *size)) < 0:  # (6)
        return ctx.refuse(NAME, node, f"border {list(border)}, scale {list(size)}")
    left, top, right, bottom = border
    ends = (-bottom or END, -right or END)
    if size:
        ends = (top + size[0], left + size[1])
    if not ctx.fuel(NAME, node, "Slice of rows and columns"):
        return None
    wanted = {2: Window(top, ends[0]), 3: Window(left, ends[1])}
    inputs, attrs = slice_inputs(graph, node.inputs[0], wanted, node.key)
    graph.replace(node, "Slice", inputs, **attrs)
    return None


_REWRITES: dict[tuple[str, str], Rewrite] = {
    (CONTRIB, "FusedConv"): _fused_conv,
    ("", "ImageScaler"): _image_scaler,
    ("", "Affine"): _affine,
    ("", "Crop"): _crop,
}

PASS = GraphPass(NAME, rewrite)
