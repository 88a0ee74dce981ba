"""Functions of one tensor and of two, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ort_optim.compiler.layers import Applied, Elementwise, Normal, Normalization, Weight
from ort_optim.compiler.scope import Node, Refusal
from ort_optim.kernels import functions
from ort_optim.kernels.epilogue import Operand, Operation

Parser = Callable[[Node], None]


def unary(kind: str, **numbers: float) -> Parser:
    """A function of one tensor, whose numbers are attributes with these defaults."""

    def parse(node: Node) -> None:
        node.allow(*numbers)
        _apply(node, kind, *(node.real(name, given) for name, given in numbers.items()))

    return parse


def _apply(node: Node, kind: str, *numbers: float, index: int = 0) -> None:
    if kind not in functions.UNARY:
        raise Refusal(f"no code for {node.proto.op_type}")
    operation = Operation(kind, tuple(numbers))
    node.add(Elementwise(), [node.value(index)], node.shape(index), [Applied(operation)])


def clip(node: Node) -> None:
    node.allow("max", "min")
    low, high = node.real("min", -math.inf), node.real("max", math.inf)
    if node.opset >= 11:
        low = node.number(1) if node.has_input(1) else -math.inf
        high = node.number(2) if node.has_input(2) else math.inf
    if low == 0 and high == math.inf:
        _apply(node, "relu")
    else:
        _apply(node, "clip", _float32(low), _float32(high))


def _float32(number: float) -> float:
    return float(np.float32(number))


def gelu(node: Node) -> None:
    node.allow("approximate")
    _apply(node, "gelu_tanh" if node.text("approximate", "none") == "tanh" else "gelu")


def swish(node: Node) -> None:
    node.allow("alpha")
    if node.real("alpha", 1.0) != 1:
        raise Refusal(f"alpha={node.real('alpha', 1.0)}")
    _apply(node, "silu")


def p_relu(node: Node) -> None:
    node.allow()
    slope = node.find_number(1)
    if slope is not None:
        _apply(node, "leaky_relu", slope)
    else:
        binary("prelu")(node)


def batch_normalization(node: Node) -> None:
    node.allow("epsilon", "is_test", "momentum", "spatial", "training_mode")
    if node.opset < 7 and not node.integer("is_test", 0):
        raise Refusal("is_test=0")
    if node.integer("training_mode", 0):
        raise Refusal("training_mode=1")
    if not node.integer("spatial", 1):
        raise Refusal("spatial=0")
    shape = node.shape(0)
    weights = [node.weight(index, 1) for index in (1, 2, 3, 4)]
    for each in weights:
        if each.dims != (shape.C,):
            raise Refusal(f"{each.dims[0]} constants for {shape.C} channels")
    scale, bias, mean, variance = weights
    epsilon = _float32(node.real("epsilon", 1e-5))
    normalization = Normalization(scale, bias, mean, variance, epsilon)
    epilogue = [
        Applied(Operation("mul", operand="constant"), Normal(normalization, "factor")),
        Applied(Operation("add", operand="constant"), Normal(normalization, "shift")),
    ]
    node.add(Elementwise(), [node.value(0)], shape, epilogue)


def binary(kind: str) -> Parser:
    """A function of two tensors."""

    def parse(node: Node) -> None:
        node.allow()
        if node.input_count != 2:
            raise Refusal(f"{node.input_count} inputs")
        if kind not in functions.BINARY:
            raise Refusal(f"no code for {node.proto.op_type}")
        swapped = not node.is_value(0)
        main, other = (1, 0) if swapped else (0, 1)
        operand: int | Weight
        if node.is_value(other):
            main, other, how = _roles(node)
            swapped, operand = main == 1, node.value(other)
        elif (number := node.find_number(other)) is not None:
            _apply(node, *_with_number(kind, number, swapped=swapped), index=main)
            return
        else:
            how, operand = "constant", _per_channel(node, other, node.shape(main).C)
        operation = Operation(kind, operand=how, swapped=swapped)
        node.add(Elementwise(), [node.value(main)], node.shape(main), [Applied(operation, operand)])

    return parse


def _with_number(kind: str, number: float, *, swapped: bool) -> tuple[str, float]:
    """The function of one tensor that a function of a tensor and a number is."""
    if kind == "sub":
        return ("number_sub", number) if swapped else ("add_number", -number)
    if kind == "div":
        return ("number_div" if swapped else "div_number"), number
    return f"{kind}_number", number


def _roles(node: Node) -> tuple[int, int, Operand]:
    """Of two values which input is as large as the result, which is the operand, and of what kind.

    Sizes that can't be told apart are taken to be the same, which is checked when the region runs.
    """
    a, b = node.shape(0), node.shape(1)
    if a.C != b.C:
        raise Refusal(f"{a.C} and {b.C} channels")
    small = [s.H.known == 1 and s.W.known == 1 for s in (a, b)]
    if small[0] and not small[1]:
        main, other, how = 1, 0, _CHANNEL
    elif small[1] and not small[0]:
        main, other, how = 0, 1, _CHANNEL
    else:
        main, other, how = 0, 1, _TENSOR
        node.scope.require_equal(a.H, b.H)
        node.scope.require_equal(a.W, b.W)
    node.scope.require_equal(a.N, b.N)
    return main, other, how


_CHANNEL: Operand = "channel"
_TENSOR: Operand = "tensor"


def _per_channel(node: Node, index: int, channels: int) -> Weight:
    """A constant that broadcasts along N, H and W alone."""
    weight = node.find_weight(index)
    if weight is None:
        raise Refusal(node.scope.refused.get(node.name(index), f"{node.name(index)} is not known"))
    dims = (1,) * (4 - len(weight.dims)) + weight.dims
    if len(dims) != 4 or dims != (1, channels, 1, 1):
        raise Refusal(f"a constant of {list(weight.dims)}, not one number per channel")
    return weight


def minimum(node: Node) -> None:
    node.allow()
    if node.input_count == 2 and (bound := node.find_number(1)) is not None:
        _apply(node, "clip", -math.inf, bound)
    else:
        binary("min")(node)


def maximum(node: Node) -> None:
    node.allow()
    if node.input_count == 2 and (bound := node.find_number(1)) is not None:
        _apply(node, "relu") if bound == 0 else _apply(node, "clip", bound, math.inf)
    else:
        binary("max")(node)
