"""From a region's body to layers, and which nodes may be in a region at all.

parse        body -> LayerGraph, or why there is none
Input        one input of a region
known_facts  of the tensors of a model
eligibility  for the nodes of a model: why one may not be in a region, None if it may
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from ort_optim.compiler.layers import Convolution, LayerGraph
from ort_optim.compiler.operators import OPERATORS
from ort_optim.compiler.scope import Node, Refusal, Scope, TensorFact
from ort_optim.graph.regions.wiring import constant_tensor, is_constant
from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.graph.walk import STANDARD_DOMAINS
from ort_optim.kernels.spec import ConvSpec

OLDEST_OPSET = 6
NEWEST_OPSET = 26

_SEVERAL_OUTPUTS = frozenset({"Split"})


@dataclass(frozen=True)
class Input:
    """An input of a region: its name in the body, what is known of it, if it is constant."""

    name: str
    fact: TensorFact | None
    is_constant: bool


def parse(
    name: str,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, TensorProto],
    inputs: Sequence[Input],
    outputs: Sequence[str],
    opset: int,
) -> LayerGraph | str:
    """The layers of a region, or the reason why it can't be compiled.

    `nodes` are the body without its Constant nodes, whose values are in `constants` by name, in
    topological order; `opset` is the version of ONNX's own operators.
    """
    scope = Scope(opset, constants)
    try:
        for number, each in enumerate(inputs):
            if each.is_constant:
                scope.add_weight(each.name, number, each.fact)
            else:
                scope.add_activation(each.name, number, each.fact)
        for proto in nodes:
            _parse_node(proto, scope)
        missing = [each for each in outputs if each not in scope.values]
        if missing:
            raise Refusal(f"nothing makes {missing[0]}")
        ranks = [_rank(each) for each in inputs]
    except Refusal as error:
        return str(error)
    return LayerGraph(
        name=name,
        sizes=scope.sizes,
        ranks=tuple(ranks),
        activations=tuple(scope.activations),
        shapes=tuple(scope.shapes),
        layers=tuple(scope.layers),
        outputs=tuple(scope.values[each] for each in outputs),
        guards=tuple(scope.guards.values()),
    )


def _rank(given: Input) -> int:
    if given.fact is None or given.fact.dims is None:
        raise Refusal(f"the rank of {given.name} is not known")
    return len(given.fact.dims)


def _parse_node(proto: NodeProto, scope: Scope) -> None:
    """Add the layers of a node. Raises Refusal, which then names the node."""
    try:
        if not OLDEST_OPSET <= scope.opset <= NEWEST_OPSET:
            raise Refusal(f"operator set {scope.opset}")
        if proto.domain not in STANDARD_DOMAINS or proto.op_type not in OPERATORS:
            raise Refusal(f"no code for {proto.op_type}")
        if proto.op_type not in _SEVERAL_OUTPUTS and any(proto.output[1:]):
            raise Refusal("more than one output")
        if not proto.output or not proto.output[0]:
            raise Refusal("no output")
        OPERATORS[proto.op_type](Node(proto, scope))
    except Refusal as error:
        label = proto.name or (proto.output[0] if proto.output else "")
        raise Refusal(f"{proto.op_type} {label}: {error}") from None
    except ValueError as error:  # an array that can't be read, a spec that can't be
        raise Refusal(f"{proto.op_type}: {error}") from None


Accept = Callable[[NodeProto, ConvSpec], str | None]
"""Why a convolution that could be compiled is not to be; None if it is."""


def known_facts(model: ModelProto) -> dict[str, TensorFact]:
    """What is stated or can be inferred of the tensors of the model's main graph."""
    graph = infer(skeleton_model(model)).graph
    infos: list[ValueInfoProto] = [*graph.input, *graph.value_info, *graph.output]
    return {info.name: fact_of(info) for info in infos}


def eligibility(
    model: ModelProto,
    accept: Accept = lambda node, spec: None,
    facts: Mapping[str, TensorFact] | None = None,
) -> Callable[[NodeProto], str | None]:
    """For nodes of the model's main graph: why one may not be in a region, None if it may.

    `facts` are the `known_facts`, where the caller has them.
    """
    facts = known_facts(model) if facts is None else facts
    inputs = {info.name for info in model.graph.input}
    constants = {e.name: e for e in model.graph.initializer if e.name not in inputs}
    for node in model.graph.node:
        if is_constant(node) and (tensor := constant_tensor(node)) is not None:
            constants[node.output[0]] = tensor
    opset = next((e.version for e in model.opset_import if e.domain in STANDARD_DOMAINS), 0)

    def reason(node: NodeProto) -> str | None:
        return eligible(node, facts, constants, opset, accept)

    return reason


def eligible(
    node: NodeProto,
    facts: Mapping[str, TensorFact],
    constants: Mapping[str, TensorProto],
    opset: int,
    accept: Accept,
) -> str | None:
    """Why a node may not be in a region, None if it may.

    `facts` are of tensors made at run time, `constants` of all others.
    """
    if node.op_type not in OPERATORS:
        return f"no code for {node.op_type}"
    scope = Scope(opset, constants)
    try:
        for number, name in enumerate(dict.fromkeys(node.input)):
            if not name:
                continue
            tensor = constants.get(name)
            if tensor is None:
                scope.add_activation(name, number, facts.get(name))
            elif tensor.data_type == TensorProto.FLOAT:
                fact = TensorFact(tensor.data_type, tuple(tensor.dims))
                scope.add_weight(name, number, fact)
        _parse_node(node, scope)
    except Refusal as error:
        return str(error).partition(": ")[2] or str(error)
    specs = [layer.op.spec for layer in scope.layers if isinstance(layer.op, Convolution)]
    return next((reason for spec in specs if (reason := accept(node, spec))), None)


def fact_of(info: ValueInfoProto) -> TensorFact:
    """What a value info says of a tensor."""
    if not info.type.HasField("tensor_type"):
        return TensorFact(TensorProto.UNDEFINED, None)
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return TensorFact(kind.elem_type, None)
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in kind.shape.dim
    )
    return TensorFact(kind.elem_type, dims)
