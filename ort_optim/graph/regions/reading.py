"""The calls of regions in a model, read from a file that anybody may have changed.

calls          the calls as they stand there
verify_name    whether a call is what its name says; the reason if not
sound_calls    the calls that may be computed by code of ours, and why others may not

Nothing here raises for anything that a parsed message can hold. A name that is wrong does no harm
by itself, since code is made from the body alone: it only says that the file was not written by
us, or was changed since. Whoever changes a file can make the name that fits, so what is said here
of templates and tiles is still to be checked by who uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from ort_optim.graph.regions.form import DOMAIN, LISTS, TEXTS, Tiling, element_type
from ort_optim.graph.regions.naming import (
    Formal,
    UnfitError,
    body_name,
    operator_sets,
    plain_domain,
)
from ort_optim.graph.regions.wiring import constant_tensor, is_constant
from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.graph.walk import node_graphs


@dataclass(frozen=True)
class Call:
    """A call of a region.

    `inputs` are the function's, in order, with what this call gives them: a constant is a weight.
    `body` holds the function's nodes in topological order without its constants, which are in
    `constants` by name. `tiling` is None where the attributes do not say it. `problem` is what is
    wrong with the call besides its name; None if nothing is.
    """

    node: NodeProto
    function: FunctionProto
    inputs: tuple[Formal, ...]
    body: tuple[NodeProto, ...]
    constants: Mapping[str, TensorProto]
    tiling: Tiling | None
    imports: Mapping[str, int]
    problem: str | None

    @property
    def weights(self) -> tuple[str, ...]:
        """The names, in the model, of the weights in the order of inputs; none with a problem."""
        pairs = zip(self.inputs, self.node.input, strict=False)
        return tuple(name for formal, name in pairs if formal.is_constant)


@dataclass(frozen=True)
class SoundCalls:
    """The calls that are what they say, and for the names of all others the reason."""

    calls: tuple[Call, ...]
    refused: Mapping[str, str]


def calls(model: ModelProto) -> list[Call]:
    """All calls of functions in our domain, those in subgraphs and functions last."""
    functions: dict[str, list[FunctionProto]] = {}
    for function in model.functions:
        if function.domain == DOMAIN:
            functions.setdefault(function.name, []).append(function)
    if not functions:
        return []
    reader = _Reader(model)
    found: list[tuple[NodeProto, str | None]] = [
        (node, None) for node in model.graph.node if node.domain == DOMAIN
    ]
    for node in model.graph.node:
        found += [(inner, "it is in a subgraph") for inner in _calls_below(node)]
    for function in model.functions:
        for node in function.node:
            for inner in (node, *_calls_below(node)):
                if inner.domain == DOMAIN:
                    found.append((inner, "it is in a function"))
    return [
        reader.call(node, functions[node.op_type], place)
        for node, place in found
        if node.op_type in functions
    ]


def verify_name(call: Call) -> str | None:
    """Why the call is not what its name says, None if it is."""
    said = call.tiling.named if call.tiling else ()
    outputs = list(call.function.output)
    try:
        name = body_name(call.function.node, call.inputs, outputs, call.imports, said)
    except UnfitError as error:
        return str(error)
    return None if name == call.function.name else "it is not the one that its name says"


def sound_calls(model: ModelProto) -> SoundCalls:
    """The calls whose names, attributes and surroundings are right.

    A custom op takes all calls of its name, so one call that is not sound rules the others out.
    A name that does not fit is the reason only where nothing else is wrong.
    """
    found = calls(model)
    refused: dict[str, str] = {}
    for call in found:
        if call.problem is not None:
            refused.setdefault(call.function.name, call.problem)
    verified: set[tuple[str, tuple[Formal, ...], Tiling | None]] = set()
    for call in found:
        name = call.function.name
        said = name, call.inputs, call.tiling
        if name in refused or said in verified:
            continue
        verified.add(said)
        reason = verify_name(call)
        if reason is not None:
            refused[name] = reason
    return SoundCalls(tuple(c for c in found if c.function.name not in refused), refused)


def _calls_below(node: NodeProto) -> Iterator[NodeProto]:
    for graph in node_graphs(node):
        for inner in graph.node:
            if inner.domain == DOMAIN:
                yield inner
            yield from _calls_below(inner)


class _Reader:
    """What all calls of a model are read with."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._imports = operator_sets(model.opset_import)
        self._inputs = {value.name for value in model.graph.input}
        self._constants: dict[str, tuple[int, tuple[int, ...]]] = {
            tensor.name: (tensor.data_type, tuple(tensor.dims))
            for tensor in model.graph.initializer
            if tensor.name not in self._inputs
        }
        for node in model.graph.node:
            if is_constant(node):
                tensor = constant_tensor(node)
                if tensor is not None:
                    self._constants[node.output[0]] = tensor.data_type, tuple(tensor.dims)
        self._types = _types(model.graph)
        self._is_inferred = False
        self._overridden = {
            (plain_domain(f.domain), f.name) for f in model.functions if f.domain != DOMAIN
        }
        self._bodies: dict[str, _Body] = {}

    def call(self, node: NodeProto, functions: list[FunctionProto], place: str | None) -> Call:
        """A call; `place` says what is wrong with where it stands."""
        function = functions[0]
        if function.name not in self._bodies:
            self._bodies[function.name] = self._body(functions)
        body = self._bodies[function.name]
        said = _tiling(node)
        problem = place or body.problem or _arity_problem(node, function)
        if isinstance(said, str):
            problem = problem or said
        return Call(
            node=node,
            function=function,
            inputs=() if problem else tuple(map(self._formal, function.input, node.input)),
            body=body.nodes,
            constants=body.constants,
            tiling=said if isinstance(said, Tiling) else None,
            imports=self._imports,
            problem=problem,
        )

    def _formal(self, name: str, given: str) -> Formal:
        if given in self._constants:
            element, dims = self._constants[given]
            return Formal(name, True, element, dims)
        if given not in self._types and not self._is_inferred:
            self._is_inferred = True
            self._types = _inferred_types(self._model) | self._types
        return Formal(name, False, self._types.get(given, TensorProto.UNDEFINED))

    def _body(self, functions: list[FunctionProto]) -> _Body:
        nodes = []
        constants: dict[str, TensorProto] = {}
        for node in functions[0].node:
            tensor = constant_tensor(node) if is_constant(node) else None
            if tensor is None:
                nodes.append(node)
            else:
                constants[node.output[0]] = tensor
        return _Body(tuple(nodes), constants, self._function_problem(functions))

    def _function_problem(self, functions: list[FunctionProto]) -> str | None:
        function = functions[0]
        if len(functions) > 1:
            return "its function is defined twice"
        if function.overload:
            return "its function is overloaded"
        for node in function.node:
            operator = plain_domain(node.domain), node.op_type
            if node.domain == DOMAIN or operator in self._overridden:
                return "its function calls another one"
        for domain, version in operator_sets(function.opset_import).items():
            if self._imports.get(domain) != version:
                return "its function imports another operator set than the model"
        return None


@dataclass(frozen=True)
class _Body:
    """What all calls of a function share; `problem` is what is wrong with it."""

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, TensorProto]
    problem: str | None


def _arity_problem(node: NodeProto, function: FunctionProto) -> str | None:
    if node.overload:
        return "its function is overloaded"
    if len(node.input) != len(function.input) or not all(node.input):
        return f"it gives {len(node.input)} inputs, not {len(function.input)}"
    if len(node.output) != len(function.output) or not all(node.output):
        return f"it takes {len(node.output)} outputs, not {len(function.output)}"
    return None


def _types(graph: GraphProto) -> dict[str, int]:
    """Element types as the graph states them.

    ORT compares what is stated with what it finds itself, and refuses a model where they differ.
    """
    return {
        info.name: element_type(info.type)
        for info in (*graph.output, *graph.value_info, *graph.input)
        if info.HasField("type")
    }


def _inferred_types(model: ModelProto) -> dict[str, int]:
    """Element types that inference finds; none in a model too damaged to be copied."""
    try:
        return _types(infer(skeleton_model(model, with_value_info=False)).graph)
    except (UnicodeDecodeError, KeyError, ValueError, TypeError):  # no UTF-8, unknown types
        return {}


def _tiling(node: NodeProto) -> Tiling | str:
    """What the attributes say, or what is wrong with them."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    texts: dict[str, tuple[str, ...]] = {}
    for key in (*LISTS, *TEXTS):
        attribute = attributes.get(key)
        if attribute is None:
            return f"it has no attribute '{key}'"
        wanted = AttributeProto.STRINGS if key in LISTS else AttributeProto.STRING
        if attribute.type != wanted or attribute.ref_attr_name:
            return f"its attribute '{key}' is not text"
        values = attribute.strings if key in LISTS else [attribute.s]
        try:
            texts[key] = tuple(value.decode() for value in values)
        except UnicodeDecodeError:
            return f"its attribute '{key}' is not text"
    if len(texts["template"]) != len(texts["tile"]):
        return "its attributes 'template' and 'tile' differ in length"
    return Tiling(texts["template"], texts["tile"], texts["layout"][0], texts["target"][0])
