"""Shape inference on protos, kept from spending memory on what models only pretend to compute.

infer       value infos as onnx infers them
dims_of     the dimensions in a type
describe    NumPy dtype and dimensions of a type

onnx's data propagation follows the values of sizes through the graph, but does so for any tensor
of rank 1, at some 140 bytes an element and before it looks whether the values are known: a waveform
of 5M samples that is added to another takes 0.7 GB, and a model of 101 bytes all memory there is.
`infer` cuts the model where that would happen: a node becomes an Identity of a made-up input of the
output's type.
    (1) a node that propagates and touches a vector known to be long
    (2) a node whose output may come out as large as the sizes it is given say, where these follow
        from constants and known shapes alone. It is computed beside the cut, read by nobody; once
        its size is known it is let in, or stays cut with its type if it is large. So it is when all
        others are settled that it can depend on, and a size is not known still: it never will be.

Where onnx can't follow, behind an operator it does not know or a size that is computed, a
convolution's weights still tell the type, rank and channels of what it reads, and inference goes on
from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from ort_optim.graph.walk import STANDARD_DOMAINS, node_graphs, subgraphs

Dim = int | str | None

LONG_VECTOR = 4096  # elements; shapes, axes and the like are never that long
LARGE_TENSOR = 1 << 20  # elements that may become one vector
MOST_ROUNDS = 32

PROPAGATING_OPS = frozenset(
    {"Add", "Cast", "Concat", "Gather", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"}
)
SIZES_FROM = {  # ops whose output is as large as some inputs say: the first of these
    **dict.fromkeys(("CenterCropPad", "Expand", "OneHot", "Pad", "Resize", "Tile", "Upsample"), 1),
    **dict.fromkeys(("ConstantOfShape", "Range"), 0),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), 0),
}

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})

_GIVEN = ":given"  # endings that no file's names are likely to have
_ASIDE = ":aside"


def infer(model: ModelProto) -> ModelProto:
    """The model with value infos as onnx infers them; as it was where inference fails.

    `model` stays as it is. It should be without the data of its weights (`skeleton_model`), which
    would be copied with it; to pin inputs, give them their shapes first. Models that still have
    functions get no values propagated, as what happens inside of these is not seen. Everything
    that infers shapes in this process should come here, verification too.
    """
    found = _inferred(model)
    told = _told_by_weights(found)
    if not told:
        return found
    more = ModelProto()
    more.CopyFrom(model)
    for number, graph in enumerate(subgraphs(more.graph)):
        _state(graph, told.get(number, {}))
    again = _inferred(more)
    return found if again is more else again


def _inferred(model: ModelProto) -> ModelProto:
    """As `infer`, without what weights tell."""
    plain = _infer(model, data_prop=False)
    if plain is None:
        return model
    if model.functions:
        return plain
    found = plain
    settled: dict[str, TypeProto | None] = {}
    values = True
    for _ in range(MOST_ROUNDS):
        cuts, aside = _places_to_cut(model, found.graph, settled)
        result = _infer_cut(model, cuts, aside, data_prop=values)
        if result is None:
            return found
        found, beside = result
        sizes = {name: each for name, each in beside.items() if _elements(each) is not None}
        if values and not sizes:
            firm = _firm(model.graph, cuts)
            sizes = {n: each for n, each in beside.items() if n in firm and dims_of(each)}
            if not sizes:
                break
        large = {n: each for n, each in sizes.items() if _least_elements(each) > LARGE_TENSOR}
        settled |= {name: large.get(name) for name in sizes}
        values = not large  # first see which vectors these make long
    return found


def _told_by_weights(inferred: ModelProto) -> dict[int, dict[str, TypeProto]]:
    """Types of what convolutions read, where inference found none, by number of the subgraph.

    Only of what nodes of the same graph make: a convolution in a branch that is not taken says
    nothing of the tensors around it.
    """
    told: dict[int, dict[str, TypeProto]] = {}
    outermost = _types(inferred.graph)
    for number, graph in enumerate(subgraphs(inferred.graph)):
        known = outermost | _types(graph)
        made = {name for node in graph.node for name in node.output}
        made -= {info.name for info in graph.output}
        for node in graph.node:
            if node.op_type not in CONVOLUTIONS or node.domain not in STANDARD_DOMAINS:
                continue
            x, weights = (*node.input, "", "")[:2]
            if x not in made or (x in known and dims_of(known[x]) is not None):
                continue
            if weights in known and (found := _convolved(node, known[weights])) is not None:
                told.setdefault(number, {})[x] = found
    return told


def _convolved(node: NodeProto, weights: TypeProto) -> TypeProto | None:
    """The type of what a convolution with these weights reads: (N, Cin, ...), of their rank."""
    dims = dims_of(weights)
    if not dims or len(dims) < 2:
        return None
    group = next((each.i for each in node.attribute if each.name == "group"), 1)
    channels = dims[0] if node.op_type == "ConvTranspose" else dims[1]
    if isinstance(channels, int) and node.op_type == "Conv":
        channels *= group
    shape = [None, channels if isinstance(channels, int) else None, *[None] * (len(dims) - 2)]
    return onnx.helper.make_tensor_type_proto(weights.tensor_type.elem_type, shape)


def _state(graph: GraphProto, types: Mapping[str, TypeProto]) -> None:
    """Value infos of these types, in the place of those that are there."""
    kept = [info for info in graph.value_info if info.name not in types]
    kept += [onnx.ValueInfoProto(name=name, type=each) for name, each in types.items()]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _infer(model: ModelProto, *, data_prop: bool) -> ModelProto | None:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    except Exception:  # onnx raises many kinds on graphs that ORT still runs
        return None


def _infer_cut(
    model: ModelProto, cuts: Mapping[str, TypeProto], aside: frozenset[str], *, data_prop: bool
) -> tuple[ModelProto, dict[str, TypeProto]] | None:
    """Inference with the nodes that make `cuts` replaced, and what the ones `aside` would give."""
    if not cuts:
        whole = _infer(model, data_prop=data_prop)
        return None if whole is None else (whole, {})
    copy = ModelProto()
    copy.CopyFrom(model)
    give_types(copy, cuts, aside)
    inferred = _infer(copy, data_prop=data_prop)
    if inferred is None:
        return None
    sizes: dict[str, TypeProto] = {}
    for graph, original in zip(subgraphs(inferred.graph), subgraphs(model.graph), strict=True):
        del graph.node[len(original.node) :]
        for node, before in zip(graph.node, original.node, strict=True):
            if before.output and before.output[0] in cuts:
                node.CopyFrom(before)
        infos = list(graph.value_info)
        sizes |= {i.name.removesuffix(_ASIDE): i.type for i in infos if i.name.endswith(_ASIDE)}
        if sizes:
            del graph.value_info[:]
            graph.value_info.extend(i for i in infos if not i.name.endswith(_ASIDE))
    del inferred.graph.input[len(model.graph.input) :]
    return inferred, sizes


def give_types(
    model: ModelProto, types: Mapping[str, TypeProto], aside: frozenset[str] = frozenset()
) -> None:
    """Make the nodes whose first outputs are in `types` Identities of new inputs of these types.

    Those in `aside` stay too, as nodes at the end of their graphs whose output nobody reads.
    """
    for graph in subgraphs(model.graph):
        kept = []
        for node in graph.node:
            name = node.output[0] if node.output else ""
            if name not in types:
                continue
            if name in aside:
                beside = NodeProto()
                beside.CopyFrom(node)
                beside.output[0] = name + _ASIDE
                kept.append(beside)
            node.CopyFrom(onnx.helper.make_node("Identity", [name + _GIVEN], [name]))
        graph.node.extend(kept)
    for name, each in types.items():
        model.graph.input.append(onnx.ValueInfoProto(name=name + _GIVEN, type=each))


def _places_to_cut(
    model: ModelProto, inferred: GraphProto, settled: Mapping[str, TypeProto | None]
) -> tuple[dict[str, TypeProto], frozenset[str]]:
    """Output names and types of the nodes to cut, and which of these are to be watched."""
    if not _may_grow(inferred):
        return {}, frozenset()
    is_open = any(
        not isinstance(dim, int) for value in inferred.input for dim in dims_of(value.type) or ()
    )
    cuts: dict[str, TypeProto] = {}
    aside: set[str] = set()
    types: dict[str, TypeProto] = {}
    constant: set[str] = set()
    for graph in subgraphs(inferred):
        types |= _types(graph)
        constant.update(tensor.name for tensor in graph.initializer)
        for node in graph.node:
            if node.domain not in STANDARD_DOMAINS or not node.output:
                continue
            name = node.output[0]
            if _is_constant(node, constant, types, is_open):
                constant.update(node.output)
            if node.op_type in PROPAGATING_OPS:
                if any(_is_long(types.get(each)) for each in (*node.input, name)):
                    cuts[name] = types.get(name, TypeProto())
            elif node.op_type in SIZES_FROM and _sizes(node) <= constant:
                if name in settled:
                    if (large := settled[name]) is not None:
                        cuts[name] = large
                elif _elements(types.get(name)) is None:
                    cuts[name] = _element_type_only(types.get(name))
                    aside.add(name)
    return cuts, frozenset(aside)


def _firm(graph: GraphProto, cuts: Mapping[str, TypeProto]) -> set[str]:
    """Those of the cut tensors that depend on no other one."""
    firm: set[str] = set()
    loose = set(cuts)
    for each in subgraphs(graph):
        for node in each.node:
            below = [inner for start in node_graphs(node) for inner in subgraphs(start)]
            reads = {*node.input, *(info.name for inner in below for info in inner.output)}
            reads.update(name for inner in below for other in inner.node for name in other.input)
            name = node.output[0] if node.output else ""
            if name in cuts and not reads & loose:
                firm.add(name)
            elif reads & loose:
                loose.update(node.output)
    return firm


def _may_grow(inferred: GraphProto) -> bool:
    return any(
        any(_is_long(v.type) for v in (*graph.value_info, *graph.input, *graph.output))
        or any(
            len(tensor.dims) == 1 and tensor.dims[0] > LONG_VECTOR for tensor in graph.initializer
        )
        or any(node.op_type in SIZES_FROM for node in graph.node)
        for graph in subgraphs(inferred)
    )


def _types(graph: GraphProto) -> dict[str, TypeProto]:
    found = {
        info.name: info.type
        for info in (*graph.output, *graph.input, *graph.value_info)
        if info.HasField("type")
    }
    for tensor in graph.initializer:
        found[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return found


def _is_constant(
    node: NodeProto, constant: set[str], types: Mapping[str, TypeProto], is_open: bool
) -> bool:
    """Whether the value follows from constants and known shapes, or might."""
    if node.op_type in ("Shape", "Size"):
        source = types.get(node.input[0])
        dims = None if source is None else dims_of(source)
        return not is_open if dims is None else all(isinstance(dim, int) for dim in dims)
    return all(name in constant for name in node.input if name) and not any(node_graphs(node))


def _sizes(node: NodeProto) -> set[str]:
    return {name for name in node.input[SIZES_FROM[node.op_type] :] if name}


def _is_long(type_proto: TypeProto | None) -> bool:
    if type_proto is None:
        return False
    dims = type_proto.tensor_type.shape.dim
    return len(dims) == 1 and dims[0].dim_value > LONG_VECTOR


def _elements(type_proto: TypeProto | None) -> int | None:
    dims = None if type_proto is None else dims_of(type_proto)
    if dims is None:
        return None
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(sizes) if len(sizes) == len(dims) else None


def _least_elements(type_proto: TypeProto) -> int:
    """How many there are at least, unless there are none: unknown sizes count as 1."""
    return math.prod(dim for dim in dims_of(type_proto) or () if isinstance(dim, int))


def _element_type_only(type_proto: TypeProto | None) -> TypeProto:
    bare = TypeProto()
    if type_proto is not None:
        bare.tensor_type.elem_type = type_proto.tensor_type.elem_type
    return bare


def dims_of(type_proto: TypeProto) -> tuple[Dim, ...] | None:
    """The dimensions of a tensor type: sizes, symbols, None where unknown; None without a rank.

    Inference names the dimensions it knows nothing of itself: "unk__7".
    """
    tensor = type_proto.tensor_type
    if not type_proto.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in tensor.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def describe(type_proto: TypeProto | None) -> tuple[np.dtype[np.generic] | None, list[Dim] | None]:
    """NumPy dtype and dimensions of a tensor type; (None, None) for anything else."""
    if type_proto is None or not type_proto.HasField("tensor_type"):
        return None, None
    element_type = type_proto.tensor_type.elem_type
    dtype = (
        onnx.helper.tensor_dtype_to_np_dtype(element_type)
        if element_type != TensorProto.UNDEFINED
        else None
    )
    dims = dims_of(type_proto)
    return dtype, None if dims is None else list(dims)
