"""Functions written out in several layers, as the one function that they are.

    silu         x * sigmoid(x)
    hard_swish   x * hard_sigmoid(x), alpha = 1/6, beta = 1/2
    mish         x * tanh(softplus(x)); x * n / (n + 2), n = e (e + 2), e = exp(min(x, 20))
    gelu         x * (1 + erf(x / sqrt 2)) / 2, the half at any place

The layers in between stay: something else may read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ort_optim.compiler.layers import Applied, Elementwise, Layer
from ort_optim.kernels.epilogue import Operation

NEAR = 1e-6  # of a number's size, some ulps of float32


@dataclass(frozen=True)
class _Call:
    """A function of the layers: its kind, its arguments (None for x itself) and its numbers."""

    kind: str
    arguments: tuple[_Call | None, ...]
    numbers: tuple[float, ...] = ()


def _call(kind: str, *arguments: _Call | None, numbers: Sequence[float] = ()) -> _Call:
    return _Call(kind, arguments, tuple(numbers))


def _number(kind: str, argument: _Call | None, number: float) -> _Call:
    return _Call(f"{kind}_number", (argument,), (number,))


def _gelus() -> Iterator[_Call]:
    for inner in (_number("div", None, math.sqrt(2)), _number("mul", None, math.sqrt(0.5))):
        gate = _number("add", _call("erf", inner), 1)
        for half in (("mul", 0.5), ("div", 2.0)):
            yield _number(half[0], _call("mul", None, gate), half[1])
            yield _call("mul", None, _number(half[0], gate, half[1]))
            yield _call("mul", _number(half[0], None, half[1]), gate)


def _mish_of_exponentials() -> _Call:
    e = _call("exp", _call("clip", None, numbers=(-math.inf, 20)))
    n = _call("mul", e, _number("add", e, 2))
    return _call("mul", None, _call("div", n, _number("add", n, 2)))


PATTERNS: Sequence[tuple[str, _Call]] = (
    ("silu", _call("mul", None, _call("sigmoid", None))),
    ("hard_swish", _call("mul", None, _call("hard_sigmoid", None, numbers=(1 / 6, 0.5)))),
    ("mish", _call("mul", None, _call("tanh", _call("softplus", None)))),
    ("mish", _mish_of_exponentials()),
    *(("gelu", each) for each in _gelus()),
)


def named(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers, of which those that end a pattern compute its function directly."""
    made = {layer.output: layer for layer in layers}
    return [_named(layer, made) for layer in layers]


def _named(layer: Layer, made: Mapping[int, Layer]) -> Layer:
    for kind, pattern in PATTERNS:
        x = next(_matches(pattern, layer.output, made, None), None)
        if x is not None:
            return replace(layer, inputs=(x,), epilogue=(Applied(Operation(kind)),))
    return layer


def _matches(
    pattern: _Call | None, value: int, made: Mapping[int, Layer], x: int | None
) -> Iterator[int]:
    """Every x of which the value is this function; only `x` itself where that is given."""
    if pattern is None:
        if x is None or x == value:
            yield value
        return
    layer = made.get(value)
    if layer is None or not isinstance(layer.op, Elementwise) or len(layer.epilogue) != 1:
        return
    operation, operand = layer.epilogue[0].operation, layer.epilogue[0].operand
    if operation.kind != pattern.kind or not _near(operation.numbers, pattern.numbers):
        return
    if len(pattern.arguments) == 1:
        yield from _matches(pattern.arguments[0], layer.inputs[0], made, x)
    elif operation.operand == "tensor" and isinstance(operand, int):
        a, b = pattern.arguments
        given = (operand, layer.inputs[0]) if operation.swapped else (layer.inputs[0], operand)
        for first, second in (given, given[::-1]) if operation.kind == "mul" else (given,):
            for found in _matches(a, first, made, x):
                yield from _matches(b, second, made, found)


def _near(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return len(found) == len(wanted) and all(
        math.isclose(a, b, rel_tol=NEAR) for a, b in zip(found, wanted, strict=True)
    )
