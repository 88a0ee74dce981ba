"""ONNX's operators as layers: one parser for each.

windows.py      convolutions and poolings
elementwise.py  functions of one tensor and of two
movement.py     channels; height and width

A parser is right for all operator sets from 6 on. It adds layers to the scope of its node, or
raises Refusal where there is no code for what the node asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ort_optim.compiler.operators import elementwise, movement, windows
from ort_optim.compiler.scope import Node

Parser = Callable[[Node], None]

OPERATORS: Mapping[str, Parser] = MappingProxyType(
    {
        "Abs": elementwise.unary("abs"),
        "Add": elementwise.binary("add"),
        "AveragePool": windows.average_pool,
        "BatchNormalization": elementwise.batch_normalization,
        "Clip": elementwise.clip,
        "Concat": movement.concat,
        "Conv": windows.conv,
        "ConvTranspose": windows.conv_transpose,
        "Div": elementwise.binary("div"),
        "Elu": elementwise.unary("elu", alpha=1.0),
        "Erf": elementwise.unary("erf"),
        "Exp": elementwise.unary("exp"),
        "Gather": movement.gather,
        "Gelu": elementwise.gelu,
        "GlobalAveragePool": windows.global_average_pool,
        "HardSigmoid": elementwise.unary("hard_sigmoid", alpha=0.2, beta=0.5),
        "HardSwish": elementwise.unary("hard_swish"),
        "LeakyRelu": elementwise.unary("leaky_relu", alpha=0.01),
        "Max": elementwise.maximum,
        "MaxPool": windows.max_pool,
        "Min": elementwise.minimum,
        "Mish": elementwise.unary("mish"),
        "Mul": elementwise.binary("mul"),
        "Neg": elementwise.unary("neg"),
        "PRelu": elementwise.p_relu,
        "Pad": movement.pad,
        "ReduceMean": windows.reduce_mean,
        "Relu": elementwise.unary("relu"),
        "Resize": movement.resize,
        "Sigmoid": elementwise.unary("sigmoid"),
        "Slice": movement.slice_,
        "Softplus": elementwise.unary("softplus"),
        "Split": movement.split,
        "Sqrt": elementwise.unary("sqrt"),
        "Sub": elementwise.binary("sub"),
        "Sum": elementwise.binary("add"),
        "Swish": elementwise.swish,
        "Tanh": elementwise.unary("tanh"),
        "Upsample": movement.upsample,
    }
)
"""By operator what makes layers of a node. It raises Refusal where there is no code for it."""
