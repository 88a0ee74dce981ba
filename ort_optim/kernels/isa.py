"""What a target's vector unit is, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ort_optim.hardware import Target

FLOAT_BYTES = 4

SET_BYTES = 4096
"""Addresses so far apart, or a multiple, fall into the same set of an L1 of 64 sets of 64 bytes."""


@dataclass(frozen=True)
class Isa:
    """What generated code needs to know of a vector unit.

    Attributes:
        triple, cpu, features: What LLVM compiles for.
        lanes: float32 numbers in a vector register, and channels in a block of a blocked tensor.
        registers: Vector registers.
        fma: Whether a fused multiply-add of whole vectors exists.
    """

    triple: str
    cpu: str
    features: tuple[str, ...]
    lanes: int
    registers: int
    fma: bool

    @classmethod
    def of(cls, target: Target) -> Isa:
        """The vector unit of a target. Raises ValueError where it has none."""
        if not target.vector_bits or not target.vector_registers:
            raise ValueError(f"target {target.name} has no vector unit")
        return cls(
            triple=target.triple,
            cpu=target.llvm_cpu,
            features=tuple(sorted(target.features)),
            lanes=target.vector_bits // 32,
            registers=target.vector_registers,
            fma=target.fma,
        )
