"""Model-local functions: calls replaced by the bodies they stand for, as ONNX Runtime does it.

onnx's inliner does the replacing. Three things it does otherwise than ORT are put right before:
it leaves functions alone whose operator sets differ from the model's, where ORT ignores the
function's and takes the model's; it does not know the default values of a function's attributes;
and it does not import the domains that only a function imports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import onnx.inliner
from onnx import FunctionProto, ModelProto, NodeProto, OperatorSetIdProto

from ort_optim.graph.skeleton import copy_fields, skeleton_tensor
from ort_optim.graph.walk import node_graphs

Key = tuple[str, str, str]  # domain, name, overload


def inline_functions(model: ModelProto, domains: Collection[str] | None = None) -> ModelProto:
    """The model with the functions of `domains` (all if None) inlined and dropped.

    The model itself comes back if it has no such function, or one that ends up calling itself,
    which ORT will refuse. Only the structure goes through
    onnx's inliner, so models of any size can be inlined; initializers stay the protos they were.
    Names, doc strings and metadata of everything but the calls survive, and inner names that
    clash get a suffix.
    """
    wanted = [f for f in model.functions if domains is None or f.domain in domains]
    if not wanted or _is_recursive(model):
        return model
    bare = _bare(model)
    imports = list(_joined_imports(model))
    del bare.opset_import[:]
    bare.opset_import.extend(imports)
    for function in bare.functions:
        del function.opset_import[:]
        function.opset_import.extend(imports)
    _state_defaults(bare)
    names = sorted({(f.domain, f.name) for f in wanted})
    inlined = onnx.inliner.inline_selected_functions(bare, names)
    del inlined.graph.initializer[:]
    inlined.graph.initializer.extend(model.graph.initializer)
    own_imports = {_key(f): f.opset_import for f in model.functions}
    for function in inlined.functions:
        del function.opset_import[:]
        function.opset_import.extend(own_imports[_key(function)])
    _drop_imports(inlined, {f.domain for f in wanted})
    return inlined


def _key(function: FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def _is_recursive(model: ModelProto) -> bool:
    calls = {
        _key(function): {
            (node.domain, node.op_type, node.overload) for node in _all_nodes([function.node])
        }
        for function in model.functions
    }
    while harmless := {key for key, called in calls.items() if not called & calls.keys()}:
        calls = {key: called for key, called in calls.items() if key not in harmless}
    return bool(calls)


def _joined_imports(model: ModelProto) -> Iterator[OperatorSetIdProto]:
    """The model's operator sets, and those of domains that only a function imports."""
    seen: set[str] = set()
    for imported in [*model.opset_import, *(i for f in model.functions for i in f.opset_import)]:
        if imported.domain not in seen:
            seen.add(imported.domain)
            yield imported


def _state_defaults(model: ModelProto) -> None:
    """Write out the default values of attributes that a call leaves away."""
    defaults = {_key(f): list(f.attribute_proto) for f in model.functions if f.attribute_proto}
    if not defaults:
        return
    for node in _all_nodes([model.graph.node, *(f.node for f in model.functions)]):
        given = {attribute.name for attribute in node.attribute}
        for default in defaults.get((node.domain, node.op_type, node.overload), ()):
            if default.name not in given:
                node.attribute.append(default)


def _drop_imports(model: ModelProto, domains: Collection[str]) -> None:
    """Remove the imports of those of `domains` that nothing in the model uses any more."""
    bodies = [model.graph.node, *(f.node for f in model.functions)]
    used = {node.domain for node in _all_nodes(bodies)} | {f.domain for f in model.functions}
    kept = [e for e in model.opset_import if e.domain not in domains or e.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _all_nodes(bodies: Iterable[Iterable[NodeProto]]) -> Iterator[NodeProto]:
    for body in bodies:
        for node in body:
            yield node
            yield from _all_nodes(graph.node for graph in node_graphs(node))


def _bare(model: ModelProto) -> ModelProto:
    """The model with the data of large initializers left out; all else is needed."""
    bare = ModelProto()
    copy_fields(model, bare, skip=frozenset({"graph"}))
    copy_fields(model.graph, bare.graph, skip=frozenset({"initializer"}))
    bare.graph.initializer.extend(skeleton_tensor(t) for t in model.graph.initializer)
    return bare
