"""Regions in their portable form: calls of model-local functions with standard bodies.

wrap         a model with its regions as calls
Tiling       what a call says of how its region is to be computed

    x -> Conv(w, b) -> Relu -> y      becomes      x, w, b -> R_0123... -> y

ONNX Runtime without our library inlines the body. Functions are of domain `ort_optim`, named by
`naming.body_name`; equal bodies are one function. Their inputs are the region's activations, then
its weights; small constants are Constant nodes of the body. The doc strings and the metadata of
the nodes go along; where bodies are shared, those that are true of each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
)

from ort_optim.graph.names import Names
from ort_optim.graph.order import reads, sort_nodes
from ort_optim.graph.regions.naming import Formal, body_name, operator_sets
from ort_optim.graph.regions.region import Region
from ort_optim.graph.regions.wiring import constant_tensor
from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import copy_fields, skeleton_model

DOMAIN = "ort_optim"
VERSION = 1
IMAGE_RANK = 4
OLDEST_IR = 8  # the first with model-local functions

LISTS = ("template", "tile")
TEXTS = ("layout", "target")


@dataclass(frozen=True)
class Tiling:
    """How a region is to be computed: template and tile sizes of each anchor, in the body's order.

    `layout` is the layout of its inner tensors, `target` names the machine it was chosen for.
    """

    template: tuple[str, ...]
    tile: tuple[str, ...]
    layout: str
    target: str

    @property
    def named(self) -> tuple[Sequence[str], ...]:
        """The part of it that a region's name depends on: `target` says only where it is from."""
        return self.template, self.tile, (self.layout,)


def wrap(model: ModelProto, regions: Sequence[Region], tilings: Sequence[Tiling]) -> ModelProto:
    """A new model in which each region, found in `model` by `group`, is a call with its tiling.

    `model` stays as it is; without regions it comes back itself. Value infos are inferred afresh:
    those of tensors that are gone are dropped, and each activation of a call gets one. Initializers
    and Constant nodes that only regions read go into their bodies. Raises ValueError for a model
    that has calls already (inline these first), for regions that overlap or depend on each other
    in a circle, and for a tiling of another number of anchors than its region has.
    """
    if not regions:
        return model
    _check(model, regions, tilings)
    types = _types(model, regions)
    bodies = _Bodies(model)
    calls = [bodies.call(r, t, types) for r, t in zip(regions, tilings, strict=True)]
    wrapped = ModelProto()
    copy_fields(model, wrapped, skip=frozenset({"graph", "opset_import"}))
    wrapped.ir_version = max(model.ir_version, OLDEST_IR)
    wrapped.opset_import.extend(e for e in model.opset_import if e.domain != DOMAIN)
    wrapped.opset_import.add(domain=DOMAIN, version=VERSION)
    wrapped.functions.extend(bodies.functions.values())
    _fill(wrapped.graph, model.graph, regions, calls, types)
    return wrapped


def _check(model: ModelProto, regions: Sequence[Region], tilings: Sequence[Tiling]) -> None:
    if any(function.domain == DOMAIN for function in model.functions):
        raise ValueError("the model has calls of regions already: inline them first")
    positions = [position for region in regions for position in region.positions]
    if len(set(positions)) < len(positions):
        raise ValueError("two regions hold the same node")
    for region, tiling in zip(regions, tilings, strict=True):
        if not len(tiling.template) == len(tiling.tile) == len(region.anchors):
            raise ValueError("a tiling must name template and tile of each anchor of its region")


def _types(model: ModelProto, regions: Sequence[Region]) -> dict[str, TypeProto]:
    """Inferred types by name. Symbolic sizes, which inference may get wrong, are left unknown.

    Where no type, rank or number of channels is found, what is stated of an image counts.
    """
    inferred = infer(skeleton_model(model, with_value_info=False)).graph
    found: dict[str, TypeProto] = {}
    for info in (*inferred.output, *inferred.input, *inferred.value_info):
        if info.HasField("type"):
            found[info.name] = info.type
            for dim in info.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")
    for info in model.graph.value_info:
        stated = info.type.tensor_type.shape.dim
        if len(stated) == IMAGE_RANK:
            _add_channels(found.setdefault(info.name, TypeProto()).tensor_type, info)
    return found


def _add_channels(found: TypeProto.Tensor, stated: ValueInfoProto) -> None:
    """Take rank and channels of an image from what is stated, if they are not known yet."""
    found.elem_type = found.elem_type or stated.type.tensor_type.elem_type
    if not found.HasField("shape"):
        for _ in range(IMAGE_RANK):
            found.shape.dim.add()
    given = stated.type.tensor_type.shape.dim[1]
    if len(found.shape.dim) == IMAGE_RANK and not found.shape.dim[1].HasField("dim_value"):
        found.shape.dim[1].ClearField("dim_param")
        if given.HasField("dim_value"):
            found.shape.dim[1].dim_value = given.dim_value


class _Bodies:
    """The functions of a model's regions, each body once."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._imports = operator_sets(model.opset_import)
        self._own_imports = [
            OperatorSetIdProto(domain=e.domain, version=e.version)
            for e in model.opset_import
            if e.domain != DOMAIN
        ]
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made = {n.output[0]: n for n in model.graph.node if constant_tensor(n) is not None}
        self._node_names = Names(node.name for node in model.graph.node)
        self.functions: dict[str, FunctionProto] = {}

    def call(self, region: Region, tiling: Tiling, types: dict[str, TypeProto]) -> NodeProto:
        """The node that stands for a region; its function is added if it is new."""
        body = [self._constant(name) for name in region.constants]
        for node in region.nodes:
            body.append(NodeProto())
            body[-1].CopyFrom(node)
        weights = [(name, self._tensor(name)) for name in region.weights]
        inputs = [
            *(Formal(n, False, element_type(types.get(n))) for n in region.activations),
            *(Formal(n, True, t.data_type, tuple(t.dims)) for n, t in weights),
        ]
        name = body_name(body, inputs, region.outputs, self._imports, tiling.named)
        if name in self.functions:
            _keep_common_notes(self.functions[name].node, body)
        else:
            self.functions[name] = FunctionProto(
                domain=DOMAIN,
                name=name,
                input=[formal.name for formal in inputs],
                output=region.outputs,
                attribute=[*LISTS, *TEXTS],
                node=body,
                opset_import=self._own_imports,
            )
        return self._node(name, region, tiling)

    def _node(self, name: str, region: Region, tiling: Tiling) -> NodeProto:
        node = NodeProto(
            domain=DOMAIN,
            op_type=name,
            name=self._node_names.numbered("region"),
            input=[*region.activations, *region.weights],
            output=region.outputs,
        )
        for key in LISTS:
            values = [each.encode() for each in getattr(tiling, key)]
            node.attribute.add(name=key, type=AttributeProto.STRINGS, strings=values)
            node.metadata_props.add(key=f"{DOMAIN}.{key}", value=" | ".join(getattr(tiling, key)))
        for key in TEXTS:
            value = getattr(tiling, key)
            node.attribute.add(name=key, type=AttributeProto.STRING, s=value.encode())
            node.metadata_props.add(key=f"{DOMAIN}.{key}", value=value)
        return node

    def _tensor(self, name: str) -> TensorProto:
        if name in self._stored:
            return self._stored[name]
        tensor = constant_tensor(self._made[name])
        assert tensor is not None
        return tensor

    def _constant(self, name: str) -> NodeProto:
        node = helper.make_node("Constant", [], [name])
        if name in self._made:
            node.name = self._made[name].name
            node.doc_string = self._made[name].doc_string
            node.metadata_props.extend(self._made[name].metadata_props)
        node.attribute.add(name="value", type=AttributeProto.TENSOR, t=self._tensor(name))
        return node


def element_type(type_proto: TypeProto | None) -> int:
    """The TensorProto.DataType of a tensor type; UNDEFINED for others and if it is not known."""
    return TensorProto.UNDEFINED if type_proto is None else type_proto.tensor_type.elem_type


def _keep_common_notes(shared: Iterable[NodeProto], body: Iterable[NodeProto]) -> None:
    """Leave the nodes of a shared body the notes that hold for another region's nodes too."""
    for node, other in zip(shared, body, strict=True):
        if node.doc_string != other.doc_string:
            node.ClearField("doc_string")
        said = {(entry.key, entry.value) for entry in other.metadata_props}
        kept = [entry for entry in node.metadata_props if (entry.key, entry.value) in said]
        if len(kept) < len(node.metadata_props):
            del node.metadata_props[:]
            node.metadata_props.extend(kept)


def _fill(
    wrapped: GraphProto,
    graph: GraphProto,
    regions: Sequence[Region],
    calls: Sequence[NodeProto],
    types: dict[str, TypeProto],
) -> None:
    """The main graph with calls in the places of the regions' last nodes."""
    copy_fields(
        graph,
        wrapped,
        skip=frozenset({"node", "initializer", "value_info", "quantization_annotation"}),
    )
    last = {max(r.positions): call for r, call in zip(regions, calls, strict=True)}
    gone = {position for region in regions for position in region.positions}
    listed = []
    for position, node in enumerate(graph.node):
        if position in last:
            listed.append(last[position])
        elif position not in gone:
            listed.append(node)
    read = {name for node in listed for name in reads(node)} | {o.name for o in graph.output}
    embedded = {name for region in regions for name in region.constants} - read
    listed = [n for n in listed if constant_tensor(n) is None or n.output[0] not in embedded]
    ordered = sort_nodes(listed)
    if ordered is None:
        raise ValueError("the regions depend on each other in a circle")
    wrapped.node.extend(ordered)
    wrapped.initializer.extend(t for t in graph.initializer if t.name not in embedded)
    inner = {name for region in regions for node in region.nodes for name in node.output}
    hidden = (inner - {name for region in regions for name in region.outputs}) | embedded
    wrapped.value_info.extend(_value_infos(graph, regions, hidden, types))
    wrapped.quantization_annotation.extend(
        note for note in graph.quantization_annotation if note.tensor_name not in hidden
    )


def _value_infos(
    graph: GraphProto,
    regions: Sequence[Region],
    hidden: Collection[str],
    types: dict[str, TypeProto],
) -> Iterable[ValueInfoProto]:
    """Inferred types of the tensors that had value infos, and of what goes in and out of calls."""
    told = {value.name for value in (*graph.input, *graph.output)}
    named = [info.name for info in graph.value_info]
    for region in regions:
        named += [*region.activations, *region.outputs]
    for name in dict.fromkeys(named):
        if name in types and name not in told and name not in hidden:
            yield ValueInfoProto(name=name, type=types[name])
