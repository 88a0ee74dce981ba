"""Weights of convolution by panels, brought into the order in which they are read.

ONNX holds (Cout, Cin / group, KH, KW), transposed (Cin, Cout / group, KH, KW). `Panels` says where
a panel's weights lie; in a panel every phase has nv vectors of bias, then nv vectors for each step.
"""

from __future__ import annotations

from dataclasses import dataclass

from ort_optim.kernels.base import Launch, Packing
from ort_optim.kernels.builder import Code
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.memory import Address
from ort_optim.kernels.panels import Panels, phase_taps
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.values import Int


@dataclass(frozen=True)
class PackPanels:
    """The weights `w` and the bias `b`, if there is one, into `packed`. A task is one vector.

    Attributes:
        panels: The order.
        bias: Whether there is a bias; else zeros stand in its place.
    """

    panels: Panels
    bias: bool

    @property
    def name(self) -> str:
        """As `Kernel`."""
        conv = self.panels.conv
        parts = [f"pack_panels_{conv.KH}x{conv.KW}_{conv.Cin}x{conv.Cout}_{self.panels.nv}"]
        parts += [f"g{conv.group}" * (conv.group > 1), "transposed" * conv.transposed]
        parts += ["no_bias" * (not self.bias)]
        return "_".join(filter(None, parts))

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("w", "b", "packed") if self.bias else ("w", "packed")

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ()

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        panels, conv, v = self.panels, self.panels.conv, isa.lanes
        group, vector = code.task // panels.vectors, code.task % panels.vectors
        panel = vector // panels.nv
        width = code.integer(panels.nv)
        if panels.tail:
            is_last = panel.equals(panels.per_group - 1)
            width = is_last.choose(code.integer(panels.tail), width)
        to = code.pointer("packed").at(group * panels.group_floats)
        to = to.at(panel * (panels.nv * panels.depth * v) + vector % panels.nv * v)
        first = group * (conv.Cout // panels.groups) + vector * v
        count = code.min(code.integer(conv.Cout // panels.groups) - vector * v, v)
        if panels.dots:
            first, count = vector, code.integer(1)
        column = _Column(code, panels, to, width * v, first, count, panel)
        if conv.transposed or panels.shared or panels.dots:
            column.pack_by_one()
        else:
            column.pack_squares()
        if self.bias:
            with code.when(code.integer(0).equals(vector) if panels.dots else count > 0):
                column.pack_bias(code.pointer("b").at(first))
        return code


@dataclass(frozen=True)
class _Column:
    """One vector of output channels in its panel.

    Attributes:
        to: Where its bias lies; the vector of step k is (k + 1) * distance further on.
        distance: Between steps.
        first, count: Its output channels.
        panel: The number of its panel in the group.
    """

    code: Code
    panels: Panels
    to: Address
    distance: Int
    first: Int
    count: Int
    panel: Int

    def pack_bias(self, bias: Address) -> None:
        """The bias of every phase."""
        code, conv = self.code, self.panels.conv
        count = code.integer(conv.Cout) if self.panels.dots else self.count
        found = bias.load_first(code.lanes_below(count))
        if not conv.transposed:
            self.to.store(found)
            return
        at = code.variable(code.integer(0))
        with code.loop(conv.strides[0]) as top, code.loop(conv.strides[1]) as left:
            self.to.at(at.get_int() * self.distance).store(found)
            taps = phase_taps(conv, 0, top)[1] * phase_taps(conv, 1, left)[1]
            at.set(at.get_int() + taps * self.panels.channels + 1)

    def pack_squares(self) -> None:
        """v output channels by v numbers of each, turned in registers."""
        code, panels, conv, v = self.code, self.panels, self.panels.conv, self.code.lanes
        row = conv.group_Cin * conv.KH * conv.KW
        self.to.store(code.vec(0.0))
        w = code.pointer("w").at(self.first * row)
        with code.loop(row, step=v) as start:
            width = code.min(code.integer(row) - start, v)
            zero = code.integer(0)
            rows = [
                w.at(start)
                .at(o * row)
                .load_first(code.lanes_below((self.count > o).choose(width, zero)))
                for o in range(v)
            ]
            for i, vector in enumerate(code.transpose(rows)):
                with code.when(width > i):
                    taps = conv.KH * conv.KW
                    channel, tap = (start + i) // taps, (start + i) % taps
                    step = _step(panels, channel, tap, code.integer(taps))
                    self.to.at((step + 1) * self.distance).store(vector)

    def pack_by_one(self) -> None:
        """Number by number: where groups share a vector, or taps belong to several phases."""
        code, panels, conv = self.code, self.panels, self.panels.conv
        with code.loop(panels.depth) as step:
            self.to.at(step * self.distance).store(code.vec(0.0))
        at = code.variable(code.integer(1))
        strides = conv.strides if conv.transposed else (1, 1)
        with code.loop(strides[0]) as top, code.loop(strides[1]) as left:
            if conv.transposed:
                (row, rows, _), (col, cols, _) = phase_taps(conv, 0, top), phase_taps(conv, 1, left)
            else:
                row, rows, col, cols = map(code.integer, (0, conv.KH, 0, conv.KW))
            with (
                code.loop(self.count) as lane,
                code.loop(conv.group_Cin) as channel,
                code.loop(rows) as i,
                code.loop(cols) as j,
            ):
                kh, kw = i, j
                if conv.transposed:
                    kh, kw = row + (rows - 1 - i) * strides[0], col + (cols - 1 - j) * strides[1]
                output = self.first + lane
                group = output // conv.group_Cout
                step_channel = channel
                if panels.shared and panels.reading == "channels":
                    start, _ = panels.first_channel(self.panel)
                    step_channel = group * conv.group_Cin - start + channel
                if conv.transposed:
                    outer, inner, size = group * conv.group_Cin + channel, output, conv.group_Cout
                    inner = output - group * conv.group_Cout
                else:
                    outer, inner, size = output, channel, conv.group_Cin
                source = ((outer * size + inner) * conv.KH + kh) * conv.KW + kw
                if panels.dots:
                    step_channel, lane = channel // code.lanes, channel % code.lanes
                step = at.get_int() + _step(panels, step_channel, i * cols + j, rows * cols)
                target = self.to.at(step * self.distance).at(lane)
                target.copy_float(code.pointer("w").at(source))
            at.set(at.get_int() + rows * cols * panels.channels + 1)


def _step(panels: Panels, channel: Int, tap: Int, taps: Int) -> Int:
    """The number of a step in its phase."""
    if panels.reading in ("channels", "dots"):
        return channel * taps + tap
    if panels.reading == "lanes":
        return tap * panels.channels + channel
    v, code = panels.v, channel.code
    block = channel // v
    in_block = code.min(code.integer(panels.channels) - block * v, v)
    return block * v * taps + tap * in_block + channel % v


def pack_panels(panels: Panels, *, bias: bool, sizes: Sizes) -> Packing:
    """How weights are packed for a kernel with these panels."""
    tasks = sizes.const(panels.groups * panels.vectors)
    launch = Launch(PackPanels(panels, bias), {}, tasks, sizes.const(0))
    return Packing(launch, panels.floats * FLOAT_BYTES)
