"""For what a step is valid: a key of all that its finding follows from.

OPTIONS      the steps in their order, with the options that each depends on
keys_of      the key of each step
digest_of    the content of a file

These are the content of the model with its external data, the options that the step depends on,
the machine where it is timed, the versions of the libraries and the source of this package, and the
step before it. So another `--disable tiling` leaves all but the last step valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ort_optim.assembly import LIBRARIES
from ort_optim.config import Config
from ort_optim.hardware import NATIVE, Target, load_target, to_json
from ort_optim.runtime.library import unavailable_reason
from ort_optim.tiling import TILING

FORMAT = 1

NO_PASS_OPTIONS = ("shapes", "data", "keep_initializer_inputs", "sets", "seed", "timeout_s")
OPTIONS = {
    "inputs": NO_PASS_OPTIONS,
    "rewrite": ("disable", "rtol", "atol", "search_seconds"),
    "time": ("timing",),
    "tile": ("timing",),
}
"""The steps in their order, and the options that each depends on, beside those before it."""

_PACKAGE = Path(__file__).resolve().parents[1]
_ABOVE = frozenset({"cli", "cluster", "report"})  # parts that no finding follows from


def keys_of(model: Sequence[str], config: Config, target: Target, threads: int) -> dict[str, str]:
    """The key of each step. `model` has the digests of its files; `threads` is the number that is
    timed with. Raises OSError where data can't be read."""
    here = load_target(NATIVE)
    options: dict[str, Any] = {name: getattr(config, name) for name in vars(config)}
    options["disable"] = sorted(config.disable - {TILING})
    options["data"] = _digest_of_data(config.data) if config.data is not None else None
    timed_on = [_facts(here), threads] if config.timing else None
    circumstances: dict[str, Any] = {
        "inputs": [list(model), _versions()],
        "time": timed_on,
        "tile": [_facts(target), _facts(here), timed_on, unavailable_reason()],
    }
    keys: dict[str, str] = {}
    key = ""
    for step, names in OPTIONS.items():
        parts = [FORMAT, step, key, {name: options[name] for name in names}]
        text = json.dumps([*parts, circumstances.get(step)], sort_keys=True, default=list)
        key = keys[step] = hashlib.sha256(text.encode()).hexdigest()
    return keys


def digest_of(path: Path) -> str:
    """The SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(target: Target) -> str:
    """What is known of a machine, but for how it came to be known."""
    return to_json(replace(target, measured_at=None, source="", warnings=()))


def _digest_of_data(path: Path) -> list[list[str]]:
    """Of a file, or of the files in a folder, by their names in it."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(f.relative_to(path)), digest_of(f)] for f in files if f.is_file()]


@cache
def _versions() -> dict[str, str]:
    """The versions of the libraries, and the source of this package."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.relative_to(_PACKAGE).parts[0] in _ABOVE:
            continue
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    libraries = {name: metadata.version(name) for name in LIBRARIES}
    return {**libraries, "ort_optim": digest.hexdigest()}
