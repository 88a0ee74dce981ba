"""The steps of a run: each one taken over from the work folder where it is valid, else done now.

    Steps.begin     tells what the run is about: the keys follow from it
    Steps.inputs, Steps.rewrite, Steps.time, Steps.tile
    Steps.follow    a log of the run: what a step adds to it is kept with the step

A step is valid for the content of the model with its external data, the options that the step
depends on, the machine where it is timed, the versions of the libraries and the source of this
package, and the step before it. So another `--disable tiling` leaves all but the last step valid.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from onnx import ModelProto

from ort_optim.assembly import LIBRARIES
from ort_optim.checkpoints.failures import record
from ort_optim.checkpoints.findings import Form, Keeper, feeds_of
from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.checkpoints.models import TooLargeError
from ort_optim.config import Config
from ort_optim.engine import Spill
from ort_optim.graph import LoadedModel
from ort_optim.hardware import NATIVE, Target, load_target, to_json
from ort_optim.passes.base import Rewrite
from ort_optim.reference import Unrunnable
from ort_optim.report.codec import DecodeError, JsonValue
from ort_optim.runtime.library import unavailable_reason
from ort_optim.search import Faithful, Fast
from ort_optim.trial import Trial
from ort_optim.verify.inputs import Feeds, InputPlan
from ort_optim.verify.judge import Verdict

FORMAT = 1
LOG = "steps.json"
TILING = "tiling"  # what --disable calls the regions

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

T = TypeVar("T")
Log = list[str] | dict[str, str]


@dataclass(frozen=True)
class Finished:
    """A step that is done."""

    step: str
    finished: str
    seconds: float
    taken_over: bool


class Steps:
    """What one run does, with a work folder or, where `folder` is None, without.

    `warnings` gets a line for each step that could not be taken over because its files are damaged.
    """

    def __init__(self, folder: WorkFolder | None, warnings: list[str]) -> None:
        self.folder = folder
        self.warnings = warnings
        self._logs: list[Log] = [warnings]
        self._keys: dict[str, str] = {}
        self._finished: list[Finished] = []
        self._keeper: Keeper | None = None
        self._run: tuple[Path, Config] | None = None
        self._raised: dict[str, str] = {}

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
            self._run = original.path, config
            self._keys = _keys(original, config, target, threads)
            self._keeper = Keeper(self.folder, original, spill, target)

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
        return self._take("tile", lambda keeper: keeper.tile(model), do)

    def follow(self, log: Log) -> None:
        """Keep with each step from now on what it adds to `log`."""
        self._logs.append(log)

    def follow_failures(self, raised: dict[str, str]) -> None:
        """The same for what passes raised, by their names."""
        self._raised = raised
        self.follow(raised)

    def touch(self) -> None:
        """Show that the run goes on."""
        if self.folder is not None:
            self.folder.touch()

    def _take(self, step: str, form_of: Callable[[Keeper], Form[T]], do: Callable[[], T]) -> T:
        """What the step found, earlier or now. Raises what `do` raises, and InputError where the
        finding can't be written."""
        if self.folder is None or self._keeper is None:
            return do()
        form = form_of(self._keeper)
        self.folder.touch()
        started = time.perf_counter()
        try:
            kept = self._read(self.folder, step)
            if kept is not None:
                value = form.unpack(kept["value"])
                for log, added in list(zip(self._logs, kept["added"], strict=True)):
                    _extend(log, added)
                self._finish(self.folder, step, time.perf_counter() - started, taken_over=True)
                return value
        except _UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.warnings.append(f"step {step} is done again, what was kept is damaged: {reason}")
        before = [len(log) for log in self._logs]
        value = do()
        if form.is_worth_it(value):
            added = [_tail(log, n) for log, n in zip(self._logs, before, strict=True)]
            try:
                self._write(self.folder, step, {"value": form.pack(value), "added": added})
            except TooLargeError:
                self.warnings.append(f"step {step} is not kept: its model exceeds 2 GB")
        self._finish(self.folder, step, time.perf_counter() - started, taken_over=False)
        return value

    def record_failures(self, culprits: Sequence[tuple[Rewrite, Verdict]] = ()) -> None:
        """Keep which passes raised errors so far, and which rewrites were at fault, for
        `ort_optim.reduction`. Raises InputError as steps do."""
        if self.folder is not None and self._run is not None:
            path, config = self._run
            record(self.folder, path, config, self._raised, culprits)

    def finish(self, step: str, seconds: float) -> None:
        """A step is done that is never taken over."""
        if self.folder is not None:
            self._finish(self.folder, step, seconds, taken_over=False)

    def _read(self, folder: WorkFolder, step: str) -> Any:
        """What was kept of a step; None where there is nothing that is valid."""
        kept = _record_of(folder, step)
        return kept if kept is not None and kept["key"] == self._keys[step] else None

    def _write(self, folder: WorkFolder, step: str, found: dict[str, JsonValue]) -> None:
        record = {"version": FORMAT, "step": step, "key": self._keys[step], **found}
        text = json.dumps({**record, "digest": _digest(record)})
        folder.write(f"{step}.json", text.encode())
        folder.forget_all_but(self._needed(folder))

    @staticmethod
    def _needed(folder: WorkFolder) -> set[str]:
        """The content files that any record may refer to: all names that stand in one."""
        needed: set[str] = set()
        for step in OPTIONS:
            try:
                needed.update(_names(json.loads(folder.read(f"{step}.json") or b"null")))
            except _UNREADABLE:
                continue
        return needed

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


def _keys(original: LoadedModel, config: Config, target: Target, threads: int) -> dict[str, str]:
    """The key of each step."""
    here = load_target(NATIVE)
    options: dict[str, Any] = {name: getattr(config, name) for name in vars(config)}
    options["disable"] = sorted(config.disable - {TILING})
    options["data"] = _digest_of_data(config.data) if config.data is not None else None
    timed_on = [_facts(here), threads] if config.timing else None
    circumstances: dict[str, Any] = {
        "inputs": [_digest_of_model(original), _versions()],
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


def _facts(target: Target) -> str:
    """What is known of a machine, but for how it came to be known."""
    return to_json(replace(target, measured_at=None, source="", warnings=()))


def _digest_of_model(loaded: LoadedModel) -> list[str]:
    return [_digest_of_file(path) for path in (loaded.path, *loaded.data_files)]


def _digest_of_data(path: Path) -> list[list[str]]:
    """Of a file, or of the files in a folder, by their names in it."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(f.relative_to(path)), _digest_of_file(f)] for f in files if f.is_file()]


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
