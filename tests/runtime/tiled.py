"""Models with their regions as calls, each convolution with a template of the test's choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, NodeProto

from ort_optim.compiler.parse import eligibility
from ort_optim.engine import Engine
from ort_optim.graph import load_model
from ort_optim.graph.regions import Tiling, group, wrap
from ort_optim.graph.repair import repair
from ort_optim.hardware import Target
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.rule import Resources, choose
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES, find_template
from ort_optim.rewriter import Plan, Rewriter
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name

Chosen = tuple[str, str]
Chooser = Callable[[ConvSpec], Chosen | None]


def rewritten(path: Path, engine: Engine) -> ModelProto:
    """The model of a file after all passes."""
    loaded = load_model(path)
    repair(loaded.model)
    return Rewriter(loaded.model, loaded.folder, engine).candidate(Plan()).model


def is_convolution(node: NodeProto) -> bool:
    return node.op_type in ("Conv", "ConvTranspose")


def vector_unit(target: Target) -> Isa:
    isa = isa_of(target)
    assert isinstance(isa, Isa), isa
    return isa


def by_rule(target: Target) -> Chooser:
    """What the rule takes for a convolution, None where it leaves it to ONNX Runtime."""

    def chosen(spec: ConvSpec) -> Chosen | None:
        choice = choose(spec, Resources.of(target), vector_unit(target), TEMPLATES)
        return None if choice.template is None else (choice.template, str(choice.tile))

    return chosen


def preferring(target: Target, *names: str) -> Chooser:
    """The first of these templates that can, else what the rule takes."""
    rule, isa = by_rule(target), vector_unit(target)

    def chosen(spec: ConvSpec) -> Chosen | None:
        for template in map(find_template, names):
            assert template is not None
            if template.supports(spec, isa) is None:
                return template.name, str(next(iter(template.tiles(spec, isa))))
        return rule(spec)

    return chosen


@dataclass(frozen=True)
class Tiled:
    """A model with its regions as calls, and the convolutions in them with their templates."""

    model: ModelProto
    convolutions: tuple[tuple[str, ConvSpec], ...]


def tiled(model: ModelProto, target: Target, choose: Chooser) -> Tiled:
    """The model with its regions as calls, made for `target`."""
    chosen: dict[str, tuple[Chosen, ConvSpec]] = {}

    def accept(node: NodeProto, spec: ConvSpec) -> str | None:
        found = choose(spec)
        if found is None:
            return "left by the rule"
        chosen[node.output[0]] = found, spec
        return None

    regions = group(model, eligibility(model, accept), is_convolution).regions
    anchors = [[chosen[r.nodes[a].output[0]] for a in r.anchors] for r in regions]
    tilings = [
        Tiling(
            tuple(template for (template, _), _ in own),
            tuple(tile for (_, tile), _ in own),
            layout_name(vector_unit(target)),
            fingerprint(target),
        )
        for own in anchors
    ]
    uses = tuple((template, spec) for own in anchors for (template, _), spec in own)
    return Tiled(wrap(model, regions, tilings), uses)
