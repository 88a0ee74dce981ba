"""The functions of epilogues in NumPy: float32 arrays in, float32 arrays out.

    UNARY    by kind, `function(x, *numbers)`
    BINARY   by kind, `function(a, b)`

Kinds are those of `kernels.functions`, whose polynomials these are the definitions of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    found: Array = np.asarray(_erf(x.astype(np.float64))).astype(np.float32)
    return found


def sigmoid(x: Array) -> Array:
    found: Array = np.reciprocal(1 + np.exp(-x))
    return found


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    found: Array = np.minimum(np.maximum(x * alpha + beta, 0), 1)
    return found


def gelu_tanh(x: Array) -> Array:
    found: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return found


def prelu(x: Array, slope: Array | float) -> Array:
    return np.where(x < 0, x * slope, x)


UNARY: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "relu": lambda x: np.maximum(x, 0),
        "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
        "leaky_relu": prelu,
        "elu": lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x),
        "sigmoid": sigmoid,
        "silu": lambda x: x * sigmoid(x),
        "hard_sigmoid": hard_sigmoid,
        "hard_swish": lambda x: x * hard_sigmoid(x, 1 / 6, 0.5),
        "tanh": np.tanh,
        "erf": erf,
        "gelu": lambda x: 0.5 * x * (1 + erf(x * math.sqrt(0.5))),
        "gelu_tanh": gelu_tanh,
        "mish": lambda x: x * np.tanh(np.logaddexp(x, np.float32(0))),
        "softplus": lambda x: np.logaddexp(x, np.float32(0)),
        "exp": np.exp,
        "sqrt": np.sqrt,
        "abs": np.abs,
        "neg": np.negative,
        "add_number": lambda x, number: x + number,
        "mul_number": lambda x, number: x * number,
        "div_number": lambda x, number: x / number,
        "number_sub": lambda x, number: number - x,
        "number_div": lambda x, number: number / x,
    }
)

BINARY: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "min": np.minimum,
        "max": np.maximum,
        "prelu": prelu,
    }
)
