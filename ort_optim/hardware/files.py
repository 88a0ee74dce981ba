"""Reading small system files that may be missing, unreadable or nonsense."""

from __future__ import annotations

import re
from pathlib import Path

MAX_CPUS = 65536
"""CPU numbers at or above this are nonsense (Linux is built for at most 8192)."""

LARGE_BYTES = 8 << 20
"""Most that is read of /proc/cpuinfo (1.5 MB with 1,000 CPUs) and /proc/self/mountinfo."""

_SMALL_BYTES = 1 << 16  # every other file; read() sets aside as much as it is asked for
_CPU_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?\Z")


class Tree:
    """A file system as seen from `root`, with the warnings met on the way.

    No method raises for what the files hold or lack.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        """Note one line for the user, once."""
        line = printable(message, 1000)
        if line not in self.warnings:
            self.warnings.append(line)

    def read(self, path: str, limit_bytes: int = _SMALL_BYTES) -> str | None:
        """The first `limit_bytes` of the file at `path` (relative to the root), None if it can't be
        read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(limit_bytes).decode("utf-8", errors="replace")
        except (OSError, ValueError):  # ValueError: a NUL in a path taken from another file
            return None

    def exists(self, path: str) -> bool:
        """Whether there is something at `path`."""
        try:
            return (self.root / path).exists()
        except (OSError, ValueError):
            return False

    def names(self, path: str, prefix: str) -> list[str]:
        """Names `prefix`<number> in the folder at `path`, in order of the number."""
        try:
            found = [entry.name for entry in (self.root / path).iterdir()]
        except (OSError, ValueError):
            return []
        numbered = re.compile(re.escape(prefix) + r"[0-9]{1,6}\Z")
        return sorted(filter(numbered.match, found), key=lambda n: int(n[len(prefix) :]))

    def integer(self, path: str, low: int, high: int) -> int | None:
        """The number in the file at `path`; None if missing, or, with a warning, if not in
        low..high."""
        text = self.read(path)
        if text is None:
            return None
        value = parse_integer(text)
        if value is None or not low <= value <= high:
            self.warn(f"/{path}: {shorten(text)} is no number in {low}..{high}, ignored")
            return None
        return value

    def cpu_list(self, path: str) -> frozenset[int]:
        """The CPUs listed in the file at `path`; empty if missing or, with a warning, nonsense."""
        text = self.read(path)
        return frozenset() if text is None else self.cpus_in(text, path)

    def cpus_in(self, text: str, path: str) -> frozenset[int]:
        """The CPUs listed in `text`, found in `path`; empty, with a warning, if it is nonsense."""
        cpus = parse_cpu_list(text)
        if cpus is None:
            self.warn(f"/{path}: {shorten(text)} is no list of CPUs, ignored")
            return frozenset()
        return cpus


def parse_integer(text: str) -> int | None:
    """A decimal number of at most 30 digits, with spaces around it, or None."""
    text = text.strip()
    return int(text) if re.match(r"-?[0-9]{1,30}\Z", text) else None


def parse_cpu_list(text: str) -> frozenset[int] | None:
    """CPUs of a kernel list such as "0-3,8-11" (empty for an empty list), or None if it is not
    one."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = _CPU_RANGE.match(part.strip())
        if match is None:
            return None
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if not first <= last < MAX_CPUS:
            return None
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def shorten(text: str) -> str:
    """`text` quoted on one line of at most about 40 characters."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def printable(text: str, longest: int) -> str:
    """The printable characters of `text`, at most `longest` of them."""
    return "".join(c for c in text if c.isprintable())[:longest]
