"""Sessions with our library, for the benchmarks: a template forced, the rule, another target.

RefusedError   why there is no such session
machine_of     this machine, or its caches with another target's vector unit
choices_for    template and tile of each layer, by the rule or with a template forced
open_ours      a session of a chain of convolutions, all in one region
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import onnxruntime as ort
from onnx import ModelProto

from ort_optim.compiler.cache import CodeCache
from ort_optim.graph.regions import Tiling, group, wrap
from ort_optim.hardware import NATIVE, Target, detect, load_target, with_cached_figures
from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.rule import Resources, choose
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES, find_template
from ort_optim.kernels.veto import Layer, alone, region_veto
from ort_optim.runtime import library
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name
from ort_optim.runtime.prepare import prepare

RULE = "rule"
ANCHORS = ("Conv", "ConvTranspose")
PROVIDERS = ["CPUExecutionProvider"]


class RefusedError(Exception):
    """This variant does not take the layer; the text says why."""


def machine_of(name: str | None) -> Target:
    """The machine to generate code for: this one, or its caches with the vector unit of a target
    whose instructions it has too."""
    here = with_cached_figures(detect())
    if name in (None, NATIVE):
        return here
    other = load_target(name)
    if missing := other.features - here.features:
        raise SystemExit(f"this machine can't run code for {name}: no {', '.join(sorted(missing))}")
    return replace(
        here,
        name=other.name,
        llvm_cpu=other.llvm_cpu,
        features=other.features,
        vector_bits=other.vector_bits,
        vector_registers=other.vector_registers,
        fma=other.fma,
    )


def choices_for(specs: Sequence[ConvSpec], variant: str, target: Target) -> list[tuple[str, Tile]]:
    """Template and tile of each layer. `variant` names a template, or is "rule".

    Raises RefusedError where the template or the rule does not take one of them, or the veto says
    that a region of them does not pay.
    """
    isa = isa_of(target)
    if isinstance(isa, str):
        raise RefusedError(isa)
    choices = [_choice(spec, variant, target, isa) for spec in specs]
    if variant == RULE:
        layers = [Layer(spec, *choice) for spec, choice in zip(specs, choices, strict=True)]
        borders = alone(layers[0], isa)[0], alone(layers[-1], isa)[1]
        if reason := region_veto(layers, borders, target):
            raise RefusedError(f"the veto: {reason}")
    return choices


def open_ours(
    model: ModelProto,
    choices: Sequence[tuple[str, Tile]],
    target: Target,
    options: ort.SessionOptions,
) -> ort.InferenceSession:
    """A session of `model` with all its convolutions in one region, computed by `choices`.

    Raises RefusedError where the compiler leaves the region to ONNX Runtime.
    """
    grouping = group(model, lambda _: None, lambda node: node.op_type in ANCHORS)
    if len(grouping.regions) != 1 or grouping.left_out:
        raise RefusedError("not one region")
    templates, tiles = zip(*choices, strict=True)
    layout = layout_name(Isa.of(target))
    tiling = Tiling(templates, tuple(map(str, tiles)), layout, fingerprint(target))
    wrapped = wrap(model, grouping.regions, [tiling])
    prepared = prepare(wrapped, target, options.intra_op_num_threads, CodeCache())
    if prepared.extension is None or prepared.left:
        raise RefusedError("; ".join(prepared.left.values()))
    library.stage(prepared.extension.blob)
    options.register_custom_ops_library(os.fspath(prepared.extension.library))
    return ort.InferenceSession(wrapped.SerializeToString(), options, PROVIDERS)


def _choice(spec: ConvSpec, variant: str, target: Target, isa: Isa) -> tuple[str, Tile]:
    """Name and tile of the template for a layer. Of a forced template the first tile that the
    machine has the resources for, as the rule would take it, else its first."""
    resources = Resources.of(target)
    if variant == RULE:
        choice = choose(spec, resources, isa, TEMPLATES)
        if choice.template is None or choice.tile is None:
            raise RefusedError(f"the rule: {choice.reason}")
        return choice.template, choice.tile
    template = find_template(variant)
    if template is None:
        raise SystemExit(f"no template {variant}: one of {', '.join(t.name for t in TEMPLATES)}")
    if reason := template.supports(spec, isa):
        raise RefusedError(reason)
    tiles = list(template.tiles(spec, isa))
    if not tiles:
        raise RefusedError("it has no tile for this layer")
    fitting = (t for t in tiles if resources.shortage(template.demand(spec, t, isa)) is None)
    return variant, next(fitting, tiles[0])
