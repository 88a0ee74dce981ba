"""Nodes that give back an input as it is, whatever its shape.

    op(x) => x

(1) Identity
(2) Dropout at inference; ONNX Runtime runs it so unless training_mode is set. Up to opset 6 the
    attribute is_test says so
(3) Cast and CastLike to the type that x has
(4) Concat, Sum, Max, Min, Mean of one input; Max and Min of the same input several times
(5) Split into one
(6) DepthToSpace and SpaceToDepth with blocks of one element
(7) Concat loses inputs that are known to be empty along its axis
"""

from __future__ import annotations

import numpy as np
import onnx

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop, drop_unused
from ort_optim.passes.common.match import attr, input_or_none, rank, small_constant
from ort_optim.passes.common.movement import normalized_axis

NAME = "identity"

_OF_ONE = frozenset({"Concat", "Sum", "Max", "Min", "Mean"})


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Remove one node that does nothing, or the empty inputs of a Concat."""
    why = _why_identity(node, graph)
    if why is not None:
        drop(NAME, node, node.inputs[0], ctx, why)
    elif node.op == "Concat":
        _drop_empty_inputs(node, graph, ctx)


def _why_identity(node: Node, graph: Graph) -> str | None:
    """Why the node's first output equals its first input, None if it may not."""
    inputs = node.inputs
    match node.op:
        case "Identity":  # (1)
            return "it copies its input"
        case "Dropout" if not _is_training(node, graph.opset):  # (2)
            return "at inference it copies its input"
        case "Cast" | "CastLike" if inputs[0].dtype is not None:  # (3)
            return "the type stays" if inputs[0].dtype == _cast_dtype(node) else None
        case op if op in _OF_ONE and len(inputs) == 1:  # (4)
            return "it has one input"
        case "Max" | "Min" if all(tensor is inputs[0] for tensor in inputs):  # (4)
            return "all its inputs are one tensor"
        case "Split" if len(node.outputs) == 1:  # (5)
            return "it has one output"
        case "DepthToSpace" | "SpaceToDepth" if attr(node, "blocksize", 0) == 1:  # (6)
            return "its blocks have one element"
    return None


def _is_training(node: Node, opset: int) -> bool:
    if opset < 7:
        return not attr(node, "is_test", 0)
    mode = input_or_none(node, 2)
    if mode is None:
        return False
    value = small_constant(mode)
    return value is None or bool(value.reshape(-1)[0])


def _cast_dtype(node: Node) -> np.dtype[np.generic] | None:
    if node.op == "CastLike":
        found: np.dtype[np.generic] | None = node.inputs[1].dtype
        return found
    to = attr(node, "to", None)
    if not isinstance(to, int) or to == onnx.TensorProto.UNDEFINED:
        return None
    return onnx.helper.tensor_dtype_to_np_dtype(to)


def _drop_empty_inputs(node: Node, graph: Graph, ctx: Context) -> None:
    axis = attr(node, "axis", 1)

    def is_empty(tensor: Tensor) -> bool:
        along = normalized_axis(axis, rank(tensor))
        return along is not None and tensor.shape is not None and tensor.shape[along] == 0

    kept = [tensor for tensor in node.inputs if not is_empty(tensor)]
    if len(kept) == len(node.inputs) or not kept:
        return
    empty = [tensor for tensor in node.inputs if is_empty(tensor)]
    if all(isinstance(tensor, Constant) and _has_other_readers(tensor, node) for tensor in empty):
        return  # nothing would be gained
    if ctx.fuel(NAME, node, f"{len(empty)} of its inputs are empty"):  # (7)
        graph.replace(node, "Concat", kept, **node.attrs)
        drop_unused(graph, empty)


def _has_other_readers(tensor: Tensor, node: Node) -> bool:
    return tensor.is_output or any(reader is not node for reader in tensor.outputs)


PASS = NodePass(
    NAME,
    frozenset({"Identity", "Dropout", "Cast", "CastLike", "Split", "DepthToSpace", "SpaceToDepth"})
    | _OF_ONE,
    rewrite,
)
