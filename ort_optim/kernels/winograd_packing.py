"""Weights for a Winograd kernel: U = G g G^T, in the order its matrix products read them in.

    w (Cout, Cin, 3, 3)  ->  U [Cout/nr/group][n*n][group][Cin][nr]  then bias [Cout/nr][nr]

nr = nv vectors of output channels, a panel; the last group may have fewer. What lies beyond Cout is
zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from ort_optim.kernels.builder import Code
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.values import Vec
from ort_optim.kernels.winograd_transforms import TAPS, Transform, times

_AREA = TAPS * TAPS


@dataclass(frozen=True)
class WinogradPacking:
    """Packs the weights of v output channels in a task.

    Channels are read v input channels at a time: their 9 v numbers of one output channel are
    neighbours. v such rows, turned, are vectors over output channels, and G needs no shuffles.
    """

    transform: Transform
    Cin: int
    Cout: int
    nv: int
    group: int
    bias: bool

    @property
    def name(self) -> str:
        """As `Kernel`."""
        order = f"{self.nv}x{self.group}" + ("_bias" if self.bias else "")
        return f"winograd_{self.transform.name}_pack_c{self.Cin}x{self.Cout}_{order}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("w", "b", "packed") if self.bias else ("w", "packed")

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`: none."""
        return ()

    def scratch_floats(self, lanes: int) -> int:
        """v rows of 9 v numbers, and the same turned."""
        return 2 * _AREA * lanes * lanes

    def tasks(self, lanes: int) -> int:
        """Vectors of output channels."""
        return -(-self.Cout // (self.nv * lanes)) * self.nv

    def factors(self, lanes: int) -> int:
        """Floats of U."""
        return self.tasks(lanes) * lanes * self.transform.positions * self.Cin

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        v, nr, positions = code.lanes, self.nv * code.lanes, self.transform.positions
        length = self.Cin * _AREA
        w, packed = code.pointer("w"), code.pointer("packed")
        rows, turned = code.scratch, code.scratch.at(_AREA * v * v)
        first = code.task * v
        panel, j = code.task // self.nv, code.task % self.nv
        panels, size = self.tasks(v) // self.nv, self.Cin * nr
        begin = panel // self.group * self.group
        together = code.min(code.integer(panels) - begin, self.group)
        U = packed.at((begin * positions + panel - begin) * size + j * v)
        nothing = code.integer(0)
        with code.loop(-(-self.Cin // v)) as block:
            done = block * (v * _AREA)
            with code.loop(v) as r:
                row = first + r
                here = (row < self.Cout).choose(code.integer(length) - done, nothing)
                for c in range(_AREA):
                    mask = code.lanes_below(here - c * v)
                    numbers = w.at(row * length + done + c * v).load_first(mask)
                    rows.at(r * (_AREA * v) + c * v).store(numbers)
            with code.loop(_AREA) as chunk:
                part = [rows.at(chunk * v + r * (_AREA * v)).load() for r in range(v)]
                for i, column in enumerate(code.transpose(part)):
                    turned.at((chunk * v + i) * v).store(column)
            with code.loop(code.min(code.integer(self.Cin) - block * v, v)) as channel:
                taps = turned.at(channel * (_AREA * v))
                factors = self._factors(code, [taps.at(k * v).load() for k in range(_AREA)])
                target = U.at((block * v + channel) * nr)
                for position, factor in enumerate(factors):
                    target.at(together * (position * size)).store(factor)
        bias = code.vec(0.0)
        if self.bias:
            mask = code.lanes_below(code.integer(self.Cout) - first)
            bias = code.pointer("b").at(first).load_first(mask)
        packed.at(self.factors(v) + code.task * v).store(bias)
        return code

    def _factors(self, code: Code, taps: list[Vec]) -> list[Vec]:
        """G g G^T."""
        G = self.transform.G
        columns = [times(code, G, taps[c::TAPS]) for c in range(TAPS)]
        rows = zip(*columns, strict=True)
        return [factor for row in rows for factor in times(code, G, row)]
