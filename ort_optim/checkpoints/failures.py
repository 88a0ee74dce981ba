"""Which passes failed on a model, and whether regions did: kept to be looked into later.

FailureLog       what failed in a run; writes the file failures.json
Failures         what is in that file
read_failures    reads it, and checks that the model is still the one that it is about
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.checkpoints.keys import digest_of
from ort_optim.config import Config
from ort_optim.errors import InputError
from ort_optim.graph import LoadedModel
from ort_optim.hardware import Target, to_json
from ort_optim.passes.base import Rewrite
from ort_optim.report.codec import DecodeError, decode, encode
from ort_optim.tiling import TILING
from ort_optim.verify.judge import Verdict

FORMAT = 1
FILE = "failures.json"
SMALLEST = ("smallest.onnx", "smallest.txt", "smallest.npz")
"""The smallest part that still fails, a line on what fails, and inputs to run it on."""

Kind = Literal["raises", "differs", "breaks"]
"""The pass raises an error; what it makes gives other outputs; ONNX Runtime can't run that."""


@dataclass(frozen=True)
class Failed:
    """A pass, or `TILING` for regions, what it did, and the node and the number of the input set
    where it did it, if it is known."""

    kind: Kind
    pass_name: str
    reason: str
    node: str = ""
    input_set: int = 0


@dataclass(frozen=True)
class Regions:
    """What it takes to see regions fail again: `model` is the content file of the model that they
    were found in, `target` the facts of the machine, as JSON."""

    model: str
    target: str
    threads: int
    worst_error_class: int


@dataclass(frozen=True)
class Failures:
    """What failed, and what it takes to see it fail again.

    `model` is the input's path, `files` has the SHA-256 of it and of its external data; `regions`
    is there where these failed; the rest are options of the run.
    """

    version: int
    model: str
    files: Mapping[str, str]
    failed: tuple[Failed, ...]
    shapes: Mapping[str, tuple[int, ...]]
    keep_initializer_inputs: bool
    disable: tuple[str, ...]
    seed: int
    rtol: float | None = None
    atol: float | None = None
    regions: Regions | None = None


class FailureLog:
    """What fails in one run. What earlier runs in the folder left on theirs goes at once.

    `raised` has what passes raised, by their names: whoever catches it fills it. All that write
    raise InputError where they can't.
    """

    def __init__(
        self,
        folder: WorkFolder,
        original: LoadedModel,
        digests: Mapping[Path, str],
        config: Config,
        target: Target,
        threads: int,
    ) -> None:
        self.raised: Mapping[str, str] = {}
        self._culprits: tuple[Failed, ...] = ()
        self._folder = folder
        self._machine = to_json(target), threads
        self._about = Failures(
            FORMAT,
            str(original.path.absolute()),
            {str(path.absolute()): digest for path, digest in digests.items()},
            (),
            config.shapes,
            config.keep_initializer_inputs,
            tuple(sorted(config.disable)),
            config.seed,
            config.rtol,
            config.atol,
        )
        for name in (FILE, *SMALLEST):
            folder.remove(name)

    def rewrites(self, culprits: Sequence[tuple[Rewrite, Verdict]] = ()) -> None:
        """Write down what was raised so far, and all rewrites at fault."""
        self._culprits = tuple(
            _failed(each.pass_name, verdict, each.node) for each, verdict in culprits
        )
        self._write(self._failed_passes, None)

    def regions(self, verdict: Verdict, model: str, worst_error_class: int) -> None:
        """Write down that regions of `model`, a content file, failed, too."""
        regions = Regions(model, *self._machine, worst_error_class)
        self._write((*self._failed_passes, _failed(TILING, verdict)), regions)

    @property
    def _failed_passes(self) -> tuple[Failed, ...]:
        raised = (Failed("raises", name, reason) for name, reason in self.raised.items())
        return (*raised, *self._culprits)

    def _write(self, failed: tuple[Failed, ...], regions: Regions | None) -> None:
        if not failed:
            self._folder.remove(FILE)
            return
        found = replace(self._about, failed=failed, regions=regions)
        self._folder.write(FILE, json.dumps(encode(found), indent=2).encode())


def _failed(name: str, verdict: Verdict, node: str = "") -> Failed:
    at = next((c.set_index for c in verdict.outputs if not c.passed), 0)
    return Failed("differs" if verdict.outputs else "breaks", name, verdict.reason, node, at)


def read_failures(folder: WorkFolder) -> Failures | None:
    """What failed, None where nothing did. Raises InputError where the file is damaged, or the
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
    for name, digest in found.files.items():
        try:
            same = digest_of(Path(name)) == digest
        except OSError as error:
            raise InputError(f"{name} can't be read: {error.strerror}") from None
        if not same:
            raise InputError(f"{name} has changed since it failed: run `optimize` again")
    return found
