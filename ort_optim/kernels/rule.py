"""Which template a convolution gets, from hardware facts alone: no timing, microseconds a layer.

    1. The class of the layer (kernel, stride, depthwise or not, size of the output) names its
       first-choice template. It is taken if the machine has what the template demands.
    2. If not, a table keyed by the number of output channels names another template, never the
       first choice. It is taken if the machine has what that one demands.
    3. If not, the layer stays with ONNX Runtime.

    4. Apart from that, a veto: what a cost model says ONNX Runtime does better is left to it.

A fact of the machine that is not known counts as not enough.

    choose          the rule
    Choice          its verdict, with all that was weighed
    FIRST_CHOICES   table of 1
    ALTERNATIVES    table of 2
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ort_optim.hardware import Target
from ort_optim.kernels.base import ConvTemplate, Demand, Tile
from ort_optim.kernels.builder import Isa
from ort_optim.kernels.spec import ConvSpec


@dataclass(frozen=True)
class LayerClass:
    """Convolutions that have the same first choice. A field that is None holds for all.

    Attributes:
        name: For people.
        template: The first choice.
        reason: Why.
        kernel, strides, dilations, depthwise, grouped: What the convolution must be.
        Cin_below: Bound on the input channels.
        weights_from: Fewest products of input and output channels.
        Cin_from, Cout_from: Fewest channels.
        OH_below: Bound on the output rows; where those are not known, the class does not hold.
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
    Cin_below: int | None = None
    Cin_from: int = 1
    Cout_from: int = 1
    weights_from: int = 1
    OH_below: int | None = None

    def holds(self, conv: ConvSpec) -> bool:
        """Whether a convolution is of this class."""
        rows = conv.OH
        return (
            self.kernel in (None, conv.kernel)
            and self.strides in (None, conv.strides)
            and self.dilations in (None, conv.dilations)
            and self.depthwise in (None, conv.is_depthwise)
            and self.grouped in (None, conv.group > 1)
            and self.transposed == conv.transposed
            and (self.Cin_below is None or conv.Cin < self.Cin_below)
            and conv.Cin >= self.Cin_from
            and conv.Cout >= self.Cout_from
            and conv.Cin * conv.Cout >= self.weights_from
            and (self.OH_below is None or (rows is not None and rows < self.OH_below))
        )


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
        "3x3, few channels",
        "direct",
        "with fewer than 16 channels on a side the transforms cost what Winograd saves",
        kernel=(3, 3),
        grouped=False,
        Cin_below=16,
    ),
    LayerClass(
        "3x3, small output",
        "winograd_f23",
        "4x4 tiles would overlap the edge of the image by more than they save",
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        grouped=False,
        Cout_from=16,
        OH_below=3,
    ),
    LayerClass(
        "3x3, small output of many channels",
        "winograd_f23",
        "four tiles of 4x4 share 36 numbers a weight, which come from memory: 512@7 takes 1.25 ms "
        "on Zen 5, with 2x2 tiles and 16 numbers 0.65, direct 1.04",
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        grouped=False,
        weights_from=384 * 384,
        OH_below=9,
    ),
    LayerClass(
        "3x3, stride 1",
        "winograd_f43",
        "a quarter of the multiplications",
        kernel=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        grouped=False,
        Cout_from=16,
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
        "less than one vector of output channels: transforms would be mostly padding",
    ),
    Alternative(
        256,
        ("winograd_f23", "direct", "pointwise"),
        "F(2x2) needs under half of the packed weights and scratch of F(4x4)",
    ),
    Alternative(
        None,
        ("direct", "pointwise", "winograd_f23"),
        "with many output channels packed weights are what is too large: direct has the fewest",
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
