"""What stands upstream of each output: random ops, coarse types, ops that jump.

How strictly an output can be judged depends on where its numbers come from. `trace_origins` walks
the whole model once, into subgraphs and model-local functions, and says for each graph output
(or any other tensor of the main graph) what it depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ort_optim.graph.walk import node_graphs
from ort_optim.verify.metrics import machine_epsilon

RANDOM_OPS = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "Sampling",
    }
)
TRAINING_DROPOUT_OPS = frozenset({"Dropout", "BitmaskDropout"})  # random where input 2 may be true

DATA_DEPENDENT_SHAPE_OPS = frozenset(
    {"NonZero", "Compress", "NonMaxSuppression", "Unique", "Loop", "If", "StringSplit"}
)

QUANTIZED_OPS = frozenset(
    {
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "DequantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
    }
)
QUANTIZED_PREFIX = "QLinear"

JUMPING_OPS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "TopK",
        "NonMaxSuppression",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Equal",
        "Round",
        "Floor",
        "Ceil",
        "Sign",
        "Hardmax",
        "NonZero",
        "Unique",
        "Mod",
    }
)
"""Ops whose output jumps when a float input changes by a rounding error."""

COARSE_TYPES: Mapping[int, float] = {
    code: machine_epsilon(onnx.helper.tensor_dtype_to_np_dtype(code))
    for code in (
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2FNUZ,
    )
}


@dataclass(frozen=True)
class Origin:
    """What a tensor depends on. `epsilon`: of the coarsest float type upstream (0: fp32 or finer).

    `jumps`: an op of JUMPING_OPS, or a cast to integers, is upstream.
    """

    random: bool = False
    data_dependent_shape: bool = False
    quantized: bool = False
    jumps: bool = False
    epsilon: float = 0.0

    def __or__(self, other: Origin) -> Origin:
        """The origin of what depends on both."""
        if other is self or other == PLAIN_ORIGIN:
            return self
        return Origin(
            **{f.name: max(getattr(self, f.name), getattr(other, f.name)) for f in _FIELDS}
        )


_FIELDS = fields(Origin)
PLAIN_ORIGIN = Origin()


def trace_origins(model: ModelProto) -> dict[str, Origin]:
    """The origin of every tensor of the main graph, graph outputs included."""
    bodies = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    return _Tracer(bodies).graph(model.graph, {})


def is_jumping(node: NodeProto) -> bool:
    """Whether the node's output may jump for a small change of a float input."""
    if node.op_type == "Cast":
        to = next((a.i for a in node.attribute if a.name == "to"), TensorProto.UNDEFINED)
        return to in _INTEGER_TYPES
    return node.op_type in JUMPING_OPS


_INTEGER_TYPES = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)


@dataclass
class _Tracer:
    bodies: Mapping[tuple[str, str, str], Iterable[NodeProto]]
    done: dict[tuple[str, str, str], Origin] = field(default_factory=dict)

    def graph(self, graph: GraphProto, outer: Mapping[str, Origin]) -> dict[str, Origin]:
        """Origins by tensor name: this graph's and those visible from outside."""
        known = dict(outer)
        for value in graph.input:
            known[value.name] = _of_type(value.type.tensor_type.elem_type)
        for tensor in graph.initializer:
            known[tensor.name] = _of_type(tensor.data_type)
        self._nodes(graph.node, known, graph)
        return known

    def _nodes(
        self, nodes: Iterable[NodeProto], known: dict[str, Origin], graph: GraphProto | None
    ) -> None:
        """Fill `known` from the nodes; again until nothing changes, as files may be unsorted."""
        nodes = list(nodes)
        is_sorted = self._walk(nodes, known, graph)
        while not is_sorted and self._changes(nodes, known, graph):
            pass

    def _changes(
        self, nodes: Iterable[NodeProto], known: dict[str, Origin], graph: GraphProto | None
    ) -> bool:
        """Walk once more; whether that changed anything."""
        before = dict(known)
        self._walk(nodes, known, graph)
        return known != before

    def _walk(
        self, nodes: Iterable[NodeProto], known: dict[str, Origin], graph: GraphProto | None
    ) -> bool:
        """Fill `known` from the nodes in their order; whether every name was known before use."""
        is_sorted = True
        for node in nodes:
            origin = self._node(node, known, graph)
            for name in node.input:
                is_sorted &= not name or name in known
                origin |= known.get(name, PLAIN_ORIGIN)
            for name in node.output:
                if name:
                    known[name] = origin
        return is_sorted

    def _node(
        self, node: NodeProto, known: Mapping[str, Origin], graph: GraphProto | None
    ) -> Origin:
        """What the node itself adds, its subgraphs and function body included."""
        op = node.op_type
        epsilon = 0.0
        inner = PLAIN_ORIGIN
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                epsilon = max(epsilon, COARSE_TYPES.get(attribute.t.data_type, 0.0))
            elif attribute.name in ("to", "dtype", "output_dtype"):
                epsilon = max(epsilon, COARSE_TYPES.get(attribute.i, 0.0))
        for subgraph in node_graphs(node):
            for origin in self._subgraph(subgraph, known):
                inner |= origin
        key = (node.domain, op, node.overload)
        if key in self.bodies:
            inner |= self._function(key)
        random = op in RANDOM_OPS or (op in TRAINING_DROPOUT_OPS and _may_train(node, graph))
        return inner | Origin(
            random=random,
            data_dependent_shape=op in DATA_DEPENDENT_SHAPE_OPS,
            quantized=op in QUANTIZED_OPS or op.startswith(QUANTIZED_PREFIX),
            jumps=is_jumping(node),
            epsilon=epsilon,
        )

    def _subgraph(self, subgraph: GraphProto, known: Mapping[str, Origin]) -> Iterable[Origin]:
        """Origins of what the subgraph computes or hands out, captured values included."""
        inside = self.graph(subgraph, known)
        produced = {name for node in subgraph.node for name in (*node.output, *node.input) if name}
        produced.update(value.name for value in subgraph.output)
        return [inside[name] for name in produced if name in inside]

    def _function(self, key: tuple[str, str, str]) -> Origin:
        """Everything a function's body may add to what goes in."""
        if key not in self.done:
            self.done[key] = PLAIN_ORIGIN  # ends the recursion that a broken model may hold
            inside: dict[str, Origin] = {}
            self._nodes(self.bodies[key], inside, None)
            total = PLAIN_ORIGIN
            for origin in inside.values():
                total |= origin
            self.done[key] = total
        return self.done[key]


def _of_type(element_type: int) -> Origin:
    epsilon = COARSE_TYPES.get(element_type, 0.0)
    return Origin(epsilon=epsilon) if epsilon else PLAIN_ORIGIN


def _may_train(node: NodeProto, graph: GraphProto | None) -> bool:
    """Whether a Dropout's training_mode is given and not a constant false."""
    if len(node.input) < 3 or not node.input[2]:
        return False
    name = node.input[2]
    if graph is None:
        return True
    for tensor in graph.initializer:
        if tensor.name == name:
            return bool(onnx.numpy_helper.to_array(tensor).any())
    for other in graph.node:
        if other.op_type == "Constant" and name in other.output:
            return any(
                a.name == "value" and onnx.numpy_helper.to_array(a.t).any() for a in other.attribute
            )
    return True
