"""Outputs that jump: is a difference the fault of a rewrite, or of a near tie?

ArgMax, TopK, NonMaxSuppression, comparisons and casts to integers answer a rounding error in their
float inputs with another integer. So where an output behind such ops differs, this is asked:

 1. Do the float inputs of the first such ops (the *cut*) agree within the tolerance for floats?
 2. Does the reference's own remainder, fed with the candidate's values at the cut, give the
    candidate's output?

If both hold, the candidate computed the same numbers but for rounding, and the output followed
from them: the difference was a near tie.

    explain_by_near_tie    asks both questions
    tap, tap_all           inner tensors of a model: run it with further graph outputs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from ort_optim.engine import Engine, EngineError, ModelSource, Value
from ort_optim.graph.walk import node_graphs
from ort_optim.verify.compare import (
    NEAR_TIE,
    OutputComparison,
    Tolerance,
    compare_outputs,
)
from ort_optim.verify.metrics import is_float
from ort_optim.verify.origins import Origin, is_jumping

MOST_CUTS = 64


@dataclass(frozen=True)
class Cut:
    """A float tensor that a jumping op reads: its name in the reference and in the candidate."""

    reference: str
    candidate: str


def explain_by_near_tie(
    engine: Engine,
    reference: tuple[ModelProto, ModelSource],
    candidate: tuple[ModelProto, ModelSource],
    feeds: Mapping[str, Value],
    candidate_outputs: Mapping[str, Value],
    failed: Sequence[OutputComparison],
    tolerance: Tolerance,
    origins: Mapping[str, Origin],
) -> dict[str, OutputComparison]:
    """Which of the failed comparisons are near ties: output name -> the comparison that passes.

    Each model comes as its structure and as what the engine opens. Outputs that cannot be
    explained are missing in the answer. Raises WorkerError if the worker dies.
    """
    tensors = {value.name for value in reference[0].graph.output}  # not leaves of sequences
    by_output = {c.name: c for c in failed if c.name in tensors}
    outputs = [name for name in by_output if origins.get(name, Origin()).jumps]
    cuts = find_cuts(reference[0].graph, candidate[0].graph, outputs)
    if not outputs or not cuts or len(cuts) > MOST_CUTS:
        return {}
    try:
        expected = tap(engine, reference, feeds, [cut.reference for cut in cuts])
        found = tap(engine, candidate, feeds, [cut.candidate for cut in cuts])
        at_cut = {
            cut.reference: found[cut.candidate]
            for cut in cuts
            if isinstance(expected[cut.reference], np.ndarray)
            and is_float(expected[cut.reference].dtype)
        }
        if not at_cut:
            return {}
        agree = compare_outputs(
            {name: expected[name] for name in at_cut}, at_cut, tolerance, origins=origins
        )
        if not all(comparison.passed for comparison in agree):
            return {}
        rest = remainder(
            _with_references(reference), {n: np.asarray(v) for n, v in at_cut.items()}, outputs
        )
        blobs = tuple(b for b in reference[1].blobs if b.name in _initializers(rest))
        source = ModelSource(proto=rest.SerializeToString(), blobs=blobs)
        replayed = _run_once(engine, source, feeds, at_cut)
    except EngineError:
        return {}
    largest = max((c.max_abs for c in agree), default=0.0)
    explained = {}
    for name in outputs:
        again = compare_outputs(
            {name: replayed[name]}, candidate_outputs, tolerance, origins=origins
        )
        if all(comparison.passed for comparison in again):
            explained[name] = replace(
                by_output[name],
                passed=True,
                decided_by=NEAR_TIE,
                bound=largest,
                reason="follows from inputs of its ops that agree but for rounding",
            )
    return explained


def _with_references(model: tuple[ModelProto, ModelSource]) -> ModelProto:
    """The structure in which the weights that are blobs hold no data of their own."""
    structure, source = model
    return ModelProto.FromString(source.proto) if source.proto and source.blobs else structure


def find_cuts(reference: GraphProto, candidate: GraphProto, outputs: Sequence[str]) -> list[Cut]:
    """Inputs of the first jumping ops upstream of `outputs`, with their counterparts.

    The counterpart has the same name, or stands at the same place of the node that makes the same
    tensor; where there is neither, the list is empty: nothing can be said.
    """
    producers = {name: node for node in reference.node for name in node.output}
    upstream = upstream_nodes(producers, outputs)
    constants = {t.name for t in reference.initializer}
    behind: set[str] = set()  # tensors that some jumping op has had a part in
    cuts: dict[str, Cut] = {}
    known = _all_names(candidate)
    makers = {name: node for node in candidate.node for name in node.output}
    for node in in_order(upstream):
        late = any(name in behind for name in node.input)
        if late or is_jumping(node):
            behind.update(node.output)
        if late or not is_jumping(node):
            continue
        for position, name in enumerate(node.input):
            maker = producers.get(name)
            if not name or maker is None or maker.op_type == "Constant" or name in constants:
                continue
            other = name if name in known else counterpart(node, position, makers)
            if other is None:
                return []
            cuts[name] = Cut(name, other)
    return list(cuts.values())


def remainder(
    model: ModelProto, cut: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> ModelProto:
    """`model` from the tensors of `cut` on, these being inputs, with only `outputs`."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for name in cut:
        producers.pop(name, None)
    kept = upstream_nodes(producers, outputs)
    kept_names = {name for node in kept for name in node.output}
    rest = ModelProto(ir_version=model.ir_version)
    rest.opset_import.extend(model.opset_import)
    rest.functions.extend(model.functions)
    graph = rest.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(node for node in model.graph.node if set(node.output) & kept_names)
    for name in cut:
        # a node that makes a cut tensor beside one that is needed writes to a name of no use
        for node in graph.node:
            for i, output in enumerate(node.output):
                if output == name:
                    node.output[i] = f"{name}/not cut"
    used = _all_names(graph)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    taken = cut.keys() | _initializers(model)
    graph.input.extend(v for v in model.graph.input if v.name not in taken)
    for name, value in cut.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, element, value.shape))
    graph.output.extend(v for v in model.graph.output if v.name in outputs)
    return rest


def _initializers(model: ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def with_outputs(source: ModelSource, names: Iterable[str]) -> ModelSource:
    """The model with further graph outputs, whose types ORT infers itself.

    Concatenated protobuf messages merge, so the model is neither parsed nor changed.
    """
    extra = ModelProto()
    extra.graph.output.extend(ValueInfoProto(name=name) for name in names)
    if source.proto is None:
        raise ValueError("a model that is only a path may have external data beside it")
    return ModelSource(proto=source.proto + extra.SerializeToString(), blobs=source.blobs)


def tap(
    engine: Engine,
    model: tuple[ModelProto, ModelSource],
    feeds: Mapping[str, Value],
    names: Sequence[str],
) -> dict[str, Value]:
    """The values of inner tensors in one run. Raises EngineError where ORT cannot give them."""
    return tap_all(engine, model, [feeds], names)[0]


def tap_all(
    engine: Engine,
    model: tuple[ModelProto, ModelSource],
    feeds: Sequence[Mapping[str, Value]],
    names: Sequence[str],
    *,
    optimize: bool = False,
) -> list[dict[str, Value]]:
    """The values of inner tensors for each of `feeds`, from one session.

    `optimize`: under ONNX Runtime's own optimizations, as far as the taps leave room for them.
    Raises EngineError where ORT cannot give them.
    """
    wanted = list(dict.fromkeys(names))
    present = {value.name for value in model[0].graph.output}
    tapped = with_outputs(model[1], [n for n in wanted if n not in present])
    session = engine.open(tapped, optimize=optimize)
    try:
        return [engine.run(session, each, wanted) for each in feeds]
    finally:
        engine.close(session)


def _run_once(
    engine: Engine, source: ModelSource, feeds: Mapping[str, Value], more: Mapping[str, Value]
) -> dict[str, Value]:
    session = engine.open(source)
    try:
        wanted = {info.name for info in engine.inputs(session)}
        every = {**feeds, **more}
        return engine.run(session, {name: every[name] for name in wanted})
    finally:
        engine.close(session)


def upstream_nodes(producers: Mapping[str, NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """All nodes that `outputs` depend on, captures of subgraphs included, in no order."""
    found: dict[int, NodeProto] = {}
    pending = list(outputs)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = producers.get(name)
        if node is not None:
            found[id(node)] = node
            pending.extend(reads(node))
    return list(found.values())


def in_order(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """`nodes` in an order of execution (files may list them in another)."""
    nodes = list(nodes)
    producers = {name: node for node in nodes for name in node.output}
    ordered: dict[int, NodeProto] = {}
    for start in nodes:
        stack = [(start, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in ordered:
                continue
            if ready:
                ordered[id(node)] = node
                continue
            stack.append((node, True))
            stack += [
                (producers[name], False)
                for name in reads(node)
                if name in producers and id(producers[name]) not in ordered
            ]
    return list(ordered.values())


def reads(node: NodeProto) -> set[str]:
    """The tensors that a node consumes; with subgraphs, also every name inside them."""
    names = set(node.input)
    for graph in node_graphs(node):
        names |= _all_names(graph)
    names.discard("")
    return names


def _all_names(graph: GraphProto) -> set[str]:
    """Every tensor name that occurs in the graph or its subgraphs."""
    names = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        names.update(node.output)
        names |= reads(node)
    return names


def counterpart(node: NodeProto, position: int, makers: Mapping[str, NodeProto]) -> str | None:
    """What the node that makes the same tensor in another graph reads at `position`, if any."""
    for output in node.output:
        other = makers.get(output)
        if other is not None and other.op_type == node.op_type and position < len(other.input):
            return other.input[position]
    return None
