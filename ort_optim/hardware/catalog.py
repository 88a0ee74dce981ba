"""Targets by name: "native", those shipped as data in `targets/`, or a file of facts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from ..errors import InputError
from .detection import detect
from .serialization import from_json
from .target import NATIVE, Target

_MAX_FACTS_BYTES = 1 << 20
_FOLDER = Path(__file__).parent / "targets"


@cache
def shipped_targets() -> tuple[str, ...]:
    """Names of the targets that come with the package, in alphabetical order."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.json")))


def load_shipped(name: str) -> Target:
    """The shipped target of that name (one of `shipped_targets()`)."""
    return from_json((_FOLDER / f"{name}.json").read_bytes(), name)


def load_target(spec: str) -> Target:
    """The target a user names: "native", a shipped name, or the path of a facts file.

    A target from a file is called by the file's stem: "native" is this machine alone.

    Raises:
        InputError: no such name and no such file, or the file holds no valid facts.
    """
    if spec == NATIVE:
        return detect()
    if spec in shipped_targets():
        return load_shipped(spec)
    path = Path(spec)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FACTS_BYTES + 1)
    except FileNotFoundError:
        raise InputError(
            f"target {spec!r}: no file of that name, and none of the known targets: "
            f"{', '.join((NATIVE, *shipped_targets()))}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"target {spec!r}: can't be read: {reason}") from None
    if len(text) > _MAX_FACTS_BYTES:
        raise InputError(f"target {spec!r}: larger than 1 MiB, that is no file of hardware facts")
    target = from_json(text, spec)
    stem = path.stem[:100]
    return replace(target, name=stem if stem.isprintable() and stem != NATIVE else "facts")
