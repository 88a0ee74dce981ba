"""ISA facts as data: how systems name features, what LLVM calls them, what they give.

    canonical_arch       the system's word for the architecture -> ours
    features_from_words  words of /proc/cpuinfo -> LLVM feature names
    features_from_numpy  NumPy's own detection -> LLVM feature names (where there is no /proc)
    vector_unit          features -> vector width, registers, FMA
    llvm_cpu             features -> the x86-64 level they reach

Names on the Linux side: arch/x86/include/asm/cpufeatures.h and
Documentation/arch/arm64/elf_hwcaps.rst of the kernel; on LLVM's side: X86.td, AArch64Features.td.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

_ARCH_ALIASES = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "i386": "i686",
    "i486": "i686",
    "i586": "i686",
    "x86": "i686",
    "armv7l": "armv7",
    "armv8l": "armv7",
    "arm": "armv7",
}
# A 32-bit process on a 64-bit kernel sees the 32-bit register file.
_NARROWED = {"x86_64": "i686", "aarch64": "armv7"}

# Words that are their own LLVM names.
_SAME = (  # noqa: SIM905 (one word a line would fill two pages)
    "sse sse2 ssse3 popcnt avx avx2 fma f16c bmi2 movbe cx16 aes gfni vaes vpclmulqdq xsave "
    "avx512f avx512cd avx512bw avx512dq avx512vl avx512ifma avx512vbmi"
).split()
_X86_WORDS: dict[str, str] = {word: word for word in _SAME} | {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "bmi1": "bmi",
    "abm": "lzcnt",
    "lahf_lm": "sahf",
    "pclmulqdq": "pclmul",
    "sha_ni": "sha",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_ifma": "avxifma",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16",
}
_AARCH64_WORDS: dict[str, str] = {
    "fp": "fp-armv8",
    "asimd": "neon",
    "aes": "aes",
    "sha2": "sha2",
    "sha3": "sha3",
    "sm4": "sm4",
    "crc32": "crc",
    "atomics": "lse",
    "asimdhp": "fullfp16",
    "asimdrdm": "rdm",
    "asimddp": "dotprod",
    "asimdfhm": "fp16fml",
    "jscvt": "jsconv",
    "fcma": "complxnum",
    "lrcpc": "rcpc",
    "dcpop": "ccpp",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
_ARMV7_WORDS: dict[str, str] = {
    "neon": "neon",
    "vfpv3": "vfp3",
    "vfpv4": "vfp4",
    "asimd": "neon",
    "asimddp": "dotprod",
    "crc32": "crc",
}
_WORDS: dict[str, dict[str, str]] = {
    "x86_64": _X86_WORDS,
    "i686": _X86_WORDS,
    "aarch64": _AARCH64_WORDS,
    "armv7": _ARMV7_WORDS,
}

# What the 64-bit calling conventions take for granted.
_BASELINE: dict[str, frozenset[str]] = {
    "x86_64": frozenset({"sse", "sse2"}),
    "aarch64": frozenset({"fp-armv8", "neon"}),
}

_NUMPY_X86 = (  # noqa: SIM905 (as above)
    "SSE SSE2 SSE3 SSSE3 POPCNT AVX F16C AVX2 CX16 MOVBE BMI BMI2 LZCNT GFNI VPCLMULQDQ VAES "
    "AVX512F AVX512CD AVX512BW AVX512DQ AVX512VL AVX512IFMA AVX512VBMI AVX512VBMI2 AVX512VNNI "
    "AVX512BITALG AVX512VPOPCNTDQ AVX512FP16 AVX512BF16"
).split()
_NUMPY_WORDS: dict[str, str] = {word: word.lower() for word in _NUMPY_X86} | {
    "SSE41": "sse4.1",
    "SSE42": "sse4.2",
    "FMA3": "fma",
    "LAHF": "sahf",
}

# x86-64 psABI micro-architecture levels, highest first; each needs the ones below it.
_X86_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "x86-64-v4",
        frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ),
    (
        "x86-64-v3",
        frozenset({"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}),
    ),
    (
        "x86-64-v2",
        frozenset({"cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"}),
    ),
    ("x86-64", frozenset({"sse", "sse2"})),
)

ARM_VENDORS: dict[int, str] = {
    0x41: "Arm",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0xC0: "Ampere",
}
# (implementer, part) of the MIDR register -> LLVM's CPU name.
ARM_PARTS: dict[tuple[int, int], str] = {
    (0x41, 0xD03): "cortex-a53",
    (0x41, 0xD04): "cortex-a35",
    (0x41, 0xD05): "cortex-a55",
    (0x41, 0xD07): "cortex-a57",
    (0x41, 0xD08): "cortex-a72",
    (0x41, 0xD09): "cortex-a73",
    (0x41, 0xD0A): "cortex-a75",
    (0x41, 0xD0B): "cortex-a76",
    (0x41, 0xD0C): "neoverse-n1",
    (0x41, 0xD40): "neoverse-v1",
    (0x41, 0xD41): "cortex-a78",
    (0x41, 0xD44): "cortex-x1",
    (0x41, 0xD49): "neoverse-n2",
    (0x41, 0xD4F): "neoverse-v2",
    (0x46, 0x001): "a64fx",
    (0xC0, 0xAC3): "ampere1",
}


class VectorUnit(NamedTuple):
    """Width in bits, number of registers, fused multiply-add."""

    bits: int
    registers: int
    fma: bool


def canonical_arch(machine: str, pointer_bits: int = 64) -> str:
    """The architecture's name here, from the system's word for it (`platform.machine()`)."""
    word = machine.strip().lower() or "unknown"
    arch = _ARCH_ALIASES.get(word, word)
    return _NARROWED.get(arch, arch) if pointer_bits == 32 else arch


def baseline_features(arch: str) -> frozenset[str]:
    """Features every CPU of the architecture has, by their LLVM names."""
    return _BASELINE.get(arch, frozenset())


def features_from_words(arch: str, words: Iterable[str]) -> frozenset[str]:
    """LLVM names of the features that /proc/cpuinfo lists; words we have no use for are dropped."""
    if arch == "riscv64":
        return _riscv_features(words)
    table = _WORDS.get(arch, {})
    return frozenset(table[w] for w in words if w in table) | baseline_features(arch)


def _riscv_features(words: Iterable[str]) -> frozenset[str]:
    """Features of ISA strings such as "rv64imafdcv_zicsr_zba"."""
    found: set[str] = set()
    for word in words:
        base, *extensions = word.lower().split("_")
        if base.startswith("rv64"):
            letters = base.removeprefix("rv64").replace("g", "imafd")
            found.update(c for c in letters if c in "mafdcv")
            found.update(e for e in extensions if e in {"zba", "zbb", "zbs", "zfh", "zvfh"})
    return frozenset(found)


def features_from_numpy(arch: str, flags: Mapping[str, bool]) -> frozenset[str]:
    """LLVM names of the features NumPy found by CPUID."""
    if arch not in ("x86_64", "i686"):
        return baseline_features(arch)
    found = {_NUMPY_WORDS[w] for w, present in flags.items() if present and w in _NUMPY_WORDS}
    if flags.get("X86_V3"):
        found |= _X86_LEVELS[1][1]
    elif "avx" in found:
        found.add("xsave")  # AVX state is enabled through it; NumPy does not list it
    return frozenset(found) | baseline_features(arch)


def vector_unit(arch: str, features: frozenset[str]) -> VectorUnit:
    """The widest fp32 vector unit those features promise; (0, 0, False) if they promise none.

    Scalable vectors (SVE, RVV) count with the width every implementation has, 128 bits.
    """
    if arch in ("x86_64", "i686"):
        narrow = 8 if arch == "i686" else 16
        if "avx512f" in features:
            return VectorUnit(512, 8 if arch == "i686" else 32, True)
        if "avx" in features:
            return VectorUnit(256, narrow, "fma" in features)
        if "sse2" in features:
            return VectorUnit(128, narrow, False)
    elif arch == "aarch64" and "neon" in features:
        return VectorUnit(128, 32, True)
    elif arch == "armv7" and "neon" in features:
        return VectorUnit(128, 16, "vfp4" in features)
    elif arch == "riscv64" and "v" in features:
        return VectorUnit(128, 32, True)
    return VectorUnit(0, 0, False)


def llvm_cpu(arch: str, features: frozenset[str]) -> str:
    """The x86-64 level that `features` reach; "generic" elsewhere."""
    if arch == "x86_64":
        for position, (name, _) in enumerate(_X86_LEVELS):
            if all(needed <= features for _, needed in _X86_LEVELS[position:]):
                return name
    return "generic"


def triple(arch: str, system: str, *, musl: bool = False) -> str:
    """LLVM target triple for an architecture and a `platform.system()` name."""
    if system == "Darwin":
        return f"{'arm64' if arch == 'aarch64' else arch}-apple-macosx"
    if system == "Windows":
        return f"{arch}-pc-windows-msvc"
    if system == "Linux":
        libc = "musl" if musl else "gnu"
        return f"{arch}-unknown-linux-{libc}{'eabihf' if arch == 'armv7' else ''}"
    return f"{arch}-unknown-unknown"
