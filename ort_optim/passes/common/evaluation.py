"""Values of nodes that depend on constants only, computed by ONNX Runtime many at a time.

A batch is one model without inputs, run once. Where ORT refuses it or dies of it, the batch is
halved until the nodes at fault are alone: their failure is a value, the rest goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ort_optim.engine import EngineError
from ort_optim.errors import WorkerError
from ort_optim.graph.merge import to_node
from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.graph.weights import Array
from ort_optim.passes.base import Context
from ort_optim.passes.common.constants import captures, known_value

BATCH_BYTES = 1 << 28
"""Constants that one evaluation model may hold; protobuf ends at 2 GiB."""

IR_VERSION = 8  # initializers need not be inputs


@dataclass
class Evaluation:
    """What is known of the tensors asked for, and which nodes failed and why."""

    values: dict[Tensor, Any] = field(default_factory=dict)  # Array; a list or None for the rest
    failures: dict[Node, str] = field(default_factory=dict)


def evaluate(
    nodes: Sequence[Node], wanted: Collection[Variable], root: Graph, ctx: Context
) -> Evaluation:
    """The values of `wanted`, outputs of `nodes`, which are in the order of execution.

    Every input of a node is a constant or an output of an earlier one. What depends on a node
    that failed is left out of the answer.
    """
    result = Evaluation()
    for batch in _batches(nodes, wanted):
        asked = {out for node in batch for out in node.outputs if out in wanted}
        _evaluate(batch, asked, root, ctx, result)
    return result


def _batches(nodes: Sequence[Node], wanted: Collection[Variable]) -> Iterator[list[Node]]:
    """Cut the nodes into runs of limited constant bytes, each with all that it depends on."""
    position = {node: index for index, node in enumerate(nodes)}
    needed: dict[Node, None] = {}
    size_bytes = 0
    for node in nodes:
        if not any(out in wanted for out in node.outputs) or node in needed:
            continue
        stack = [node]
        while stack:
            at = stack.pop()
            if at in needed:
                continue
            needed[at] = None
            for tensor in reads(at):
                if isinstance(tensor, Constant):
                    size_bytes += tensor.nbytes
                elif tensor.inputs and tensor.inputs[0] in position:
                    stack.append(tensor.inputs[0])
        if size_bytes > BATCH_BYTES:
            yield sorted(needed, key=position.__getitem__)
            needed, size_bytes = {}, 0
    if needed:
        yield sorted(needed, key=position.__getitem__)


def reads(node: Node) -> Iterator[Tensor]:
    """The tensors a node and its subgraphs read from around it, omitted ones left out."""
    yield from (tensor for tensor in node.inputs if tensor.name)
    yield from captures(node)


def _evaluate(
    nodes: Sequence[Node],
    wanted: Collection[Variable],
    root: Graph,
    ctx: Context,
    result: Evaluation,
) -> None:
    """Run the nodes, adding to `result`; halve them where that fails."""
    runnable: list[Node] = []
    lost: set[Tensor] = {out for node in result.failures for out in node.outputs}
    for node in nodes:
        if any(tensor in lost for tensor in reads(node)):
            lost.update(node.outputs)
        else:
            runnable.append(node)
    wanted = [out for node in runnable for out in node.outputs if out in wanted]
    if not wanted:
        return
    try:
        result.values.update(_run(runnable, wanted, root, ctx, result.values))
    except (EngineError, WorkerError, ValueError) as error:
        if len(runnable) == 1:
            result.failures[runnable[0]] = str(error)
            return
        half = len(runnable) // 2
        first, second = runnable[:half], runnable[half:]
        read_later = {tensor for node in second for tensor in reads(node)}
        passed_on = {
            out
            for node in first
            for out in node.outputs
            if out.name and (out in read_later or out in set(wanted))
        }
        _evaluate(first, passed_on, root, ctx, result)
        _evaluate(second, wanted, root, ctx, result)


def _run(
    nodes: Sequence[Node],
    wanted: Sequence[Variable],
    root: Graph,
    ctx: Context,
    known: Mapping[Tensor, Any],
) -> dict[Tensor, Any]:
    model = onnx.ModelProto(ir_version=max(IR_VERSION, root.model.proto.ir_version))
    model.opset_import.extend(root.model.proto.opset_import)
    model.graph.name = "constants"
    names: dict[Tensor, str] = {}
    taken: set[str] = set()

    def name_of(tensor: Tensor) -> str:
        """Tensors of different graphs may have one name: here each gets its own."""
        if not tensor.name:
            return ""
        if tensor not in names:
            name = tensor.name
            while name in taken:
                name += "_"
            names[tensor] = name
            taken.add(name)
        return names[tensor]

    made: set[Tensor] = set()
    for node in nodes:
        for tensor in captures(node):
            if name_of(tensor) != tensor.name:
                raise ValueError("its subgraph reads a tensor whose name another graph has too")
        for tensor in reads(node):
            if tensor not in made:
                made.add(tensor)
                array = as_array(known[tensor] if tensor in known else known_value(tensor))
                if array is None:
                    raise ValueError("an input is a sequence or an optional")
                model.graph.initializer.append(numpy_helper.from_array(array, name_of(tensor)))
        proto = onnx.NodeProto()
        proto.CopyFrom(to_node(node))
        del proto.input[:], proto.output[:]
        proto.input.extend(name_of(tensor) for tensor in node.inputs)
        proto.output.extend(name_of(tensor) for tensor in node.outputs)
        made.update(node.outputs)
        model.graph.node.append(proto)
    model.graph.output.extend(onnx.ValueInfoProto(name=name_of(out)) for out in wanted)
    found = ctx.evaluate(model)
    return {out: found[name_of(out)] for out in wanted}


def as_array(value: Any) -> Array | None:
    """An evaluated value if it is a tensor."""
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None
