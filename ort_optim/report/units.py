"""Numbers and names as people read them. Pure functions, shared by all writers."""

from __future__ import annotations

import math
import unicodedata

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move the cursor, reorder text, or cannot be encoded."""


def printable(text: str) -> str:
    """`text` on one line, with control, invisible and unencodable characters as escapes.

    Node names can hold anything: terminal escapes, right-to-left overrides, lone surrogates.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in HIDDEN_CATEGORIES
        else char
        for char in text
    )


def size_text(size_bytes: float) -> str:
    """Bytes in binary units: "512 B", "3.5 KiB", "1.25 GiB"."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes:.0f} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if abs(value) < 999.95:
            return f"{_three_digits(value)} {unit}"
    return f"{_three_digits(value / 1024)} TiB"


def count_text(count: float) -> str:
    """A count in decimal units: "912", "11.7 k", "1.82 G"."""
    if abs(count) < 1000:
        return f"{count:.0f}"
    value = float(count)
    for unit in ("k", "M", "G", "T"):
        value /= 1000
        if abs(value) < 999.95:
            return f"{_three_digits(value)} {unit}"
    return f"{_three_digits(value / 1000)} P"


def time_text(ms: float | None) -> str:
    """Milliseconds in the unit that suits: "8.21 us", "15.5 ms", "2.3 s"; "-" for None."""
    if ms is None or not math.isfinite(ms):
        return "-"
    if ms == 0:
        return "0 ms"
    if abs(ms) < 0.1:
        return f"{_three_digits(ms * 1000)} us"
    if abs(ms) < 999.95:
        return f"{_three_digits(ms)} ms"
    return f"{_three_digits(ms / 1000)} s"


def error_text(value: float | None) -> str:
    """An error figure in two digits, "0" for exactly zero, "-" for None."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.2g}"


def delta_text(before: int, after: int) -> str:
    """The change of a count: "-27", "+3", "=" """
    return f"{after - before:+d}" if after != before else "="


def percent_text(before: float, after: float) -> str:
    """The change in percent: "-38.2%", "-0.0%", "=" where equal, "new" from zero."""
    if before == after:
        return "="
    if before == 0:
        return "new"
    return f"{100 * (after / before - 1):+.1f}%"


def plural(count: int, noun: str) -> str:
    """ "1 node", "2 nodes" """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _three_digits(value: float) -> str:
    """Three significant digits without an exponent; 999.95 and more stay integers."""
    magnitude = abs(value)
    return f"{value:.{2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0}f}"
