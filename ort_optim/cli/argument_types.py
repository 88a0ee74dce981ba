"""Numbers on the command line: `type=` of argparse arguments, each with the range it allows."""

from __future__ import annotations

import argparse
import math


def positive_int(text: str) -> int:
    """1, 2, ..."""
    return _int(text, 1)


def seed(text: str) -> int:
    """0, 1, ...: what NumPy takes as a seed."""
    return _int(text, 0)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = _float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def tolerance(text: str) -> float:
    """A finite number of at least 0."""
    value = _float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0")
    return value


def _int(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text}: must be at least {least}")
    return value


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text}: must be a number")
    return value
