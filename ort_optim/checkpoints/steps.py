"""The steps of a run: each one taken over from the work folder where it is valid, else done now.

    Steps.begin     tells what the run is about: the keys follow from it
    Steps.inputs, Steps.rewrite, Steps.time, Steps.tile
    Steps.follow    a log of the run: what a step adds to it is kept with the step

For what a step is valid: see `ort_optim.checkpoints.keys`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from onnx import ModelProto

from ort_optim.checkpoints.failures import FailureLog
from ort_optim.checkpoints.findings import Form, Keeper, feeds_of
from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.checkpoints.keys import FORMAT, OPTIONS, digest_of, keys_of
from ort_optim.checkpoints.models import TooLargeError
from ort_optim.config import Config
from ort_optim.engine import Spill
from ort_optim.graph import LoadedModel
from ort_optim.hardware import Target
from ort_optim.passes.base import Rewrite
from ort_optim.reference import Unrunnable
from ort_optim.report.codec import DecodeError, JsonValue
from ort_optim.search import Faithful, Fast
from ort_optim.trial import Trial
from ort_optim.verify.inputs import Feeds, InputPlan
from ort_optim.verify.judge import Verdict

LOG = "steps.json"

T = TypeVar("T")
Log = list[str] | dict[str, str]


@dataclass(frozen=True)
class Finished:
    """A step that is done."""

    step: str
    finished: str
    seconds: float
    taken_over: bool


@dataclass(frozen=True)
class _Keeping:
    """What a run has that has a work folder."""

    folder: WorkFolder
    keys: Mapping[str, str]
    keeper: Keeper
    failures: FailureLog


class Steps:
    """What one run does, with a work folder or, where `folder` is None, without.

    `warnings` gets a line for each step that could not be taken over because its files are damaged.
    """

    def __init__(self, folder: WorkFolder | None, warnings: list[str]) -> None:
        self.folder = folder
        self.warnings = warnings
        self._logs: list[Log] = [warnings]
        self._finished: list[Finished] = []
        self._keeping: _Keeping | None = None

    @property
    def taken_over(self) -> tuple[str, ...]:
        """The names of the steps that were not done again."""
        return tuple(each.step for each in self._finished if each.taken_over)

    def begin(
        self, original: LoadedModel, config: Config, target: Target, threads: int, spill: Spill
    ) -> None:
        """Find out what the steps depend on. `threads` is the number that is timed with; `spill`
        takes the weights of heavy models. Raises OSError where data can't be read."""
        if self.folder is not None:
            digests = {path: digest_of(path) for path in (original.path, *original.data_files)}
            self._keeping = _Keeping(
                self.folder,
                keys_of(list(digests.values()), config, target, threads),
                Keeper(self.folder, original, spill, target),
                FailureLog(self.folder, original, digests, config, target, threads),
            )

    def inputs(self, do: Callable[[], InputPlan | Unrunnable]) -> InputPlan | Unrunnable:
        """Input sets and the reference's answers."""
        return self._take("inputs", lambda keeper: keeper.inputs, do)

    def rewrite(self, do: Callable[[], Faithful]) -> Faithful:
        """The search for rewrites that agree."""
        found = self._take("rewrite", lambda keeper: keeper.rewrite, do)
        self.record_failures(found.culprits)
        return found

    def time(self, do: Callable[[], Fast]) -> Fast:
        """The search for rewrites that cost no time."""
        fast = self._take("time", lambda keeper: keeper.time, do)
        self.record_failures(fast.found.culprits)
        return fast

    def tile(self, model: ModelProto, do: Callable[[], Trial]) -> Trial:
        """The trial of `model` with regions."""
        trial = self._take("tile", lambda keeper: keeper.tile(model), do)
        kept, verdict = self._keeping, trial.verdict
        if kept is not None and verdict is not None and not verdict.passed:
            with suppress(TooLargeError):
                name = kept.keeper.put(model)
                kept.failures.regions(verdict, name, trial.tiled.worst_error_class)
        return trial

    def follow(self, log: Log) -> None:
        """Keep with each step from now on what it adds to `log`."""
        self._logs.append(log)

    def follow_failures(self, raised: dict[str, str]) -> None:
        """The same for what passes raised, by their names."""
        if self._keeping is not None:
            self._keeping.failures.raised = raised
        self.follow(raised)

    def touch(self) -> None:
        """Show that the run goes on."""
        if self.folder is not None:
            self.folder.touch()

    def record_failures(self, culprits: Sequence[tuple[Rewrite, Verdict]] = ()) -> None:
        """Keep which passes raised errors so far, and which rewrites were at fault, for
        `ort_optim.reduction`. Raises InputError as steps do."""
        if self._keeping is not None:
            self._keeping.failures.rewrites(culprits)

    def _take(self, step: str, form_of: Callable[[Keeper], Form[T]], do: Callable[[], T]) -> T:
        """What the step found, earlier or now. Raises what `do` raises, and InputError where the
        finding can't be written."""
        if self._keeping is None:
            return do()
        folder, key = self._keeping.folder, self._keeping.keys[step]
        form = form_of(self._keeping.keeper)
        folder.touch()
        started = time.perf_counter()
        try:
            kept = _record_of(folder, step)
            if kept is not None and kept["key"] == key:
                value = form.unpack(kept["value"])
                for log, added in list(zip(self._logs, kept["added"], strict=True)):
                    _extend(log, added)
                self._finish(folder, step, time.perf_counter() - started, taken_over=True)
                return value
        except _UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.warnings.append(f"step {step} is done again, what was kept is damaged: {reason}")
        before = [len(log) for log in self._logs]
        value = do()
        if form.is_worth_it(value):
            added = [_tail(log, n) for log, n in zip(self._logs, before, strict=True)]
            try:
                found = {"key": key, "value": form.pack(value), "added": added}
                _write(folder, {"version": FORMAT, "step": step, **found})
            except TooLargeError:
                self.warnings.append(f"step {step} is not kept: its model exceeds 2 GB")
        self._finish(folder, step, time.perf_counter() - started, taken_over=False)
        return value

    def finish(self, step: str, seconds: float) -> None:
        """A step is done that is never taken over."""
        if self.folder is not None:
            self._finish(self.folder, step, seconds, taken_over=False)

    def _finish(self, folder: WorkFolder, step: str, seconds: float, *, taken_over: bool) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._finished.append(Finished(step, now, round(seconds, 3), taken_over))
        log = {
            "version": FORMAT,
            "last_finished_step": step,
            "steps": [vars(each) for each in self._finished],
        }
        folder.write(LOG, json.dumps(log, indent=2).encode())
        folder.touch()


_UNREADABLE = (
    *(DamagedError, DecodeError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    RecursionError,
)
"""What comes of reading files that are not what was written."""


def kept_feeds(folder: WorkFolder) -> list[Feeds]:
    """The input sets that the latest run in a folder was verified on; none if they are not kept."""
    try:
        kept = _record_of(folder, "inputs")
        return [] if kept is None else feeds_of(folder, kept["value"])
    except _UNREADABLE:
        return []


def _write(folder: WorkFolder, record: Mapping[str, JsonValue]) -> None:
    """Keep what was found in a step, and remove what no step refers to any more."""
    text = json.dumps({**record, "digest": _digest(record)})
    folder.write(f"{record['step']}.json", text.encode())
    needed: set[str] = set()  # all names that stand in any record
    for step in OPTIONS:
        with suppress(*_UNREADABLE):
            needed.update(_names(json.loads(folder.read(f"{step}.json") or b"null")))
    folder.forget_all_but(needed)


def _record_of(folder: WorkFolder, step: str) -> Any:
    """What was kept of a step, None where there is nothing. Raises DamagedError or ValueError."""
    raw = folder.read(f"{step}.json")
    if raw is None:
        return None
    kept = json.loads(raw)
    if not isinstance(kept, dict) or kept.pop("digest", None) != _digest(kept):
        raise DamagedError(f"{step}.json is not what was written there")
    return kept


def _digest(record: Mapping[str, JsonValue]) -> str:
    text = json.dumps(record, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _names(value: JsonValue) -> set[str]:
    """All strings of a record."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value
    return set().union(*map(_names, inner)) if isinstance(value, (dict, list)) else set()


def _tail(log: Log, start: int) -> JsonValue:
    return (
        [list(each) for each in list(log.items())[start:]] if isinstance(log, dict) else log[start:]
    )


def _extend(log: Log, added: Any) -> None:
    if isinstance(log, dict):
        log.update({str(name): str(text) for name, text in added})
    else:
        log += map(str, added)
