"""`PackNormalization`: the four numbers per channel of a BatchNormalization become two."""

from __future__ import annotations

from dataclasses import dataclass

from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Code
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.sizes import Sizes


@dataclass(frozen=True)
class PackNormalization:
    """(C) each -> packed [2][Cb][v]: factors, then shifts; lanes beyond C are zero.

    factor = scale / sqrt(variance + epsilon), shift = bias - mean * factor
    """

    epsilon: float

    @property
    def name(self) -> str:
        """As `Kernel`."""
        return "pack_normalization"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return "scale", "bias", "mean", "variance", "packed"

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("channels",)

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        code = Code(self.name, isa, self.pointers, self.values)
        *given, packed = (code.pointer(name) for name in self.pointers)
        channels, v = code.value("channels"), code.lanes
        shifts = packed.at(channels.ceildiv(v) * v)
        with code.loop(channels, step=v) as first:
            mask = code.lanes_below(channels - first)
            scale, bias, mean, variance = (each.at(first).load_first(mask) for each in given)
            factor = scale / (variance + self.epsilon).square_root()
            factor = mask.choose(factor, code.vec(0.0))  # 0 / 0 where epsilon is 0
            packed.at(first).store(factor)
            shifts.at(first).store(bias - mean * factor)
        return code


def launch_pack_normalization(
    isa: Isa, channels: int, epsilon: float, sizes: Sizes
) -> tuple[Launch, int]:
    """How the constants of a BatchNormalization are packed, and into how many bytes; the second
    half are the shifts."""
    values = {"channels": sizes.const(channels)}
    launch = Launch(PackNormalization(epsilon), values, sizes.const(1), sizes.const(0))
    return launch, 2 * -(-channels // isa.lanes) * isa.lanes * FLOAT_BYTES
