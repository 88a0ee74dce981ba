"""Puts right what can be put right while loading, and says what it did.

Every repair leaves the meaning of the model as ONNX Runtime reads it. In order:
    (1) missing IR version, operator set imports, graph name
    (2) IR version too old for what the file uses
    (3) weights listed as graph inputs are frozen, unless the caller wants to keep them
    (4) names that must be unique: constants, value infos, nodes
    (5) nodes in topological order
    (6) tensors of subgraphs get names of their own (only hidden outer names are reported: two
        branches may share a name)
    (7) graph outputs without type or shape get what inference finds
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, helper

from ort_optim.errors import InputError
from ort_optim.graph.names import Names
from ort_optim.graph.order import sort_graph
from ort_optim.graph.scopes import make_names_unique
from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import FIRST_IR_WITH_PLAIN_INITIALIZERS, skeleton_model
from ort_optim.graph.walk import STANDARD_DOMAINS, subgraphs

FIRST_IR_WITH_IMPORTS = 3
LARGEST_DIMENSION = 2**63 - 1


def repair(model: ModelProto, *, keep_initializer_inputs: bool = False) -> list[str]:
    """Repair the model in place; one sentence for each thing that was wrong."""
    return [
        *_complete_imports(model),
        *_freeze(model, keep_initializer_inputs),
        *_unique_names(model),
        *_order(model),
        *_unique_tensors(model),
        *_type_outputs(model),
    ]


def pin_shapes(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Give inputs static shapes in place, and drop the value infos that this makes stale.

    Raises InputError for an input that is not there, has another rank, or contradicts a fixed
    dimension.
    """
    inputs = {value.name: value for value in model.graph.input}
    initial = {tensor.name for tensor in model.graph.initializer}
    free = [name for name in inputs if name not in initial]
    done = []
    for name, shape in shapes.items():
        if name not in inputs:
            raise InputError(f"--shape: no input '{name}'; the inputs are {', '.join(free)}")
        tensor = inputs[name].type.tensor_type
        stated = [helper.printable_dim(dim) for dim in tensor.shape.dim]
        wanted = "x".join(map(str, shape))
        if tensor.HasField("shape") and len(stated) != len(shape):
            raise InputError(
                f"--shape: input '{name}' has rank {len(stated)} "
                f"({'x'.join(stated) or 'scalar'}), not {len(shape)} ({wanted})"
            )
        if max(shape, default=0) > LARGEST_DIMENSION:
            raise InputError(f"--shape: {wanted} is too large for input '{name}'")
        for dim, size in zip(tensor.shape.dim, shape, strict=False):
            if dim.HasField("dim_value") and dim.dim_value not in (0, -1, size):
                raise InputError(
                    f"--shape: input '{name}' has a fixed dimension {dim.dim_value} "
                    f"where {wanted} has {size}"
                )
        tensor.shape.ClearField("dim")
        for size in shape:
            tensor.shape.dim.add(dim_value=size)
        done.append(f"input '{name}' pinned to {wanted}")
    if done:
        for graph in subgraphs(model.graph):
            del graph.value_info[:]
        for value in model.graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
        list(_type_outputs(model))
    return done


def _complete_imports(model: ModelProto) -> Iterator[str]:
    has_standard = any(entry.domain in STANDARD_DOMAINS for entry in model.opset_import)
    used = _used_domains(model)
    if not has_standard and (used & set(STANDARD_DOMAINS) or not model.opset_import):
        version = _opset_of_ir(model.ir_version)
        model.opset_import.append(helper.make_opsetid("", version))
        yield f"operator set import was missing: {version} assumed, from the IR version"
    known = {entry.domain for entry in model.opset_import} | set(STANDARD_DOMAINS)
    for domain in sorted(used - known):
        model.opset_import.append(helper.make_opsetid(domain, 1))
        yield f"import of domain '{domain}' was missing"
    if model.ir_version < FIRST_IR_WITH_IMPORTS:
        yield f"IR version {model.ir_version} raised to {FIRST_IR_WITH_IMPORTS}"
        model.ir_version = FIRST_IR_WITH_IMPORTS
    for graph in subgraphs(model.graph):
        if not graph.name:
            graph.name = "main_graph" if graph is model.graph else "subgraph"
            yield "a graph had no name"


def _used_domains(model: ModelProto) -> set[str]:
    nodes = itertools.chain(
        (node for graph in subgraphs(model.graph) for node in graph.node),
        (node for function in model.functions for node in function.node),
    )
    return {node.domain for node in nodes}


def _opset_of_ir(ir_version: int) -> int:
    """The newest standard operator set released with an IR version; 1 before there were any."""
    rows = [row for row in helper.VERSION_TABLE if row[1] == ir_version]
    return max((int(row[2]) for row in rows), default=1)


def _freeze(model: ModelProto, keep: bool) -> Iterator[str]:
    inputs = {value.name for value in model.graph.input}
    names = [tensor.name for tensor in model.graph.initializer]
    names += [sparse.values.name for sparse in model.graph.sparse_initializer]
    also_inputs = [name for name in names if name in inputs]
    if also_inputs and not keep:
        frozen = set(also_inputs)
        names_in_order = [value.name for value in model.graph.input]
        _keep_only(
            model.graph.input, {i for i, name in enumerate(names_in_order) if name not in frozen}
        )
        yield f"{len(frozen)} weights were listed as graph inputs: frozen"
    all_are_inputs = len(also_inputs) == len(names) and keep
    old = model.ir_version
    if names and not all_are_inputs and old < FIRST_IR_WITH_PLAIN_INITIALIZERS:
        model.ir_version = FIRST_IR_WITH_PLAIN_INITIALIZERS
        yield f"IR version {old} raised to {model.ir_version}: weights are no graph inputs"


def _order(model: ModelProto) -> Iterator[str]:
    if sort_graph(model.graph):
        yield "nodes were not in topological order"


def _unique_names(model: ModelProto) -> Iterator[str]:
    for graph in subgraphs(model.graph):
        if dropped := _drop_overruled(graph):
            yield f"{dropped} constants had the name of a later one, which ORT takes: dropped"
        last = {info.name: index for index, info in enumerate(graph.value_info)}
        if dropped := len(graph.value_info) - len(last):
            yield f"{dropped} duplicate value infos dropped"
            _keep_only(graph.value_info, set(last.values()))
        if clashes := _rename_duplicates(graph):
            yield f"{clashes} nodes shared a name with another: renamed"
    for function in model.functions:
        _rename_duplicates(function)


def _drop_overruled(graph: GraphProto) -> int:
    """Of several constants of one name the last counts for ORT, Constant nodes after initializers;
    drop the others."""
    winner: dict[str, tuple[str, int]] = {}
    entries = [("initializer", i, tensor.name) for i, tensor in enumerate(graph.initializer)]
    entries += [
        ("node", i, node.output[0])
        for i, node in enumerate(graph.node)
        if node.op_type == "Constant" and len(node.output) == 1
    ]
    for kind, index, name in entries:
        winner[name] = (kind, index)
    losers = {(kind, index) for kind, index, name in entries if winner[name] != (kind, index)}
    if losers:
        for field in ("initializer", "node"):
            repeated = getattr(graph, field)
            _keep_only(repeated, {i for i in range(len(repeated)) if (field, i) not in losers})
    return len(losers)


def _unique_tensors(model: ModelProto) -> Iterator[str]:
    if hidden := make_names_unique(model):
        yield f"{hidden} names in subgraphs hid names of the graph around: renamed"


def _rename_duplicates(graph: GraphProto | FunctionProto) -> int:
    taken = Names(node.name for node in graph.node)
    seen: set[str] = set()
    renamed = 0
    for node in graph.node:
        if node.name and node.name in seen:
            node.name = taken.numbered(node.name)
            renamed += 1
        seen.add(node.name)
    return renamed


def _type_outputs(model: ModelProto) -> Iterator[str]:
    bare = [value for value in model.graph.output if not _is_typed(value)]
    if not bare:
        return
    inferred = {
        value.name: value
        for value in infer(skeleton_model(model, with_value_info=False)).graph.output
    }
    done = 0
    for value in bare:
        found = inferred.get(value.name)
        if found is not None and found.HasField("type") and found.type != value.type:
            value.type.CopyFrom(found.type)
            done += 1
    if done:
        yield f"{done} graph outputs had no shape: inferred"


def _is_typed(value: onnx.ValueInfoProto) -> bool:
    if not value.HasField("type"):
        return False
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


def _keep_only(field: Any, kept: Collection[int]) -> None:
    """Drop the entries of a repeated field whose index is not in `kept`."""
    for index in reversed(range(len(field))):
        if index not in kept:
            del field[index]
