"""What a machine is, as plain data: `Target` with its `Cache` and `Gpu` parts."""

from __future__ import annotations

from dataclasses import dataclass

NATIVE = "native"
"""Name of the target that stands for the machine this process runs on."""


@dataclass(frozen=True)
class Cache:
    """One level of data or unified cache, as one core sees it.

    Attributes:
        level: 1, 2, 3, ...
        size_bytes: Size of one instance.
        line_bytes: Size of a cache line.
        associativity: Ways, or None where unknown.
        shared_by: Physical cores that share one instance.
    """

    level: int
    size_bytes: int
    line_bytes: int = 64
    associativity: int | None = None
    shared_by: int = 1

    @property
    def bytes_per_core(self) -> int:
        """Share of one core when all cores that share this cache are busy."""
        return self.size_bytes // self.shared_by


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU this process may use.

    Attributes:
        index: Its NVML index (PCI bus order).
        name: Marketing name.
        memory_bytes: Memory of the device.
        compute_capability: Such as "9.0", or None where unknown.
    """

    index: int
    name: str
    memory_bytes: int
    compute_capability: str | None = None


@dataclass(frozen=True)
class Target:
    """A machine that a model is optimized for. A fact that is None or empty is not known.

    Attributes:
        name: "native" for the machine we run on, else the shipped name or the facts file's stem.
        arch: x86_64, i686, aarch64, armv7, riscv64, or the system's own word for another one.
        triple: LLVM target triple.
        llvm_cpu: CPU name LLVM knows, to schedule instructions for; what code may use is said by
            `features`.
        vendor, model: As the CPU states them, for people.
        features: ISA features by their LLVM names ("avx512f", "neon"), present on every usable CPU.
        vector_bits: Width of the widest usable fp32 vector register; 0 without a vector unit.
        vector_registers: Number of architectural vector registers of that width.
        fma: Whether vectors of that width have a fused multiply-add.
        cores: Threads worth starting: physical cores within the affinity mask, and no more than
            the cgroup CPU quota keeps busy, rounded down and at least one. (A quota of 1.5 CPUs
            gives 1: two threads would both be stopped for a quarter of every period.)
        cpu_quota: CPUs' worth of time the cgroup grants, or None without a limit.
        logical_cpus: CPUs in the affinity mask that are online.
        physical_cores: Distinct cores behind `logical_cpus`.
        threads_per_core: SMT ways of the machine.
        caches: Data and unified caches, L1 first; where cores differ, those of the weakest.
        memory_bytes: Memory of the machine.
        memory_limit_bytes: cgroup limit, where it is below `memory_bytes`.
        numa_nodes: NUMA nodes that the usable CPUs belong to.
        gpus: NVIDIA GPUs.
        peak_gflops: Measured fp32 GFLOP/s of one core.
        core_bandwidth_gbs: Measured GB/s, read plus written, of one core copying beyond the caches.
        memory_bandwidth_gbs: The same with `cores` threads at once.
        measured_at: UTC time of the measured figures, ISO 8601.
        source: Where the facts come from.
        warnings: What could not be read or made no sense, one line each.
    """

    name: str
    arch: str
    triple: str
    llvm_cpu: str = "generic"
    vendor: str = ""
    model: str = ""
    features: frozenset[str] = frozenset()
    vector_bits: int = 0
    vector_registers: int = 0
    fma: bool = False
    cores: int = 1
    cpu_quota: float | None = None
    logical_cpus: int = 1
    physical_cores: int = 1
    threads_per_core: int = 1
    caches: tuple[Cache, ...] = ()
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    numa_nodes: int = 1
    gpus: tuple[Gpu, ...] = ()
    peak_gflops: float | None = None
    core_bandwidth_gbs: float | None = None
    memory_bandwidth_gbs: float | None = None
    measured_at: str | None = None
    source: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def usable_memory_bytes(self) -> int | None:
        """The smaller of memory and its limit; None if neither is known."""
        known = [m for m in (self.memory_bytes, self.memory_limit_bytes) if m is not None]
        return min(known, default=None)

    def cache(self, level: int) -> Cache | None:
        """The cache of that level, or None if the machine has none or it is not known."""
        return next((c for c in self.caches if c.level == level), None)

    @property
    def last_level_cache(self) -> Cache | None:
        """The cache farthest from the core, or None if none is known."""
        return max(self.caches, key=lambda c: c.level, default=None)
