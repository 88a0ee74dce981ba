"""The machine this process runs on, as a `Target`."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import replace
from pathlib import Path

from . import cgroup, gpus, isa, linux, portable
from .files import Tree, printable
from .target import NATIVE, Target

# Below 0.01 CPUs is what the kernel itself refuses.
_MIN_QUOTA = 0.01


def detect(root: Path = Path("/"), *, machine: str | None = None) -> Target:
    """The facts of this machine, in a few milliseconds, without measuring anything.

    Args:
        root: Folder that holds /proc and /sys. Another one than "/" is read as a recorded Linux
            machine.
        machine: Architecture of the recorded machine, `platform.machine()` by default.

    Never raises for what the system answers: a fact that is missing or absurd gets the
    conservative value, and, where that may cost speed, a line in `Target.warnings`.
    """
    tree = Tree(root)
    recorded = root != Path("/")
    system = "Linux" if recorded else platform.system()
    arch = isa.canonical_arch(
        machine or platform.machine(), 64 if recorded or sys.maxsize > 2**32 else 32
    )
    musl = "musl" in str(getattr(sys.implementation, "_multiarch", "")) and not recorded
    start = Target(
        name=NATIVE,
        arch=arch,
        triple=isa.triple(arch, system, musl=musl),
        source=printable(f"recorded system in {root}", 1000)
        if recorded
        else "read from the system",
    )
    facts = (
        _detect_linux(tree, start) if system == "Linux" else _detect_portable(tree, start, system)
    )
    unit = isa.vector_unit(arch, facts.features)
    if unit.bits == 0:
        tree.warn(f"no vector unit is known for {arch} with these features, counted as none")
    return replace(
        facts,
        vector_bits=unit.bits,
        vector_registers=unit.registers,
        fma=unit.fma,
        warnings=tuple(tree.warnings),
    )


def usable_cores(physical_cores: int, cpu_quota: float | None) -> int:
    """Threads worth starting: one per physical core, no more than the quota keeps busy.

    The quota is rounded down, to one at least: with 1.5 CPUs, two busy threads would both be
    stopped for a quarter of every period, and whoever waits for both waits for the stop too.
    """
    if cpu_quota is None:
        return max(1, physical_cores)
    return max(1, min(physical_cores, math.floor(cpu_quota)))


def _detect_linux(tree: Tree, start: Target) -> Target:
    cpus = linux.read_cpus(tree)
    identity = linux.read_identity(tree, start.arch, cpus.usable)
    limits = cgroup.read_limits(tree)
    memory_bytes = linux.read_memory_bytes(tree)
    quota = limits.cpu_quota
    if quota is not None:
        quota = None if quota >= len(cpus.usable) else max(_MIN_QUOTA, quota)
    limit = limits.memory_bytes
    if limit is not None and memory_bytes is not None and limit >= memory_bytes:
        limit = None
    return replace(
        start,
        llvm_cpu=identity.llvm_cpu or isa.llvm_cpu(start.arch, identity.features),
        vendor=identity.vendor,
        model=identity.model,
        features=identity.features,
        cores=usable_cores(cpus.physical_cores, quota),
        cpu_quota=quota,
        logical_cpus=len(cpus.usable),
        physical_cores=cpus.physical_cores,
        threads_per_core=cpus.threads_per_core,
        caches=linux.read_caches(tree, cpus),
        memory_bytes=memory_bytes,
        memory_limit_bytes=limit,
        numa_nodes=linux.read_numa_nodes(tree, cpus.usable),
        gpus=gpus.read_gpus(tree),
    )


def _detect_portable(tree: Tree, start: Target, system: str) -> Target:
    darwin = system == "Darwin"
    logical_cpus, physical_cores = portable.cpu_counts(tree)
    if darwin and start.arch == "aarch64":
        # Every Mac with an Apple CPU has at least what the first one, the M1, had.
        from .catalog import load_shipped

        oldest = load_shipped("apple-m1")
        features, llvm_cpu = oldest.features, oldest.llvm_cpu
    else:
        features = portable.numpy_features(tree, start.arch)
        llvm_cpu = isa.llvm_cpu(start.arch, features)
    if darwin:
        model = portable.sysctl("machdep.cpu.brand_string")
        caches = portable.darwin_caches(tree, portable.sysctl)
    else:
        model = platform.processor() if system == "Windows" else None
        caches = ()
        tree.warn(f"cache sizes are not read on {system or 'this system'}, counted as unknown")
    fast_cores = portable.darwin_performance_cores(portable.sysctl) if darwin else None
    return replace(
        start,
        llvm_cpu=llvm_cpu,
        vendor="Apple" if darwin and start.arch == "aarch64" else "",
        model=str(model or ""),
        features=features,
        cores=min(physical_cores, fast_cores or physical_cores),
        logical_cpus=logical_cpus,
        physical_cores=physical_cores,
        threads_per_core=max(1, logical_cpus // physical_cores),
        caches=caches,
        memory_bytes=portable.memory_bytes(tree),
        gpus=() if darwin else gpus.read_gpus(tree, look_first=False),
    )
