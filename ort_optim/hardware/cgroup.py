"""CPU quota and memory limit of this process's control groups (v1, v2 and both at once).

Every group from the process's own up to the mount point counts, the tightest limit wins. The
group's folder is found as the kernel tells it: /proc/self/cgroup names the group, and
/proc/self/mountinfo where the hierarchy is mounted and which of its groups the mount shows (in a
container often only the container's own).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from .files import LARGE_BYTES, Tree, parse_integer, shorten

# v1 writes "no limit" as the largest page-aligned 63-bit number; nothing real is near 2**60.
_NO_MEMORY_LIMIT_BYTES = 1 << 60
_DEFAULT_PERIOD_US = 100_000
# Where to look when /proc does not say: v2, then v1.
_DEFAULT_HIERARCHIES: tuple[tuple[str, ...], ...] = ((), ("cpu",), ("memory",))
_DEFAULT_MOUNTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("/sys/fs/cgroup", ()),
    ("/sys/fs/cgroup/cpu", ("cpu",)),
    ("/sys/fs/cgroup/cpu,cpuacct", ("cpu", "cpuacct")),
    ("/sys/fs/cgroup/memory", ("memory",)),
)


@dataclass(frozen=True)
class Limits:
    """What the groups grant: CPUs' worth of time, bytes of memory; None without a limit."""

    cpu_quota: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class _Mount:
    """One mounted hierarchy: v1 `controllers` (empty for v2), the group it shows, and where."""

    controllers: frozenset[str]
    root: PurePosixPath
    point: PurePosixPath


def read_limits(tree: Tree) -> Limits:
    """The tightest limits over all groups this process is in.

    A quota file that makes no sense counts as one CPU, a memory limit that makes no sense as the
    memory now available, each with a warning.
    """
    quotas: list[float] = []
    memories: list[int] = []
    for folder in _group_folders(tree, "cpu"):
        quotas += _quota_v2(tree, f"{folder}/cpu.max")
        quotas += _quota_v1(tree, folder)
    for folder in _group_folders(tree, "memory"):
        for file in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            memories += _memory(tree, f"{folder}/{file}")
    return Limits(min(quotas, default=None), min(memories, default=None))


def _quota_v2(tree: Tree, path: str) -> list[float]:
    text = tree.read(path)
    if text is None:
        return []
    words = text.split()
    if words[:1] == ["max"]:
        return []
    numbers = [parse_integer(word) for word in words]
    quota, period = (*numbers, _DEFAULT_PERIOD_US)[:2] if numbers else (None, None)
    return [_ratio(tree, path, text, quota, period)]


def _quota_v1(tree: Tree, folder: str) -> list[float]:
    path = f"{folder}/cpu.cfs_quota_us"
    text = tree.read(path)
    if text is None:
        return []
    quota = parse_integer(text)
    if quota == -1:
        return []
    period_text = tree.read(f"{folder}/cpu.cfs_period_us")
    period = _DEFAULT_PERIOD_US if period_text is None else parse_integer(period_text)
    return [_ratio(tree, path, text, quota, period)]


def _ratio(tree: Tree, path: str, text: str, quota: int | None, period: int | None) -> float:
    if quota is None or period is None or quota <= 0 or period <= 0:
        tree.warn(f"/{path}: {shorten(text)} is no CPU quota, counted as one CPU")
        return 1.0
    return quota / period


def _memory(tree: Tree, path: str) -> list[int]:
    text = tree.read(path)
    if text is None or text.strip() == "max":
        return []
    limit = parse_integer(text)
    if limit is not None and limit >= _NO_MEMORY_LIMIT_BYTES:
        return []
    if limit is not None and limit > 0:
        return [limit]
    tree.warn(f"/{path}: {shorten(text)} is no memory limit, counted as the memory now available")
    available = re.search(
        r"^MemAvailable:\s+([0-9]{1,15}) kB", tree.read("proc/meminfo") or "", re.M
    )
    return [int(available[1]) * 1024] if available and int(available[1]) else []


def _group_folders(tree: Tree, controller: str) -> Iterator[str]:
    """Folders (relative to the tree's root) of every group that may limit `controller`."""
    mounts = _mounts(tree)
    seen: set[str] = set()
    for controllers, group in _groups(tree):
        if controllers and controller not in controllers:
            continue
        if controllers:
            fitting = [m for m in mounts if controller in m.controllers]
        else:
            fitting = [m for m in mounts if not m.controllers]
        # A mount that does not show our group is another container's, unless there is no better.
        showing = [m for m in fitting if group.is_relative_to(m.root)]
        for mount in showing or fitting:
            inside = group.relative_to(mount.root) if mount in showing else PurePosixPath()
            if ".." in inside.parts:
                inside = PurePosixPath()
            for part in (inside, *inside.parents):
                folder = str(mount.point / part).lstrip("/")
                if folder not in seen:
                    seen.add(folder)
                    yield folder


def _groups(tree: Tree) -> list[tuple[frozenset[str], PurePosixPath]]:
    """(v1 controllers, empty for v2; group) from lines such as "4:cpu,cpuacct:/docker/ab"."""
    groups = []
    for line in (tree.read("proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, separator, group = rest.partition(":")
        if separator and group.startswith("/") and hierarchy.isdigit():
            names = frozenset(filter(None, controllers.split(",")))
            groups.append((names, PurePosixPath(group)))
    return groups or [(frozenset(names), PurePosixPath("/")) for names in _DEFAULT_HIERARCHIES]


def _mounts(tree: Tree) -> list[_Mount]:
    mounts = []
    for line in (tree.read("proc/self/mountinfo", LARGE_BYTES) or "").splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, point = (PurePosixPath(_unescape(f)) for f in fields[3:5])
        if not point.is_absolute() or ".." in point.parts:
            continue
        controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else frozenset()
        mounts.append(_Mount(controllers, root, point))
    return mounts or [
        _Mount(frozenset(controllers), PurePosixPath("/"), PurePosixPath(point))
        for point, controllers in _DEFAULT_MOUNTS
    ]


def _unescape(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal, "\\040"."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)
