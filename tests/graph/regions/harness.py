"""What the tests of regions share: which nodes they take, wrapping, and comparing structures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from ort_optim.engine import Engine, ModelSource
from ort_optim.graph.functions import inline_functions
from ort_optim.graph.regions import Grouping, Tiling, calls, group, wrap
from ort_optim.graph.regions.naming import body_name
from ort_optim.graph.regions.wiring import constant_tensor
from ort_optim.graph.walk import STANDARD_DOMAINS

ACTIVATIONS = ("Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh")
BETWEEN = ("Add", "Mul", "Concat", "Split", "Slice", "Resize", "Pad")
POOLINGS = ("MaxPool", "AveragePool", "GlobalAveragePool")
TAKEN = frozenset({"Conv", "ConvTranspose", *ACTIVATIONS, *BETWEEN, *POOLINGS})


def eligible(node: NodeProto) -> str | None:
    if node.op_type in TAKEN and node.domain in STANDARD_DOMAINS:
        return None
    return f"{node.op_type} is not taken"


def is_anchor(node: NodeProto) -> bool:
    return node.op_type in ("Conv", "ConvTranspose")


def grouped(model: ModelProto) -> Grouping:
    return group(model, eligible, is_anchor)


def tiling(anchors: int) -> Tiling:
    templates = tuple(f"direct_{index}" for index in range(anchors))
    return Tiling(templates, ("t=56,g=64",) * anchors, "nchw16c", "native")


def wrapped(model: ModelProto) -> ModelProto:
    """The model with all its regions as calls, as it comes back from a file."""
    regions = grouped(model).regions
    result = wrap(model, regions, [tiling(len(region.anchors)) for region in regions])
    return ModelProto.FromString(result.SerializeToString())


def forged(model: ModelProto) -> ModelProto:
    """A copy with the names that fit what it says, as somebody makes it who knows how."""
    made = ModelProto.FromString(model.SerializeToString())
    for call in calls(made):
        assert call.tiling is not None
        body, outputs = call.function.node, list(call.function.output)
        name = body_name(body, call.inputs, outputs, call.imports, call.tiling.named)
        call.node.op_type = call.function.name = name
    return made


def inlined(model: ModelProto) -> ModelProto:
    return inline_functions(model, {"ort_optim"})


def ops(nodes: Iterable[NodeProto]) -> list[str]:
    return [node.op_type for node in nodes if node.op_type != "Constant"]


def structure(model: ModelProto) -> tuple[Counter[Hashable], list[Hashable]]:
    """What a model computes: its nodes, counted, and its outputs, without names and order.

    A tensor is described by how it is made; a constant by its value, however it is stored.
    """
    nodes: Counter[Hashable] = Counter()
    known = _graph(model.graph, {}, nodes)
    return nodes, [(value.name, known[value.name]) for value in model.graph.output]


def _graph(
    graph: GraphProto, outer: dict[str, Hashable], nodes: Counter[Hashable]
) -> dict[str, Hashable]:
    known: dict[str, Hashable] = {**outer, "": ""}
    known |= {value.name: ("input", value.name) for value in graph.input}
    for tensor in graph.initializer:
        known[tensor.name] = _content(tensor)
    for sparse in graph.sparse_initializer:
        known[sparse.values.name] = sparse.SerializeToString(deterministic=True)
    for node in graph.node:
        tensor = constant_tensor(node)
        if tensor is not None:
            known[node.output[0]] = _content(tensor)
            continue
        what = hash((node.domain, node.op_type, *_inputs(node, known), *_attributes(node, known)))
        nodes[what] += 1
        for index, name in enumerate(node.output):
            known[name] = hash((what, index))
    return known


def _inputs(node: NodeProto, known: dict[str, Hashable]) -> list[Hashable]:
    return [known[name] for name in node.input]


def _attributes(node: NodeProto, known: dict[str, Hashable]) -> Iterable[Hashable]:
    for attribute in sorted(node.attribute, key=lambda each: each.name):
        if attribute.HasField("g"):
            inner: Counter[Hashable] = Counter()
            made = _graph(attribute.g, known, inner)
            yield attribute.name, frozenset(inner.items())
            yield tuple(made[value.name] for value in attribute.g.output)
        else:
            yield attribute.SerializeToString(deterministic=True)


def _content(tensor: onnx.TensorProto) -> Hashable:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return tensor.external_data[1].value, tuple(tensor.dims)
    return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()


def run(
    engine: Engine, model: ModelProto | ModelSource, feeds: dict[str, Any], *, optimize: bool = True
) -> dict[str, Any]:
    handle = engine.open(model, optimize=optimize)
    try:
        return engine.run(handle, feeds)
    finally:
        engine.close(handle)


def assert_identical(engine: Engine, model: ModelProto, feeds: dict[str, Any]) -> None:
    """With ORT's optimizations on, the model gives bit for bit what it gives inlined."""
    got, wanted = run(engine, model, feeds), run(engine, inlined(model), feeds)
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        assert same_bits(got[name], value), name


def same_bits(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, np.ndarray) and wanted.dtype != object:
        return got.dtype == wanted.dtype and got.tobytes() == wanted.tobytes()
    return bool(np.all(got == wanted))
