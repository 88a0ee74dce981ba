"""The machine that regions are compiled for: its facts, in the form that a region's call records.

fingerprint   the facts that the choice of templates rests on, as one line
isa_of        the vector unit that code is generated for, or why there is none
"""

from __future__ import annotations

from ort_optim.hardware import Target
from ort_optim.kernels.isa import Isa

SUPPORTED = ("avx512f", "avx2")
"""Features that vector units we generate code for have; FMA besides."""


def fingerprint(target: Target) -> str:
    """Such as "x86_64 512x32 fma L1=49152 L2=1048576 16 GiB"; equal machines get equal tilings."""
    caches = [f"L{level}={c.bytes_per_core}" for level in (1, 2) if (c := target.cache(level))]
    unit = f"{target.vector_bits}x{target.vector_registers}"
    memory = target.usable_memory_bytes
    gigabytes = [f"{memory >> 30} GiB"] if memory else []
    return " ".join([target.arch, unit, *(["fma"] if target.fma else []), *caches, *gigabytes])


def isa_of(target: Target) -> Isa | str:
    """The vector unit of a target, or in words why no code can be made for it."""
    if target.arch != "x86_64":
        return f"no kernels for {target.arch} yet"
    if not target.fma or not target.features.intersection(SUPPORTED):
        return f"no kernels for {target.model or target.name}: it has neither AVX2 nor AVX-512"
    return Isa.of(target)


def layout_name(isa: Isa) -> str:
    """The layout of tensors inside a region, such as "nchw16c"."""
    return f"nchw{isa.lanes}c"
