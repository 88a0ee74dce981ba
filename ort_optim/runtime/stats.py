"""What regions did in a session, from the counters of the native library.

Session options remember what was made of them in configuration entries, which ONNX Runtime copies
into the session: `note` writes them, `read_stats` finds them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from ort_optim.runtime import library
from ort_optim.runtime.library import Counters

REGISTRATION = "ort_optim.registration"
REGION = "ort_optim.region."
LEFT = "ort_optim.left."
ALL = "all regions"

MOST_TEXT = 1000  # old versions of ONNX Runtime take no entry of more than about 1,024 bytes


class Options(Protocol):
    """The part of `onnxruntime.SessionOptions` that is used here."""

    def add_session_config_entry(self, key: str, value: str) -> None: ...

    def get_session_config_entry(self, key: str) -> str: ...


@dataclass(frozen=True)
class SessionStats:
    """What ran where.

    Attributes:
        regions: By name, the counters of each region that code of ours runs.
        left: By name, why a region (or all of them) is left to ONNX Runtime.
    """

    regions: Mapping[str, Counters]
    left: Mapping[str, str]

    @property
    def runs(self) -> int:
        """Calls of regions so far."""
        return sum(each.runs for each in self.regions.values())

    @property
    def packed_bytes(self) -> int:
        """Weights in the form that the code reads."""
        return sum(each.packed_bytes for each in self.regions.values())


def note(
    options: Options,
    registration: int | None,
    regions: Sequence[str],
    left: Mapping[str, str],
) -> None:
    """Let options remember the number of their registration, and which regions are in it."""
    options.add_session_config_entry(
        REGISTRATION, "" if registration is None else f"{registration}"
    )
    for number, name in enumerate(regions):
        options.add_session_config_entry(f"{REGION}{number}", name)
    for number, (name, reason) in enumerate(left.items()):
        options.add_session_config_entry(f"{LEFT}{number}", f"{name}: {reason}"[:MOST_TEXT])


def noted(options: Options) -> set[str]:
    """The names of all regions that options remember, or `ALL`."""
    left = {line.partition(": ")[0] for line in _entries(options, LEFT)}
    return left.union(_entries(options, REGION))


def entry(options: Options, key: str) -> str | None:
    """A configuration entry, None where there is none."""
    try:
        return options.get_session_config_entry(key)
    except RuntimeError:
        return None


def read_stats(options: Options) -> SessionStats:
    """The counters of a session, found through its options."""
    registration = entry(options, REGISTRATION)
    regions = {}
    if registration:
        for name in _entries(options, REGION):
            found = library.counters(int(registration), name)
            if found is not None:
                regions[name] = found
    lines = (line.partition(": ") for line in _entries(options, LEFT))
    return SessionStats(regions, {name: reason for name, _, reason in lines})


def _entries(options: Options, prefix: str) -> Iterator[str]:
    for number in count():
        found = entry(options, f"{prefix}{number}")
        if found is None:
            return
        yield found
