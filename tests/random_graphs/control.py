"""If, Loop and sequences."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.random_graphs.builder import I64, Builder, F, Step, UnfitError, Value


def if_(b: Builder, x: Value) -> None:
    """A condition that is constant, or comes from a shape; branches read tensors around them."""
    if b.pick(True, False) or not x.rank:
        condition = b.weight(b.pick(True, False), np.bool_)
    else:
        size = b.node("Gather", [b.node("Shape", [x.name]), b.weight(0, np.int64)], axis=0)
        condition = b.node("Equal", [size, b.weight(b.pick(x.shape[0], 77), np.int64)])
    branches = []
    for op in (b.pick("Relu", "Identity"), b.pick("Tanh", "Neg")):
        made, result = b.name("inner"), b.name("branch")
        nodes = [
            helper.make_node(op, [x.name], [made]),
            helper.make_node(b.pick("Identity", "Abs"), [made], [result]),
        ]
        output = helper.make_tensor_value_info(result, F, x.shape)
        branches.append(helper.make_graph(nodes, b.name("body"), [], [output]))
    b.add(b.node("If", [condition], then_branch=branches[0], else_branch=branches[1]), x.shape)


def loop(b: Builder, x: Value) -> None:
    """A counted Loop that carries one tensor."""
    if b.opset < 11:
        raise UnfitError
    count, going, before, after = (b.name(hint) for hint in ("i", "go", "carry", "next"))
    op = b.pick("Tanh", "Identity", "Sigmoid")
    nodes = [
        helper.make_node("Identity", [going], [f"{going}_out"]),
        helper.make_node(op, [before], [after]),
    ]
    body = helper.make_graph(
        nodes,
        b.name("body"),
        [
            helper.make_tensor_value_info(count, I64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            helper.make_tensor_value_info(before, F, x.shape),
        ],
        [
            helper.make_tensor_value_info(f"{going}_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info(after, F, x.shape),
        ],
    )
    trips = b.weight(b.pick(0, 1, 3), np.int64)
    b.add(b.node("Loop", [trips, b.weight(True, np.bool_), x.name], body=body), x.shape)


def sequence(b: Builder, x: Value) -> None:
    if b.opset < 11 or not x.rank or x.size == 0:
        raise UnfitError
    form = b.pick("at", "concat", "split")
    other = b.node("Neg", [x.name])
    if form == "split":
        one = b.weight(1, np.int64)
        parts = b.node("SplitToSequence", [x.name, one], axis=0)
        at = b.weight(b.pick(0, x.shape[0] - 1), np.int64)
        b.add(b.node("SequenceAt", [parts, at]), (1, *x.shape[1:]))
        return
    made = b.node("SequenceConstruct", [x.name, other])
    if b.pick(True, False):
        made = b.node("SequenceInsert", [made, x.name, b.weight(b.pick(0, 1), np.int64)])
        b.add(b.node("SequenceAt", [made, b.weight(b.pick(0, 1, 2, -1), np.int64)]), x.shape)
    elif form == "at":
        b.add(b.node("SequenceAt", [made, b.weight(b.pick(0, 1, -1), np.int64)]), x.shape)
    else:
        shape = (2 * x.shape[0], *x.shape[1:])
        b.add(b.node("ConcatFromSequence", [made], axis=0), shape)


STEPS: tuple[Step, ...] = (
    if_,
    loop,
    sequence,
)
