"""How output channels are cut into panels, and where each one's weights lie.

Letters as in `register_tile.py`; what panels are for is told in `panel_kernel.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ort_optim.kernels.base import Tile
from ort_optim.kernels.register_tile import Reading
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.values import Int


@dataclass(frozen=True)
class Panels:
    """Output channels in panels of nv vectors, group by group, the last of a group narrower.

    Groups whose channels fill whole vectors on both sides have panels of their own; all others
    share vectors, and count as one group here.

    Attributes:
        conv: The convolution, of which N, H and W do not matter.
        nv, v: Vectors in a panel and channels in a vector.
        single: Whether steps take one channel at a time.
        dots: Whether sums are vectors over input channels; then nv is Cout.
    """

    conv: ConvSpec
    nv: int
    v: int
    single: bool = False
    dots: bool = False

    @property
    def reading(self) -> Reading:
        """How steps follow each other."""
        conv, v = self.conv, self.v
        if self.dots:
            return "dots"
        if not self.shared:
            return "channels" if self.single else "blocks"
        if conv.group_Cin == conv.group_Cout and v % conv.group_Cin == 0:
            return "lanes"
        return "channels"

    @property
    def groups(self) -> int:
        """Groups with panels of their own."""
        conv, v = self.conv, self.v
        return conv.group if conv.group_Cin % v == 0 and conv.group_Cout % v == 0 else 1

    @property
    def shared(self) -> bool:
        """Whether groups share vectors."""
        return self.conv.group > self.groups

    @property
    def vectors(self) -> int:
        """Vectors of output channels in a group."""
        if self.dots:
            return self.conv.Cout
        return -(-self.conv.Cout // self.groups // self.v)

    @property
    def per_group(self) -> int:
        """Panels of a group."""
        return -(-self.vectors // self.nv)

    @property
    def tail(self) -> int:
        """Vectors in the last panel of a group where that is not full, else 0."""
        return self.vectors % self.nv

    @property
    def channels(self) -> int:
        """Input channels an output channel is summed over, zeros of other groups included; with
        dots, vectors of them."""
        conv = self.conv
        if self.dots:
            return -(-conv.Cin // self.v)
        if self.reading != "channels" or not self.shared:
            return conv.group_Cin
        width, size = self.nv * self.v, conv.group_Cout
        return conv.group_Cin * max(
            (min(first + width, conv.Cout) - 1) // size - first // size + 1
            for first in range(0, conv.Cout, width)
        )

    @property
    def phases(self) -> int:
        """Phases of the output."""
        return self.conv.strides[0] * self.conv.strides[1] if self.conv.transposed else 1

    @property
    def depth(self) -> int:
        """Vectors of a panel's weights for one of its nv vectors: bias and steps of all phases."""
        return self.phases + self.channels * self.conv.KH * self.conv.KW

    @property
    def group_floats(self) -> int:
        """Packed weights of a group."""
        return self.vectors * self.depth * self.v

    @property
    def floats(self) -> int:
        """All packed weights."""
        return self.groups * self.group_floats

    def first_channel(self, panel: Int) -> tuple[Int, Int]:
        """Where a panel that reads x channel by channel begins, and how many channels it reads."""
        conv, width = self.conv, self.nv * self.v
        code = panel.code
        if conv.group == 1:
            return code.integer(0), code.integer(conv.Cin)
        first = panel * width
        last = code.min(first + width, conv.Cout) - 1
        group = first // conv.group_Cout
        count = last // conv.group_Cout - group + 1
        return group * conv.group_Cin, count * conv.group_Cin


def phase_taps(conv: ConvSpec, axis: int, phase: Int) -> tuple[Int, Int, Int]:
    """Of one axis of a transposed convolution: the first tap that meets a phase, how many do, and
    where x is read by the last of them for the phase's first output."""
    stride, pad, dilation = conv.strides[axis], conv.pads[axis], conv.dilations[axis]
    first = (phase + pad) % stride
    count = (conv.kernel[axis] - 1 + stride - first) // stride
    return first, count, (phase + pad - first) // stride - (count - 1) * dilation


def panels_of(conv: ConvSpec, tile: Tile, lanes: int, *, single: bool = False) -> Panels:
    """The panels of a tile. `single` as in `Panels`."""
    return Panels(erased(conv), tile["nv"], lanes, single, is_dots(tile))


def is_dots(tile: Tile) -> bool:
    """Whether a tile's sums are vectors over input channels."""
    return ("dots", 1) in tile.sizes


def erased(conv: ConvSpec) -> ConvSpec:
    """The convolution without sizes: what code depends on."""
    return replace(conv, N=None, H=None, W=None, output_padding=(0, 0))
