"""Which regions of a model are computed in NumPy, and each one's convolutions with their templates.

find_regions    of a model those that can be, and why others can't
Region          one of them: inputs -> outputs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ort_optim.compiler.layers import Convolution, LayerGraph
from ort_optim.compiler.lower import Choice
from ort_optim.compiler.parse import Input, fact_of, parse
from ort_optim.compiler.scope import TensorFact
from ort_optim.errors import OrtOptimError
from ort_optim.graph.regions import Call, Tiling, sound_calls
from ort_optim.graph.shapes import infer
from ort_optim.graph.skeleton import skeleton_model
from ort_optim.hardware import load_target, shipped_targets
from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.templates import find_template
from ort_optim.runtime.machine import isa_of, layout_name
from ort_optim.runtime.reference_layers import run_layers

Array = NDArray[np.float32]
Dims = Sequence[tuple[int | None, ...] | None]


@dataclass(frozen=True)
class Region:
    """A region with the templates of its convolutions. All calls of a name share one."""

    call: Call
    choices: tuple[Choice, ...]

    def compute(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs, from all inputs of the call."""
        graph = _layers(self.call, [each.shape for each in inputs])
        if isinstance(graph, str):
            shapes = ", ".join(str(each.shape) for each in inputs[:3])
            raise OrtOptimError(f"region {self.call.function.name} with inputs {shapes}: {graph}")
        return run_layers(graph, self.choices, inputs)


def find_regions(model: ModelProto) -> tuple[dict[str, Region], dict[str, str]]:
    """By name the regions to compute, and why others are left to ONNX Runtime."""
    sound = sound_calls(model)
    left = dict(sound.refused)
    found: dict[str, Region] = {}
    if not sound.calls:
        return found, left
    graph = infer(skeleton_model(model, with_value_info=False)).graph
    infos = (*graph.output, *graph.value_info, *graph.input)
    dims = {info.name: fact_of(info).dims for info in infos}
    for call in sound.calls:
        name = call.function.name
        region = _region(call, [dims.get(given) for given in call.node.input])
        if isinstance(region, str):
            left[name] = region
        else:
            found.setdefault(name, region)
    return {name: region for name, region in found.items() if name not in left}, left


def _region(call: Call, dims: Dims) -> Region | str:
    """A call that can be computed, or the reason why it can't."""
    graph = _layers(call, dims)
    if isinstance(graph, str):
        return graph
    assert call.tiling is not None  # a sound call has one
    choices = _choices(graph, call.tiling)
    return choices if isinstance(choices, str) else Region(call, choices)


def _layers(call: Call, dims: Dims) -> LayerGraph | str:
    """The layers of a body; `dims` are of all inputs, those of weights the file's own."""
    given = [
        Input(
            formal.name,
            TensorFact(formal.element_type, formal.dims if formal.is_constant else found),
            formal.is_constant,
        )
        for formal, found in zip(call.inputs, dims, strict=True)
    ]
    outputs, opset = list(call.function.output), call.imports.get("", 0)
    return parse(call.function.name, call.body, call.constants, given, outputs, opset)


def _choices(graph: LayerGraph, tiling: Tiling) -> tuple[Choice, ...] | str:
    """Templates and tiles as the file has them, or what is wrong with them."""
    isa = _isas().get(tiling.layout)
    if isa is None:
        return f"no layout '{tiling.layout[:80]}' is known"
    specs = [each.op.spec for each in graph.convolutions if isinstance(each.op, Convolution)]
    if len(tiling.template) != len(specs):
        return f"it names {len(tiling.template)} templates for {len(specs)} convolutions"
    found = []
    for spec, name, text in zip(specs, tiling.template, tiling.tile, strict=True):
        template = find_template(name)
        if template is None:
            return f"there is no template '{name[:80]}'"
        try:
            tile = Tile.parse(text)
        except ValueError as error:
            return str(error)
        reason = template.supports(spec, isa) or template.check(spec, tile, isa)
        if reason is not None:
            return f"{name} {text}: {reason}"
        found.append(Choice(template, tile))
    return tuple(found)


@cache
def _isas() -> Mapping[str, Isa]:
    """By layout a vector unit that has it: what a tile may be depends on its registers."""
    isas = (isa_of(load_target(name)) for name in shipped_targets())
    return {layout_name(isa): isa for isa in isas if isinstance(isa, Isa)}
