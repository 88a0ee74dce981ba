"""Which passes failed on a model, kept in the work folder so that it can be looked into later.

Failures         the file failures.json
record           writes it
read_failures    reads it, and checks that the model is still the one that it is about
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.config import Config
from ort_optim.errors import InputError
from ort_optim.passes.base import Rewrite
from ort_optim.report.codec import DecodeError, decode, encode
from ort_optim.verify.judge import Verdict

FORMAT = 1
FILE = "failures.json"

Kind = Literal["raises", "differs", "breaks"]
"""The pass raises an error; what it makes gives other outputs; ONNX Runtime can't run that."""


@dataclass(frozen=True)
class Failed:
    """A pass, what it did, and the node and the number of the input set where it did it, if it is
    known."""

    kind: Kind
    pass_name: str
    reason: str
    node: str = ""
    input_set: int = 0


@dataclass(frozen=True)
class Failures:
    """Failed passes, and what it takes to see them fail again.

    `model` is the input's path and `sha256` its content; the rest are options of the run.
    """

    version: int
    model: str
    sha256: str
    failed: tuple[Failed, ...]
    shapes: Mapping[str, tuple[int, ...]]
    keep_initializer_inputs: bool
    disable: tuple[str, ...]
    seed: int
    rtol: float | None = None
    atol: float | None = None


def record(
    folder: WorkFolder,
    model: Path,
    config: Config,
    raised: Mapping[str, str],
    culprits: Sequence[tuple[Rewrite, Verdict]],
) -> None:
    """Write down what failed: passes that `raised` an error, by name, and rewrites at fault. Where
    nothing did, an earlier run's record goes. Raises InputError if it can't be written."""
    failed = [Failed("raises", name, reason) for name, reason in raised.items()]
    failed += [
        Failed(
            "differs" if verdict.outputs else "breaks",
            each.pass_name,
            verdict.reason,
            each.node,
            next((c.set_index for c in verdict.outputs if not c.passed), 0),
        )
        for each, verdict in culprits
    ]
    if not failed:
        folder.remove(FILE)
        return
    found = Failures(
        FORMAT,
        str(model.absolute()),
        _digest(model),
        tuple(failed),
        config.shapes,
        config.keep_initializer_inputs,
        tuple(sorted(config.disable)),
        config.seed,
        config.rtol,
        config.atol,
    )
    folder.write(FILE, json.dumps(encode(found), indent=2).encode())


def read_failures(folder: WorkFolder) -> Failures | None:
    """What failed, None where no pass did. Raises InputError where the file is damaged, or the
    model is not the one that it is about."""
    try:
        raw = folder.read(FILE)
        if raw is None:
            return None
        found = decode(Failures, json.loads(raw))
    except (DamagedError, DecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{folder.path / FILE} is damaged: {error}") from None
    if found.version != FORMAT or not found.failed:
        raise InputError(f"{folder.path / FILE} is of another version: run `optimize` again")
    path = Path(found.model)
    try:
        same = _digest(path) == found.sha256
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    if not same:
        raise InputError(f"{path} has changed since the pass failed: run `optimize` again")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
