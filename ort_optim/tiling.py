"""Regions for a model: what code of ours is to compute, and by which templates.

tile         a model with its regions as calls, and what the rule said of each convolution
Tiled        the result, with a TiledLayer for each convolution
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from ort_optim.compiler.parse import eligibility
from ort_optim.graph.regions import DOMAIN, Grouping, Region, Tiling, group, wrap
from ort_optim.hardware import Target
from ort_optim.kernels.builder import Isa
from ort_optim.kernels.rule import Choice, Resources, choose
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name

ANCHORS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True)
class TiledLayer:
    """One convolution.

    Attributes:
        node, op: What it is in the graph.
        choice: What the rule said; None where it was not asked.
        refusal: Why ONNX Runtime computes it; None if it is in a region.
        region: The name of its region.
    """

    node: str
    op: str
    choice: Choice | None
    refusal: str | None
    region: str | None


@dataclass(frozen=True)
class Tiled:
    """A model with `regions` regions; `model` is the one that came in if there are none."""

    model: ModelProto
    layers: tuple[TiledLayer, ...]
    regions: int


def tile(model: ModelProto, target: Target, *, worst_error_class: int = 2) -> Tiled:
    """Find the regions of a model and wrap them. Nothing is run, nothing is compiled.

    Templates less exact than `worst_error_class` are not taken.
    """
    isa = isa_of(target)
    if isinstance(isa, str):
        anchors = [node for node in model.graph.node if _is_anchor(node)]
        layers = tuple(TiledLayer(_label(n), n.op_type, None, isa, None) for n in anchors)
        return Tiled(model, layers, 0)
    rule = _Rule(target, isa, worst_error_class)
    grouping = group(model, eligibility(model, rule.accept), _is_anchor)
    wrapped = wrap(model, grouping.regions, [rule.tiling(each) for each in grouping.regions])
    names = {
        output: node.op_type
        for node in wrapped.graph.node
        if node.domain == DOMAIN
        for output in node.output
    }
    return Tiled(wrapped, tuple(rule.layers(grouping, names)), len(grouping.regions))


class _Rule:
    """The rule for one machine, and what it said of each node."""

    def __init__(self, target: Target, isa: Isa, worst_error_class: int) -> None:
        self._isa = isa
        self._worst = worst_error_class
        self._resources = Resources.of(target)
        self._target = fingerprint(target)
        self._said: dict[str, Choice] = {}

    def accept(self, node: NodeProto, conv: ConvSpec) -> str | None:
        """Why a convolution stays with ONNX Runtime, None if a template takes it."""
        choice = choose(conv, self._resources, self._isa, TEMPLATES, worst_error_class=self._worst)
        self._said[node.output[0]] = choice
        return None if choice.template else choice.reason

    def tiling(self, region: Region) -> Tiling:
        """Template and tile of each convolution of a region."""
        choices = [self._said[region.nodes[i].output[0]] for i in region.anchors]
        return Tiling(
            template=tuple(str(each.template) for each in choices),
            tile=tuple(str(each.tile) for each in choices),
            layout=layout_name(self._isa),
            target=self._target,
        )

    def layers(self, grouping: Grouping, names: dict[str, str]) -> Iterator[TiledLayer]:
        """All convolutions: those in regions, then the others."""
        for region in grouping.regions:
            for node in (region.nodes[i] for i in region.anchors):
                said, name = self._said[node.output[0]], names[region.outputs[0]]
                yield TiledLayer(_label(node), node.op_type, said, None, name)
        for left in grouping.left_out:
            said_of_it = self._said.get(left.node.output[0])
            yield TiledLayer(_label(left.node), left.node.op_type, said_of_it, left.reason, None)


def _is_anchor(node: NodeProto) -> bool:
    return node.op_type in ANCHORS


def _label(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
