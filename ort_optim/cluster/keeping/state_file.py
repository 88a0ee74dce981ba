"""state.json: how the job stands, written by its keeper at each change, checked when read.

What is read may be damaged, forged or of a newer version: it is refused in one line then. It is
trusted as far as its owner is: the file and its folder belong to this user, and only to it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ort_optim.cluster.keeping.status import Fault, Status
from ort_optim.cluster.keeping.work_folder import WorkFolder, check_ours, read_ours, write_whole
from ort_optim.cluster.states import OVER, State
from ort_optim.errors import InputError

VERSION = 1
LARGEST_BYTES = 4 << 20
KEPT = frozenset({State.RUNNING, State.HELD})
ENDED = OVER | {State.LOST}
TAIL_LINES = 20


@dataclass(frozen=True)
class StateRecord:
    """What state.json says.

    Attributes:
        id: Of the job.
        attempt, start, state, cause, fault, frozen, container, command, since_s: As in Status.
        pid, pid_started: Of the child; the second tells it from a later process of that number.
        host: The machine that the keeper runs on.
        nonce: Marks the processes of this keeper: it stands in their environment.
        run: The private folder of the keeper's socket.
        cpus: CPUs that the job is bound to; empty: to none.
        devices: GPU indices.
    """

    id: str
    attempt: int
    start: int
    state: State
    cause: str
    fault: Fault | None
    frozen: bool
    container: str
    command: tuple[str, ...]
    since_s: float
    pid: int | None
    pid_started: str
    host: str
    nonce: str
    run: str
    cpus: tuple[int, ...]
    devices: tuple[int, ...]

    @property
    def socket(self) -> Path:
        """Where the keeper listens."""
        return Path(self.run) / "socket"


def write_state(folder: WorkFolder, record: StateRecord) -> None:
    """Write state.json, whole or not at all."""
    text = json.dumps({"version": VERSION, **dataclasses.asdict(record)}, indent=1)
    write_whole(folder.state, text.encode() + b"\n")


def read_state(folder: WorkFolder) -> StateRecord:
    """Read state.json. Raises InputError: absent, damaged, forged, or of a newer version."""
    path = folder.state
    try:
        check_ours(folder.path, folder.path.lstat(), stat.S_ISDIR)
    except OSError as error:
        raise InputError(f"{folder.path}: {error.strerror}: no job to be found there") from None
    try:
        values = json.loads(read_ours(path, LARGEST_BYTES))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged: release the job, or start it anew") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: damaged: release the job, or start it anew")
    version = values.pop("version", None)
    if type(version) is int and version > VERSION:
        raise InputError(
            f"{path}: written by a newer ort_optim (version {version}, this one knows {VERSION}): "
            "upgrade ort_optim"
        )
    if version != VERSION or type(version) is not int:
        raise InputError(f"{path}: not a state file of ort_optim: refused")
    record = _record(path, values)
    if record.state in KEPT:
        _check_run_folder(path, record)
    return record


def to_status(folder: WorkFolder, record: StateRecord, *, memory: int = 0) -> Status:
    """What a record and the folder tell together."""
    return Status(
        state=record.state,
        cause=record.cause,
        attempt=record.attempt,
        start=record.start,
        pid=record.pid,
        container=record.container,
        last_step=folder.last_step(),
        log_tail=folder.tail(TAIL_LINES),
        since_s=record.since_s,
        fault=record.fault,
        frozen=record.frozen,
        memory=memory,
        command=record.command,
    )


def _record(path: Path, values: Mapping[str, Any]) -> StateRecord:
    kinds = typing.get_type_hints(StateRecord)
    if values.keys() != kinds.keys():
        odd = ", ".join(sorted(values.keys() ^ kinds.keys()))
        raise InputError(f"{path}: not a state file of ort_optim ({odd[:200]}): refused")
    try:
        record = StateRecord(**{name: _value(kinds[name], values[name]) for name in kinds})
    except (ValueError, TypeError):
        raise InputError(f"{path}: a field is not what was written there: refused") from None
    positive = record.attempt > 0 and record.start >= 0 and (record.pid is None or record.pid > 1)
    if not positive or (record.state in KEPT) != bool(record.run):
        raise InputError(f"{path}: its fields contradict each other: refused")
    return record


def _value(kind: Any, value: Any) -> Any:
    """A value from JSON as the type it must have. Raises TypeError or ValueError."""
    if isinstance(kind, types.UnionType):
        return None if value is None else _value(typing.get_args(kind)[0], value)
    if typing.get_origin(kind) is tuple:
        if type(value) is not list:
            raise TypeError
        return tuple(_value(typing.get_args(kind)[0], item) for item in value)
    if kind in (State, Fault):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _check_run_folder(path: Path, record: StateRecord) -> None:
    """The socket must lie in a folder that only this user can enter; it may be gone."""
    run = Path(record.run)
    if not run.is_absolute() or ".." in run.parts:
        raise InputError(f"{path}: its socket is not where a keeper puts one: refused")
    try:
        facts = run.lstat()
    except OSError:
        return
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise InputError(f"{path}: its socket is not in a private folder: refused")
