"""Model-local functions: calls replaced by the bodies they stand for.

ONNX Runtime does the same when it loads a model, and ignores the operator sets that a function
imports for itself; bodies are therefore inlined as they are, never converted.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx.inliner
from onnx import ModelProto

from ort_optim.graph import weights


def inline_functions(model: ModelProto, domains: Collection[str] | None = None) -> ModelProto:
    """The model with the functions of `domains` (all if None) inlined and dropped.

    The model itself comes back if it has no such function. A function that can't be inlined (its
    operator sets differ from the model's) stays a function. Only the structure goes through
    onnx's inliner, so models of any size can be inlined.
    """
    wanted = [f for f in model.functions if domains is None or f.domain in domains]
    if not wanted:
        return model
    names = sorted({(f.domain, f.name) for f in wanted})
    inlined = onnx.inliner.inline_selected_functions(_bare(model), names)
    del inlined.graph.initializer[:]
    inlined.graph.initializer.extend(model.graph.initializer)
    return inlined


def _bare(model: ModelProto) -> ModelProto:
    """The model with the data of large initializers left out."""
    bare = ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(bare, field.name).extend(value)
        else:
            setattr(bare, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name == "initializer":
            bare.graph.initializer.extend(weights.skeleton(tensor) for tensor in value)
        elif field.is_repeated:
            getattr(bare.graph, field.name).extend(value)
        else:
            setattr(bare.graph, field.name, value)
    return bare
