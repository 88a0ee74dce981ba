"""Sizes and durations as people write them: "2GiB", "512MB", "90s", "1.5h"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

SIZES: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
"""Bytes by unit, in capitals. No bare letters: K means 1000 to some and 1024 to others."""

DURATIONS: Final = {
    "": Decimal(1),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
"""Seconds by unit. No "m": it means minutes to some and months to others."""

MOST_BYTES: Final = 2**60
MOST_SECONDS: Final = 10 * 366 * 86400

_QUANTITY = re.compile(r"(-?\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError that says what may be written."""
    match = _QUANTITY.fullmatch(text)
    unit = SIZES.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is no size: write such as 512MiB or 2GiB")
    size = Decimal(match[1]) * unit
    if size != int(size):
        raise ValueError(f"'{text}' is no whole number of bytes")
    if not 0 <= size <= MOST_BYTES:
        raise ValueError(f"'{text}' is no size of anything: it must be from 0 to {2**20}TiB")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError that says what may be written."""
    match = _QUANTITY.fullmatch(text)
    unit = DURATIONS.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is no duration: write such as 90s, 10min or 2h")
    seconds = Decimal(match[1]) * unit
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"'{text}' is out of range: a duration is above 0 and at most 10 years")
    return float(seconds)
