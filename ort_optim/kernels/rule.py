"""Which template a convolution gets, from hardware facts alone: no timing, microseconds a layer.

    1. The class of the layer (kernel, stride, depthwise or not, size of the output) names its
       first-choice template. It is taken if the machine has what the template demands.
    2. If not, a table keyed by the number of output channels names another template, never the
       first choice. It is taken if the machine has what that one demands.
    3. If not, the layer stays with ONNX Runtime.

    4. Apart from that, a veto (`veto.py`): what ONNX Runtime does better is left to it.

A fact of the machine that is not known counts as not enough.

    choose          the rule
    Choice          its verdict, with all that was weighed
    FIRST_CHOICES   table of 1
    ALTERNATIVES    table of 2
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ort_optim.hardware import Target
from ort_optim.kernels.base import ConvTemplate, Demand, Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec


@dataclass(frozen=True)
class LayerClass:
    """Convolutions that have the same first choice. A field that is None holds for all.

    Attributes:
        name: For people.
        template: The first choice.
        reason: Why.
        kernel, strides, dilations, depthwise, grouped: What the convolution must be.
        Cin_from, Cin_below, Cout_below: Bounds on the input and output channels.
        pairs_from: Fewest pairs of an input and an output channel, Cin * Cout.
        outputs_below: Bound on N * OH * OW, with one image where N is not known; where height or
            width is not known, the class does not hold.
    """

    name: str
    template: str
    reason: str
    kernel: tuple[int, int] | None = None
    strides: tuple[int, int] | None = None
    dilations: tuple[int, int] | None = None
    depthwise: bool | None = None
    grouped: bool | None = None
    transposed: bool = False
    Cin_from: int = 1
    Cin_below: int | None = None
    Cout_below: int | None = None
    pairs_from: int = 1
    outputs_below: int | None = None

    def holds(self, conv: ConvSpec) -> bool:
        """Whether a convolution is of this class."""
        return (
            self.kernel in (None, conv.kernel)
            and self.strides in (None, conv.strides)
            and self.dilations in (None, conv.dilations)
            and self.depthwise in (None, conv.is_depthwise)
            and self.grouped in (None, conv.group > 1)
            and self.transposed == conv.transposed
            and conv.Cin >= self.Cin_from
            and (self.Cin_below is None or conv.Cin < self.Cin_below)
            and (self.Cout_below is None or conv.Cout < self.Cout_below)
            and conv.Cin * conv.Cout >= self.pairs_from
            and (self.outputs_below is None or _outputs(conv) < self.outputs_below)
        )


def _outputs(conv: ConvSpec) -> float:
    """Output pixels of the images, infinite where height or width is not known."""
    if conv.OH is None or conv.OW is None:
        return math.inf
    return (1 if conv.N is None else conv.N) * conv.OH * conv.OW


FIRST_CHOICES = (
    LayerClass(
        "depthwise",
        "depthwise",
        "each channel has its own filter: vectors over channels, no reduction over them",
        depthwise=True,
    ),
    LayerClass(
        "first layer",
        "first_layer",
        "up to four channels would leave most of a block of input channels empty",
        grouped=False,
        Cin_below=5,
    ),
    LayerClass(
        "pointwise",
        "pointwise",
        "a matrix product of pixels and channels",
        kernel=(1, 1),
        grouped=False,
    ),
    LayerClass(
        "3x3, up to four output channels",
        "direct",
        "sums over vectors of input channels leave no lane idle: 64->3 on 56x56 runs at 5.0 times "
        "ONNX Runtime's speed, F(4x4) at 2.7; 12->4 on 120x120 at 2.8 and 2.1; 6->3, too few input "
        "channels for that, at 1.3 and 1.4",
        kernel=(3, 3),
        grouped=False,
        Cin_from=8,
        Cout_below=5,
    ),
    LayerClass(
        "3x3, tiny output",
        "direct",
        "the transformed weights, 16 or 36 for 9, are read for few tiles: 256->256 on 4x4 and 5x5 "
        "runs at 1.2 to 1.3 times ONNX Runtime's speed, with F(2x2) at 1.0, with F(4x4) at 0.6",
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        grouped=False,
        outputs_below=26,
    ),
    LayerClass(
        "3x3, small output of many channels",
        "winograd_f23",
        "F(4x4) reads 36 weights for each of so few tiles: 96->96 on 7x7 1.4 times ONNX Runtime's "
        "speed, F(2x2) 1.9; 256->256 on 10x10 1.7 and 2.3; but 64->64 on 8x8 1.9 and 1.8, "
        "512->512 on 12x12 2.4 and 2.2",
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        grouped=False,
        pairs_from=64 * 128,
        outputs_below=128,
    ),
    LayerClass(
        "3x3, stride 1",
        "winograd_f43",
        "a quarter of the multiplications, with few channels too: 8->12 on 60x80 2.3 times ONNX "
        "Runtime's speed, direct 1.3; 256->6 on 8x10 2.2 and 1.4",
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        grouped=False,
    ),
    LayerClass("any other", "direct", "computes every convolution"),
    LayerClass("transposed", "direct", "computes every convolution", transposed=True),
)
"""The first class that holds counts."""


@dataclass(frozen=True)
class Alternative:
    """What takes the place of a first choice whose demand is not met.

    Attributes:
        Cout_below: The row holds for fewer output channels than this; None for all.
        templates: In order; the first one that supports the convolution and is not its first
            choice is taken.
        reason: Why.
    """

    Cout_below: int | None
    templates: tuple[str, ...]
    reason: str


ALTERNATIVES = (
    Alternative(
        16,
        ("direct", "winograd_f23"),
        "less than a vector of output channels: F(2x2) transforms for lanes that are idle, 8->8 on "
        "128x128 at 1.2 times ONNX Runtime's speed, direct at 1.3",
    ),
    Alternative(
        1024,
        ("winograd_f23", "direct", "pointwise"),
        "F(2x2) packs 16 numbers for 36, is more exact, and still 1.6 to 2.2 times as fast as ONNX "
        "Runtime, direct 1.0",
    ),
    Alternative(
        None,
        ("direct", "pointwise", "winograd_f23"),
        "packed weights are what is too large: 1024->1024 takes 151 MB for F(4x4), 67 for F(2x2), "
        "38 as they are",
    ),
)
"""Keyed by the number of output channels."""


SHARE_OF_MEMORY = 16
"""One layer's packed weights may take this part of the memory: VGG has 16 layers like that."""


@dataclass(frozen=True)
class Resources:
    """What a machine has for a kernel. None: not known."""

    registers: int | None
    l1_bytes: int | None
    l2_bytes: int | None
    packed_bytes: int | None
    cores: int | None

    @classmethod
    def of(cls, target: Target) -> Resources:
        """The resources of one core of a target."""
        l1, l2 = target.cache(1), target.cache(2)
        memory = target.usable_memory_bytes
        return cls(
            registers=target.vector_registers or None,
            l1_bytes=l1.bytes_per_core if l1 else None,
            l2_bytes=l2.bytes_per_core if l2 else None,
            packed_bytes=memory // SHARE_OF_MEMORY if memory else None,
            cores=target.cores or None,
        )

    @property
    def text(self) -> str:
        """In words, as `Demand.text`."""

        def known(number: int | None) -> str:
            return "?" if number is None else str(number)

        return (
            f"{known(self.registers)} registers, {known(self.l1_bytes)} bytes of L1, "
            f"{known(self.l2_bytes)} of L2, {known(self.packed_bytes)} of memory a layer"
        )

    def shortage(self, demand: Demand) -> str | None:
        """None if they meet a demand, else the first that does not."""
        for name, wanted, found in (
            ("vector registers", demand.registers, self.registers),
            ("bytes of L1", demand.l1_bytes, self.l1_bytes),
            ("bytes of L2", demand.l2_bytes, self.l2_bytes),
            ("bytes for packed weights", demand.packed_bytes, self.packed_bytes),
            ("cores", 1, self.cores),
        ):
            if found is None:
                return f"{wanted} {name} are demanded, what the machine has is not known"
            if wanted > found:
                return f"{wanted} {name} are demanded, the machine has {found}"
        return None


@dataclass(frozen=True)
class Weighed:
    """A template that was weighed: its tile, its demand, and why it was not taken, if so."""

    template: str
    tile: Tile | None
    demand: Demand | None
    refusal: str | None


@dataclass(frozen=True)
class Choice:
    """What the rule says of a convolution.

    Attributes:
        template: The template taken, or None if the layer stays with ONNX Runtime.
        tile: Its tile.
        layer_class: Name of the class of the layer.
        reason: Why.
        weighed: All templates that were weighed, in order.
    """

    template: str | None
    tile: Tile | None
    layer_class: str
    reason: str
    weighed: tuple[Weighed, ...]


def choose(
    conv: ConvSpec,
    resources: Resources,
    isa: Isa,
    templates: Sequence[ConvTemplate],
    *,
    worst_error_class: int = 2,
) -> Choice:
    """The rule. Templates less exact than `worst_error_class` count as not there."""
    known = {each.name: each for each in templates if each.error_class <= worst_error_class}
    layer = next(each for each in FIRST_CHOICES if each.holds(conv))
    weighed: list[Weighed] = []
    for name, reason in _candidates(conv, layer, known, isa):
        found = _weigh(conv, name, known, resources, isa)
        weighed.append(found)
        if found.refusal is None:
            return Choice(name, found.tile, layer.name, reason, tuple(weighed))
    refusals = "; ".join(f"{each.template}: {each.refusal}" for each in weighed)
    return Choice(None, None, layer.name, refusals, tuple(weighed))


def _candidates(
    conv: ConvSpec, layer: LayerClass, known: dict[str, ConvTemplate], isa: Isa
) -> Iterator[tuple[str, str]]:
    """The first choice, and the one other that the table names; each with its reason."""
    yield layer.template, layer.reason
    row = next(
        each for each in ALTERNATIVES if each.Cout_below is None or conv.Cout < each.Cout_below
    )
    for name in row.templates:
        if name != layer.template and name in known and known[name].supports(conv, isa) is None:
            yield name, row.reason
            return


def _weigh(
    conv: ConvSpec,
    name: str,
    known: dict[str, ConvTemplate],
    resources: Resources,
    isa: Isa,
) -> Weighed:
    template = known.get(name)
    if template is None:
        return Weighed(name, None, None, "less exact than what was verified")
    if refusal := template.supports(conv, isa):
        return Weighed(name, None, None, refusal)
    first: Weighed | None = None
    for tile in template.tiles(conv, isa):
        demand = template.demand(conv, tile, isa)
        shortage = resources.shortage(demand)
        if shortage is None:
            return Weighed(name, tile, demand, None)
        first = first or Weighed(name, tile, demand, shortage)
    return first or Weighed(name, None, None, "it has no tile for this layer")
