"""What a keeper tells about its job, and what an owner may change before the next start."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ort_optim.cluster.states import State


class Fault(StrEnum):
    """Why a job is held; the text of the cause says more."""

    EXIT = "exit"
    SIGNAL = "signal"
    MEMORY = "memory limit"
    KERNEL_MEMORY = "killed by the kernel: out of memory"
    NO_PROGRESS = "no progress"
    VERIFICATION = "verification failed"
    BAD_INPUT = "bad option or input"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Status:
    """One job as its keeper sees it; plain values, so that it can be pickled and written as JSON.

    Attributes:
        state: RUNNING, HELD, DONE, FAILED, CANCELLED; LOST when the keeper died with the job.
        cause: Why it is held, failed or lost; empty otherwise.
        attempt: As given to `Supervisor.start`.
        start: How often the child was started within the attempt, from 1.
        pid: Of the child, while it runs or is frozen; in a container, its id in there.
        container: Id of the container (its pid namespace); empty without one.
        last_step: Name of the last step it finished; empty when none is known.
        log_tail: The last lines of the log.
        since_s: When it came into this state, seconds since 1970.
        fault: The kind of `cause`.
        frozen: Its processes are stopped, with their memory, and can be continued.
        memory: Bytes that its processes had resident when last looked at.
        command: What was started last.
    """

    state: State
    cause: str
    attempt: int
    start: int
    pid: int | None
    container: str
    last_step: str
    log_tail: str
    since_s: float
    fault: Fault | None = None
    frozen: bool = False
    memory: int = 0
    command: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON knows."""
        return asdict(self)

    def essence(self) -> dict[str, Any]:
        """`to_dict` without what changes all the time."""
        values = self.to_dict()
        for name in ("memory", "log_tail"):
            del values[name]
        return {**values, "command": list(self.command)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Status:
        """The reverse of `to_dict`, also after a trip through JSON."""
        fault = values["fault"]
        return cls(
            **{
                **values,
                "state": State(values["state"]),
                "fault": None if fault is None else Fault(fault),
                "command": tuple(values["command"]),
            }
        )


@dataclass(frozen=True)
class PatchFile:
    """A file to copy into the work folder.

    Attributes:
        destination: Where, relative to the work folder; it can't leave it.
        source: A file on the supervisor's machine, or the bytes themselves.
        executable: May be run as a program; a source file that may makes it so, too. A file that
            is there already keeps its permissions.
    """

    destination: str
    source: Path | bytes
    executable: bool = False

    def read(self) -> bytes:
        """The content. Raises OSError: the source can't be read."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def is_executable(self) -> bool:
        """Whether the copy may be run as a program."""
        return self.executable or (
            not isinstance(self.source, bytes) and os.access(self.source, os.X_OK)
        )


@dataclass(frozen=True)
class Patch:
    """What the next starts use: later patches win over earlier ones, and all over the job.

    Attributes:
        options: Options of `optimize` by name; None takes one away. Only for jobs with a model.
        env: Environment variables; None takes one away.
        command: In place of the job's command, for jobs that have one.
        model: In place of the job's model: a path in the work folder, or an absolute one.
        files: Copied into the work folder at once.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    model: str = ""
    files: tuple[PatchFile, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.options or self.env or self.command or self.model or self.files)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON knows, with the content of files read now.

        Raises OSError: a source can't be read.
        """
        return {
            "options": dict(self.options),
            "env": dict(self.env),
            "command": list(self.command),
            "model": self.model,
            "files": [
                {
                    "destination": file.destination,
                    "content": base64.b64encode(file.read()).decode(),
                    "executable": file.is_executable(),
                }
                for file in self.files
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Patch:
        """The reverse of `to_dict`."""
        return cls(
            options=dict(values["options"]),
            env=dict(values["env"]),
            command=tuple(values["command"]),
            model=values["model"],
            files=tuple(
                PatchFile(
                    file["destination"], base64.b64decode(file["content"]), file["executable"]
                )
                for file in values["files"]
            ),
        )
