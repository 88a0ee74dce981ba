"""Zeros given to an operator that takes zeros where nothing is given.

    LSTM(x, w, r, b, lens, 0, 0, p)  =>  LSTM(x, w, r, b, lens, , , p)
    RNN, GRU(x, w, r, b, lens, 0)    =>  RNN, GRU(x, w, r, b, lens)
    Conv, ConvTranspose(x, w, 0)     =>  Conv, ConvTranspose(x, w)
    Gemm(a, b, 0)                    =>  Gemm(a, b)

Conditions: (1) the input is optional and its default is zeros of the shape that the operator
demands, (2) the value is a constant of zeros, or a ConstantOfShape of zeros of any shape, also one
computed at run time: exporters write such initial states with a Shape of the batch, and all of
that is dead afterwards, (3) for Gemm the operator set is 11 or later, where C became optional.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop_unused
from ort_optim.passes.common.match import attr, input_or_none, producer

NAME = "zero-states"

OPTIONAL_INPUTS: dict[str, tuple[int, ...]] = {
    "LSTM": (5, 6),
    "GRU": (5,),
    "RNN": (5,),
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
}
GEMM_OPTIONAL_C_OPSET = 11


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Leave out the inputs of one node that are zero anyway."""
    for index in OPTIONAL_INPUTS[node.op]:
        given = input_or_none(node, index)
        if given is None or not _is_zero(given):
            continue
        if node.op == "Gemm" and graph.model.opsets.get("", 1) < GEMM_OPTIONAL_C_OPSET:  # (3)
            ctx.refuse(NAME, node, f"C is not optional before operator set {GEMM_OPTIONAL_C_OPSET}")
            continue
        if ctx.fuel(NAME, node, f"input {index} is zero, as it is by default"):
            node.inputs[index] = Variable("")
            while node.inputs and not node.inputs[-1].name:
                node.inputs.pop()
            drop_unused(graph, [given])


def _is_zero(tensor: Tensor) -> bool:
    """Condition (2)."""
    if isinstance(tensor, Constant):
        values = tensor.values
        return values.dtype.kind == "f" and not np.any(values)
    maker = producer(tensor, "ConstantOfShape")
    if maker is None:
        return False
    value: Any = attr(maker, "value", None)
    return value is None or not np.any(value.values)


PASS = NodePass(NAME, frozenset(OPTIONAL_INPUTS), rewrite)
