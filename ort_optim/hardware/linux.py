"""CPUs, features, caches and memory as Linux states them in /proc and /sys.

read_cpus      -> Cpus: the CPUs this process may use, and the cores behind them
read_identity  -> Identity: vendor, model, ISA features common to those CPUs
read_caches    -> data and unified caches of the weakest of them
read_memory_bytes, read_numa_nodes
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import isa
from .files import LARGE_BYTES, MAX_CPUS, Tree, parse_integer, printable, shorten
from .target import Cache

_CPU = "sys/devices/system/cpu"
_NODE = "sys/devices/system/node"
# Reading one core's caches costs about 0.2 ms. Hybrid chips have at most some tens of cores, in
# blocks of at least two, so an even sample of this many meets every kind.
_SAMPLED_CORES = 16
_MAX_THREADS_PER_CORE = 16  # POWER has 8
_CACHE_SIZE = re.compile(r"([0-9]{1,9})([KMG]?)\Z")
_UNIT_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_CACHE_BYTES_RANGE = range(1 << 10, (16 << 30) + 1)
_LINE_BYTES = frozenset({16, 32, 64, 128, 256, 512})
_MEMORY_KB_RANGE = range(1 << 10, 1 << 50)


@dataclass(frozen=True)
class Cpus:
    """CPUs of this process.

    Attributes:
        usable: Numbers of the CPUs in the affinity mask that are online; never empty.
        siblings: For every usable CPU, the CPUs of its physical core.
        threads_per_core: The largest number of siblings.
    """

    usable: frozenset[int]
    siblings: dict[int, frozenset[int]]
    threads_per_core: int

    @property
    def physical_cores(self) -> int:
        """Distinct cores behind the usable CPUs."""
        return len(set(self.siblings.values()))


@dataclass(frozen=True)
class Identity:
    """What the CPUs say they are. `llvm_cpu` is None where only the features tell."""

    vendor: str
    model: str
    features: frozenset[str]
    llvm_cpu: str | None


def read_cpus(tree: Tree) -> Cpus:
    """The CPUs this process may use; one if nothing can be read."""
    online = tree.cpu_list(f"{_CPU}/online") or frozenset(_processors(tree))
    allowed = _allowed_cpus(tree)
    usable = allowed & online if allowed and online else allowed | online
    if not usable:
        tree.warn("the CPUs of this process can't be read, counted as one")
        usable = frozenset({min(online, default=0)})
    siblings: dict[int, frozenset[int]] = {}
    for cpu in sorted(usable):
        if cpu not in siblings:
            core = _siblings(tree, cpu)
            siblings |= dict.fromkeys(core & usable, core)
    return Cpus(usable, siblings, max(map(len, siblings.values())))


def _allowed_cpus(tree: Tree) -> frozenset[int]:
    """The affinity mask, of the calling thread where the kernel tells it."""
    for status in ("proc/thread-self/status", "proc/self/status"):
        match = re.search(r"^Cpus_allowed_list:[ \t]*(.*)$", tree.read(status) or "", re.M)
        allowed = tree.cpus_in(match[1], status) if match else frozenset()
        if allowed:
            return allowed
    if tree.root == Path("/") and hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset()


def _siblings(tree: Tree, cpu: int) -> frozenset[int]:
    """The CPUs of this CPU's core, itself among them."""
    for file in ("core_cpus_list", "thread_siblings_list"):  # new name, old name
        siblings = tree.cpu_list(f"{_CPU}/cpu{cpu}/topology/{file}")
        if len(siblings) > _MAX_THREADS_PER_CORE:
            tree.warn(f"CPU {cpu} claims {len(siblings)} threads in its core, counted as one")
        elif cpu in siblings:
            return siblings
    return frozenset({cpu})


def _processors(tree: Tree) -> dict[int, dict[str, str]]:
    """/proc/cpuinfo: CPU number -> its fields. Fields stated once for all CPUs are in each."""
    common: dict[str, str] = {}
    processors: dict[int, dict[str, str]] = {}
    for block in re.split(r"\n[ \t]*\n", tree.read("proc/cpuinfo", LARGE_BYTES) or ""):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            key, separator, value = line.partition(":")
            if separator:
                fields.setdefault(key.strip(), value.strip())
        number = parse_integer(fields.get("processor", ""))
        if number is not None and 0 <= number < MAX_CPUS:
            processors[number] = fields
        else:
            common |= fields
    return {number: common | fields for number, fields in processors.items()}


def read_identity(tree: Tree, arch: str, usable: frozenset[int]) -> Identity:
    """Vendor, model and the ISA features that all usable CPUs have.

    The architecture's baseline, with a warning, if the features can't be read.
    """
    everyone = _processors(tree)
    cpus = [fields for number, fields in everyone.items() if number in usable]
    cpus = cpus or list(everyone.values())
    words = {_first(fields, "flags", "Features", "isa") for fields in cpus}
    features = [isa.features_from_words(arch, line.split()) for line in words if line]
    if not features:
        tree.warn("/proc/cpuinfo lists no ISA features, only those every such CPU has are counted")
        features = [isa.baseline_features(arch)]
    elif len(set(features)) > 1:
        tree.warn("the CPUs differ in their ISA features, only the common ones are counted")
    common = frozenset.intersection(*features)

    parts = sorted({part for fields in cpus if (part := _arm_part(fields))})
    llvm_cpu = None
    if parts:
        names = [isa.ARM_PARTS.get(part, f"part {part[1]:#x}") for part in parts]
        vendor = isa.ARM_VENDORS.get(parts[0][0], f"implementer {parts[0][0]:#x}")
        llvm_cpu = isa.ARM_PARTS.get(parts[0]) if len(parts) == 1 else None
        board = (tree.read("proc/device-tree/model") or "").strip("\0 \n")
        model = " + ".join(names) + (f" ({board})" if board else "")
    else:
        first = cpus[0] if cpus else {}
        vendor = _first(first, "vendor_id", "mvendorid")
        model = _first(first, "model name", "uarch", "cpu model", "cpu", "Hardware")
    return Identity(printable(vendor, 100), printable(model, 200), common, llvm_cpu)


def _first(fields: dict[str, str], *keys: str) -> str:
    return next((fields[key] for key in keys if fields.get(key)), "")


def _arm_part(fields: dict[str, str]) -> tuple[int, int] | None:
    """(implementer, part) of the MIDR register, or None on other CPUs."""
    try:
        return int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
    except (KeyError, ValueError):
        return None


def read_caches(tree: Tree, cpus: Cpus) -> tuple[Cache, ...]:
    """Data and unified caches, L1 first; of a level that differs among cores, the one that leaves
    a core the least."""
    cores = sorted({min(core) for core in cpus.siblings.values()})
    step = max(1.0, len(cores) / _SAMPLED_CORES)
    sample = [cores[int(i * step)] for i in range(min(len(cores), _SAMPLED_CORES))]
    found: defaultdict[int, set[Cache]] = defaultdict(set)
    core_of = dict(cpus.siblings)
    for cpu in sample:
        for index in tree.names(f"{_CPU}/cpu{cpu}/cache", "index"):
            cache = _cache(tree, f"{_CPU}/cpu{cpu}/cache/{index}", cpus, core_of)
            if cache is not None:
                found[cache.level].add(cache)
    if not found:
        tree.warn("cache sizes can't be read, counted as unknown")
    elif any(len({c.size_bytes for c in caches}) > 1 for caches in found.values()):
        tree.warn("the cores differ in their caches, those of the weakest are counted")
    return tuple(
        min(found[level], key=lambda c: (c.bytes_per_core, c.size_bytes, c.shared_by))
        for level in sorted(found)
    )


def _cache(tree: Tree, folder: str, cpus: Cpus, core_of: dict[int, frozenset[int]]) -> Cache | None:
    """One cache, or None for an instruction cache and, with a warning, for nonsense."""
    if (tree.read(f"{folder}/type") or "").strip() not in ("Data", "Unified"):
        return None
    level = tree.integer(f"{folder}/level", 1, 4)
    size_text = tree.read(f"{folder}/size")
    if level is None or size_text is None:
        return None
    match = _CACHE_SIZE.match(size_text.strip())
    size_bytes = int(match[1]) * _UNIT_BYTES[match[2]] if match else 0
    if size_bytes not in _CACHE_BYTES_RANGE:
        tree.warn(f"/{folder}/size: {shorten(size_text)} is no cache size, ignored")
        return None
    line_bytes = tree.integer(f"{folder}/coherency_line_size", 1, 1 << 20)
    if line_bytes not in _LINE_BYTES:
        line_bytes = 64
    # 0 ways is how the kernel writes "not known" (fully associative ones included).
    ways = tree.integer(f"{folder}/ways_of_associativity", 0, 1 << 20) or None
    shared = tree.cpu_list(f"{folder}/shared_cpu_list")
    if not shared:
        shared_by = 1 if level == 1 else cpus.physical_cores
    else:
        for cpu in shared - core_of.keys():
            core_of[cpu] = _siblings(tree, cpu)
        shared_by = len({core_of[cpu] for cpu in shared})
    return Cache(level, size_bytes, line_bytes, ways, shared_by)


def read_memory_bytes(tree: Tree) -> int | None:
    """Memory of the machine, or None, with a warning, if it can't be read."""
    match = re.search(r"^MemTotal:[ \t]+([0-9]{1,20}) kB", tree.read("proc/meminfo") or "", re.M)
    if match is None or int(match[1]) not in _MEMORY_KB_RANGE:
        tree.warn("/proc/meminfo states no sensible MemTotal, memory counted as unknown")
        return None
    return int(match[1]) * 1024


def read_numa_nodes(tree: Tree, usable: Iterable[int]) -> int:
    """NUMA nodes that the usable CPUs belong to, at least one."""
    wanted = frozenset(usable)
    nodes = tree.names(_NODE, "node")[:1024]
    return max(1, sum(bool(tree.cpu_list(f"{_NODE}/{n}/cpulist") & wanted) for n in nodes))
