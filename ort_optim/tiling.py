"""Regions for a model: what code of ours is to compute, and by which templates.

tile         a model with its regions as calls, and what the rule said of each convolution
Tiled        the result, with a TiledLayer for each convolution
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from ort_optim.compiler.parse import eligibility, known_facts
from ort_optim.compiler.scope import TensorFact
from ort_optim.graph.regions import DOMAIN, Grouping, LeftOut, Region, Tiling, group, wrap
from ort_optim.hardware import Target
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.rule import Choice, Resources, choose
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES
from ort_optim.kernels.veto import (
    Border,
    Layer,
    export_share,
    layer_veto,
    ort_changes,
    reads_nchw,
    region_veto,
)
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name

TILING = "tiling"  # what --disable calls the regions
ANCHORS = frozenset({"Conv", "ConvTranspose"})
IMAGE_RANK = 4

ORT_BLOCKED = frozenset(
    {"Add", "Sum", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Concat"}
    | {"MaxPool", "AveragePool", "GlobalAveragePool", "Identity"}
)
"""What ONNX Runtime computes within its own blocked layout, most of it with a convolution. Regions
of these and of convolutions alone can be judged by their convolutions: what else there is costs
ONNX Runtime changes of layout and passes over memory that a region saves. (A face landmark net with
PRelu runs 4.8 times as fast in a region, though its convolutions come out 6% slower.)"""


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
    """A model with `regions` regions; `model` is the one that came in if there are none.

    Templates less exact than `worst_error_class` were not taken.
    """

    model: ModelProto
    layers: tuple[TiledLayer, ...]
    regions: int
    worst_error_class: int = 2


def tile(model: ModelProto, target: Target, *, worst_error_class: int = 2) -> Tiled:
    """Find the regions of a model and wrap them. Nothing is run, nothing is compiled.

    Templates less exact than `worst_error_class` are not taken.
    """
    isa = isa_of(target)
    if isinstance(isa, str):
        anchors = [node for node in model.graph.node if _is_anchor(node)]
        layers = tuple(TiledLayer(_label(n), n.op_type, None, isa, None) for n in anchors)
        return Tiled(model, layers, 0, worst_error_class)
    rule = _Rule(target, isa, worst_error_class)
    facts = known_facts(model)
    grouping = rule.paying(group(model, eligibility(model, rule.accept, facts), _is_anchor), facts)
    wrapped = wrap(model, grouping.regions, [rule.tiling(each) for each in grouping.regions])
    names = {
        output: node.op_type
        for node in wrapped.graph.node
        if node.domain == DOMAIN
        for output in node.output
    }
    layers = tuple(rule.layers(grouping, names))
    return Tiled(wrapped, layers, len(grouping.regions), worst_error_class)


class _Rule:
    """The rule for one machine, and what it said of each node."""

    def __init__(self, target: Target, isa: Isa, worst_error_class: int) -> None:
        self._isa = isa
        self._worst = worst_error_class
        self._machine = target
        self._resources = Resources.of(target)
        self._said: dict[str, Choice] = {}
        self._layers: dict[str, Layer] = {}

    def accept(self, node: NodeProto, conv: ConvSpec) -> str | None:
        """Why a convolution stays with ONNX Runtime, None if a template takes it."""
        choice = choose(conv, self._resources, self._isa, TEMPLATES, worst_error_class=self._worst)
        self._said[node.output[0]] = choice
        if choice.template is None or choice.tile is None:
            return choice.reason
        layer = self._layers[node.output[0]] = Layer(conv, choice.template, choice.tile)
        return layer_veto(layer, self._machine)

    def paying(self, grouping: Grouping, facts: Mapping[str, TensorFact]) -> Grouping:
        """The regions that pay; the convolutions of others are left out."""
        kept, left = [], list(grouping.left_out)
        for region in grouping.regions:
            if not {node.op_type for node in region.nodes} <= ORT_BLOCKED | ANCHORS:
                kept.append(region)
                continue
            anchors = {i: self._layers[region.nodes[i].output[0]] for i in region.anchors}
            borders = list(self._borders(region, anchors, facts))
            if reason := region_veto(list(anchors.values()), borders, self._machine):
                left += [LeftOut(region.nodes[i], reason) for i in region.anchors]
            else:
                kept.append(region)
        return Grouping(tuple(kept), tuple(left))

    def _borders(
        self, region: Region, anchors: Mapping[int, Layer], facts: Mapping[str, TensorFact]
    ) -> Iterator[Border]:
        """Its inputs and outputs that are images, with who changes their layout."""
        changes = [ort_changes(each.spec, self._isa) for each in anchors.values()]
        for name in region.activations:
            readers = [i for i, node in enumerate(region.nodes) if name in node.input]
            layers = [anchors[i] for i in readers if i in anchors]
            plain = len(layers) == len(readers) and all(
                reads_nchw(each, self._isa) for each in layers
            )
            theirs = any(ort_changes(each.spec, self._isa)[0] for each in layers)
            yield from _border(facts.get(name), ours=1.0 - plain, theirs=theirs)
        theirs = any(y for _, y in changes)
        for name in region.outputs:
            maker = _maker(region, name)
            ours = 1.0 if maker is None else export_share(anchors[maker], self._isa)
            yield from _border(facts.get(name), ours=ours, theirs=theirs)

    def tiling(self, region: Region) -> Tiling:
        """Template and tile of each convolution of a region."""
        choices = [self._said[region.nodes[i].output[0]] for i in region.anchors]
        return Tiling(
            template=tuple(str(each.template) for each in choices),
            tile=tuple(str(each.tile) for each in choices),
            layout=layout_name(self._isa),
            target=fingerprint(self._machine),
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


def _maker(region: Region, name: str) -> int | None:
    """The anchor that makes a tensor, its activation included; None if another node does."""
    number = next(i for i, node in enumerate(region.nodes) if name in node.output)
    if number in region.anchors:
        return number
    inputs = region.nodes[number].input
    is_made_here = len(inputs) == 1 and any(inputs[0] in node.output for node in region.nodes)
    return _maker(region, inputs[0]) if is_made_here else None


def _border(fact: TensorFact | None, *, ours: float, theirs: bool) -> Iterator[Border]:
    """A tensor of that type at the border of a region; none if it is no batch of images."""
    if fact is None or fact.dims is None:
        yield Border(None, None, None)
    elif len(fact.dims) == IMAGE_RANK:
        N, C, H, W = fact.dims
        yield Border(N, C, None if H is None or W is None else H * W, ours, theirs)


def _is_anchor(node: NodeProto) -> bool:
    return node.op_type in ANCHORS


def _label(node: NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
