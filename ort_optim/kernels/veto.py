"""What ONNX Runtime does better is left to it: our estimated times against its own.

    layer_veto     of one convolution between others that are ours
    region_veto    of a whole region, with the changes of layout at its borders
    Layer, Border  what a region is made of
    alone          the borders of a region of one layer

A convolution that is left to ONNX Runtime in the midst of a region cuts it in two, and its input
and output change layout twice: out of ours and into ONNX Runtime's, and back. So `layer_veto`
counts these as ONNX Runtime's, and speaks up where our kernel is slower even so. `region_veto`
compares sums, and the borders of both sides. Where a height or a width is not known there is no
veto; of an open batch one image is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ort_optim.hardware import Target
from ort_optim.kernels import ort_cost, our_cost
from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import find_template

LAYER_MARGIN = 1.1
"""Our estimates and those of ONNX Runtime are 9% off in the mean; within that the region is kept
whole."""

REGION_MARGIN = 1.02
"""Pointwise layers, where we are ahead by 2 to 10%, come out within 2% of ONNX Runtime's estimate,
as often above it as below."""


@dataclass(frozen=True)
class Layer:
    """A convolution and what computes it."""

    spec: ConvSpec
    template: str
    tile: Tile


@dataclass(frozen=True)
class Border:
    """A tensor that goes into a region or out of it.

    Attributes:
        images, channels, pixels: Its size; None where not known. Of open images one is judged.
        ours: 1 if a step of ours changes its layout, 0 if none does; between where the kernel turns
            it on the way.
        theirs: Whether ONNX Runtime changes its layout, where it computes the convolutions.
    """

    images: int | None
    channels: int | None
    pixels: int | None
    ours: float = 1.0
    theirs: bool = True

    def us(self, target: Target) -> float | None:
        """Microseconds of one change of layout."""
        if self.channels is None or self.pixels is None:
            return None
        images = 1 if self.images is None else self.images
        return our_cost.border_us(images, self.channels, self.pixels, target)


def layer_veto(layer: Layer, target: Target) -> str | None:
    """Why a convolution is better left to ONNX Runtime though its neighbours are ours, or None."""
    spec = layer.spec
    ours = our_cost.estimate_us(spec, layer.template, layer.tile, target)
    conversions = [each.us(target) for each in borders_of(spec)]
    theirs = _sum([ort_cost.estimate_us(spec, target, alone=True), *conversions])
    if ours is None or theirs is None or ours <= LAYER_MARGIN * theirs:
        return None
    return (
        f"{layer.template} would take {ours:.0f} us, ONNX Runtime with changes of layout "
        f"{theirs:.0f}"
    )


def region_veto(layers: Sequence[Layer], borders: Sequence[Border], target: Target) -> str | None:
    """Why a region does not pay, or None."""
    ours: list[float | None] = [our_cost.CALL_US]
    theirs: list[float | None] = []
    for each in layers:
        ours.append(our_cost.estimate_us(each.spec, each.template, each.tile, target))
        theirs.append(ort_cost.estimate_us(each.spec, target))
    for border in borders:
        us = border.us(target)
        ours.append(None if us is None else us * border.ours)
        theirs.append(None if us is None else us * border.theirs)
    our_us, their_us = _sum(ours), _sum(theirs)
    if our_us is None or their_us is None or our_us <= REGION_MARGIN * their_us:
        return None
    what = "the region" if len(layers) > 1 else f"alone {layers[0].template}"
    return f"{what} would take {our_us:.0f} us, ONNX Runtime {their_us:.0f}"


def borders_of(spec: ConvSpec) -> tuple[Border, Border]:
    """The input and the output of a convolution."""
    inputs = None if spec.H is None or spec.W is None else spec.H * spec.W
    outputs = None if spec.OH is None or spec.OW is None else spec.OH * spec.OW
    return Border(spec.N, spec.Cin, inputs), Border(spec.N, spec.Cout, outputs)


def reads_nchw(layer: Layer, isa: Isa) -> bool:
    """Whether our kernel takes its input as ONNX Runtime holds it."""
    template = find_template(layer.template)
    return template is not None and "nchw" in template.layouts(layer.spec, layer.tile, isa)[0]


def export_share(layer: Layer, isa: Isa) -> float:
    """How much of a change of layout our kernel leaves to do where its output leaves the region."""
    template = find_template(layer.template)
    if template is None or "nchw" not in template.layouts(layer.spec, layer.tile, isa)[1]:
        return 1.0
    return our_cost.TURNED if layer.spec.Cout > isa.lanes else 0.0


def ort_changes(spec: ConvSpec, isa: Isa) -> tuple[bool, bool]:
    """Whether ONNX Runtime changes the layout of a convolution's input, and of its output."""
    blocked = ort_cost.method_of(spec, isa.lanes) != "gemm"
    return blocked and spec.Cin >= isa.lanes, blocked


def alone(layer: Layer, isa: Isa) -> tuple[Border, Border]:
    """The borders of a region of one layer."""
    x, y = borders_of(layer.spec)
    x_changes, y_changes = ort_changes(layer.spec, isa)
    return (
        replace(x, ours=1.0 - reads_nchw(layer, isa), theirs=x_changes),
        replace(y, ours=export_share(layer, isa), theirs=y_changes),
    )


def _sum(parts: Sequence[float | None]) -> float | None:
    """None if one is."""
    known = [each for each in parts if each is not None]
    return sum(known) if len(known) == len(parts) else None
