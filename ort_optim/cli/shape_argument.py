"""`--shape NAME:1x3x224x224`, for all commands that pin input shapes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

from ort_optim.errors import InputError

HELP = "fix the shape of an input, as in NAME:1x3x224x224 (NAME: for a scalar); may be repeated"

_SHAPE = re.compile(r"\d+(x\d+)*", re.IGNORECASE)


def add_shape_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--shape`; its values go to `parse_shapes`."""
    parser.add_argument(
        "--shape", action="append", default=[], metavar="NAME:1x3x224x224", help=HELP
    )


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input name. A name may hold colons: the last one separates.

    Raises InputError for anything that is not NAME:DIMxDIM..., and for a name given twice with
    different shapes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, dims = text.rpartition(":")
        if not colon or not name or (dims and not _SHAPE.fullmatch(dims)):
            raise InputError(f"--shape {text}: write NAME:1x3x224x224")
        shape = tuple(int(dim) for dim in dims.lower().split("x")) if dims else ()
        if shapes.setdefault(name, shape) != shape:
            raise InputError(f"--shape {name}: given twice, with different shapes")
    return shapes
