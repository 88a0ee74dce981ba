"""Functions of vectors: activations and what they are made of.

`UNARY` holds functions of one vector and some constants, `BINARY` of two vectors. They keep NaN, as
ONNX Runtime's do.
"""

from __future__ import annotations

from collections.abc import Callable

from ort_optim.kernels.builder import Code, Vec


def relu(code: Code, x: Vec) -> Vec:
    """max(x, 0)"""
    return x.maximum(0.0)


def clip(code: Code, x: Vec, low: float, high: float) -> Vec:
    """min(max(x, low), high)"""
    return x.maximum(low).minimum(high)


UNARY: dict[str, Callable[..., Vec]] = {
    "relu": relu,
    "clip": clip,
}

BINARY: dict[str, Callable[[Code, Vec, Vec], Vec]] = {
    "add": lambda code, a, b: a + b,
    "sub": lambda code, a, b: a - b,
    "mul": lambda code, a, b: a * b,
}
