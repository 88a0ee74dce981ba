"""Changes to the graph that several passes make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context
from ort_optim.passes.common.match import is_used


def drop(name: str, node: Node, source: Tensor, ctx: Context, why: str, *, output: int = 0) -> bool:
    """Remove a node whose output equals `source`, if the graph and the fuel allow it.

    `name` is the pass that asks, `why` what the reader is told. Returns whether the node went.
    """
    graph = node.graph
    assert graph is not None
    blocked = graph.can_bypass(node, source, output)
    if blocked is not None:
        ctx.refuse(name, node, blocked)
        return False
    if not ctx.fuel(name, node, why):
        return False
    graph.bypass(node, source, output)
    return True


def drop_unused(graph: Graph, tensors: Iterable[Tensor]) -> None:
    """Remove those initializers, of this graph or one around it, that nothing reads any more."""
    for tensor in tensors:
        at: Graph | None = graph
        while at is not None and isinstance(tensor, Constant) and not is_used(tensor):
            if at.constants.get(tensor.name) is tensor:
                at.drop_constant(tensor)
                break
            at = at.parent


def compute(
    op: str,
    inputs: Sequence[Tensor],
    hint: str,
    attrs: Mapping[str, Any] | None = None,
    *,
    at: Node,
) -> Variable:
    """The output of a new standard node before `at`, as an intermediate step of its replacement.

    The tensor has the type and shape of `at`'s first input, until inference says otherwise. The
    node has a name of its own if `at` has one: ONNX Runtime refuses a name that two nodes have.
    """
    graph = at.graph
    assert graph is not None
    made = graph.variable(f"{at.key}_{hint}")
    made.dtype, made.shape = at.inputs[0].dtype, at.inputs[0].shape
    node = graph.make(op, inputs, [made], attrs, like=at)
    if at.name:
        node.name = graph.fresh_name(f"{at.name}_{hint}")
    graph.insert([node], at=at)
    return made
