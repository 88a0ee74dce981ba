"""What is in a model file, gathered without running anything: the facts behind `inspect`.

Inspection      the facts;  Value an input or output;  Annotation what is written for readers
inspect_model   gathers them
as_plain        the facts as JSON data
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper

from ort_optim.graph.load import load_model
from ort_optim.graph.macs import Macs, Shape
from ort_optim.graph.repair import pin_shapes, repair
from ort_optim.graph.shapes import dims_of
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.graph.stats import (
    Layer,
    WeightStats,
    count_ops,
    layers,
    op_name,
    weight_stats,
)
from ort_optim.graph.walk import subgraphs

SCHEMA_VERSION = 1
OWN_DOMAIN = "ort_optim"


@dataclass(frozen=True)
class Value:
    """An input or output: `type` such as "float32" or "sequence(int64)"; shape of tensors only."""

    name: str
    type: str
    shape: Shape | None


@dataclass(frozen=True)
class Annotation:
    """What is written on a node, or on the model ("") itself, for readers."""

    where: str
    entries: Mapping[str, str]


@dataclass(frozen=True)
class Inspection:
    """Everything `inspect` knows. `repairs` are what `optimize` would put right first."""

    path: Path
    size_bytes: int
    ir_version: int
    opset: Mapping[str, int]
    producer: str
    op_histogram: Mapping[str, int]
    weights: WeightStats
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    layers: tuple[Layer, ...]
    functions: Mapping[str, int]
    data_files: tuple[Path, ...]
    annotations: tuple[Annotation, ...]
    repairs: tuple[str, ...]

    @property
    def macs(self) -> Macs:
        """Of all layers together."""
        return Macs.total(layer.macs for layer in self.layers if layer.macs)


def inspect_model(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Inspection:
    """Gather the facts; inputs named in `shapes` are pinned first.

    Layers are those of a repaired copy, as the file's own order may not be one that runs. Raises
    InputError for what is no model, and for shapes that do not fit.
    """
    loaded = load_model(path)
    model = loaded.model
    stored = weight_stats(model)
    copy = skeleton_model(model)
    repairs = repair(copy)
    pin_shapes(copy, shapes)
    weights = {tensor.name for tensor in copy.graph.initializer}
    return Inspection(
        path=path,
        size_bytes=loaded.size_bytes,
        ir_version=model.ir_version,
        opset={entry.domain: entry.version for entry in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        op_histogram=dict(count_ops(model).most_common()),
        weights=stored,
        inputs=tuple(_value(info) for info in copy.graph.input if info.name not in weights),
        outputs=tuple(_value(info) for info in copy.graph.output),
        layers=tuple(layers(copy)),
        functions={f"{f.domain}.{f.name}": len(f.node) for f in model.functions},
        data_files=loaded.data_files,
        annotations=tuple(_annotations(model)),
        repairs=tuple(repairs),
    )


def as_plain(found: Inspection) -> dict[str, Any]:
    """The facts as JSON data, described in docs/report-schema.md."""
    return {
        "schema_version": SCHEMA_VERSION,
        "path": str(found.path),
        "size_bytes": found.size_bytes,
        "ir_version": found.ir_version,
        "opset": dict(found.opset),
        "producer": found.producer,
        "node_count": sum(found.op_histogram.values()),
        "op_histogram": dict(found.op_histogram),
        "parameter_count": found.weights.parameter_count,
        "weights_bytes": found.weights.size_bytes,
        "macs": _plain_macs(found.macs),
        "inputs": [_plain_value(value) for value in found.inputs],
        "outputs": [_plain_value(value) for value in found.outputs],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "graph": layer.graph,
                "inputs": [_plain_shape(shape) for shape in layer.inputs],
                "outputs": [_plain_shape(shape) for shape in layer.outputs],
                "macs": None if layer.macs is None else _plain_macs(layer.macs),
                "parameter_count": layer.parameter_count,
            }
            for layer in found.layers
        ],
        "functions": dict(found.functions),
        "external_data": [str(path) for path in found.data_files],
        "annotations": [
            {"node": annotation.where, "entries": dict(annotation.entries)}
            for annotation in found.annotations
        ],
        "repairs": list(found.repairs),
    }


def _plain_value(value: Value) -> dict[str, Any]:
    return {"name": value.name, "type": value.type, "shape": _plain_shape(value.shape)}


def _plain_shape(shape: Shape | None) -> list[int | str | None] | None:
    return None if shape is None else list(shape)


def _plain_macs(macs: Macs) -> list[dict[str, Any]]:
    return [{"count": count, "symbols": list(symbols)} for symbols, count in macs.terms]


def _value(info: ValueInfoProto) -> Value:
    return Value(info.name, _type_text(info.type), dims_of(info.type))


def _type_text(proto: TypeProto) -> str:
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        name = _element_text(getattr(proto, kind).elem_type)
        return f"sparse({name})" if kind == "sparse_tensor_type" else name
    if kind == "map_type":
        key = _element_text(proto.map_type.key_type)
        return f"map({key}, {_type_text(proto.map_type.value_type)})"
    if kind in ("sequence_type", "optional_type"):
        return f"{kind.removesuffix('_type')}({_type_text(getattr(proto, kind).elem_type)})"
    return "unknown"


def _element_text(element_type: int) -> str:
    try:
        return str(helper.tensor_dtype_to_string(element_type)).removeprefix("TensorProto.").lower()
    except (KeyError, ValueError):
        return "unknown"


def _annotations(model: ModelProto) -> Iterator[Annotation]:
    """Metadata of the model and of nodes, and the attributes of calls of our own functions."""
    own = {(f.domain, f.name) for f in model.functions if f.domain.startswith(OWN_DOMAIN)}
    if model.metadata_props:
        yield Annotation("", {entry.key: entry.value for entry in model.metadata_props})
    for graph in subgraphs(model.graph):
        for node in graph.node:
            entries = {entry.key: entry.value for entry in node.metadata_props}
            if (node.domain, node.op_type) in own:
                entries |= _attributes(node)
            if entries:
                name = node.name or next(filter(None, node.output), "")
                yield Annotation(f"{name} ({op_name(node)})", entries)


def _attributes(node: NodeProto) -> dict[str, str]:
    return {
        attribute.name: str(helper.printable_attribute(attribute)).partition(" = ")[2]
        for attribute in node.attribute
    }
