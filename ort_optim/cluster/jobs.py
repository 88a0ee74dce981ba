"""The jobs of a batch, as a job file describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What a job needs. It is hashable: jobs with equal needs are planned alike.

    Attributes:
        servers: Above 0: this many whole machines of class one; the other fields then say what each
            of them must have.
        milli_cpus: Thousandths of a CPU.
        milli_gpus: Thousandths of a GPU: below 1000 a share of one device, else a multiple of 1000.
        memory: Bytes.
        gpu_memory: Bytes on each device.
        gpu_models: Any of these will do; empty: any at all.
        labels: What the server's labels must be.
    """

    servers: int = 0
    milli_cpus: int = 1000
    milli_gpus: int = 0
    memory: int = 0
    gpu_memory: int = 0
    gpu_models: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def whole_devices(self) -> int:
        """How many devices it needs for itself; 0 for a share of one."""
        return self.milli_gpus // 1000


@dataclass(frozen=True)
class Job:
    """One model to optimize, or one command to run.

    Attributes:
        id: [A-Za-z0-9._-]{1,100}, unique in its file.
        model, output: Files; both or neither.
        options: Long options of `optimize` by name, such as {"threads": 1, "disable": ["tiling"]}.
        command: Program and arguments, where there is no model.
        resources: What it needs while it runs.
        target: The machine to optimize for, as `optimize --target` takes it.
        priority: Higher goes first.
        duration_s: How long it is expected to run.
        owner: Who may debug, patch and restart it.
        after: Ids of jobs that must have ended well before it starts.
        container: Run it in a container of its own.
        timeout_s: Without progress for so long, it is held.
        hold_s: How long it may stay held.
        env: Changes to the environment.
    """

    id: str
    model: Path | None = None
    output: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    command: tuple[str, ...] = ()
    resources: Resources = Resources()
    target: str = "native"
    priority: int = 0
    duration_s: float = 60.0
    owner: str = ""
    after: tuple[str, ...] = ()
    container: bool = False
    timeout_s: float = 600.0
    hold_s: float = 86400.0
    env: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class JobFile:
    """A job file that was read: all ids unique, all models there, no cycle in `after`."""

    path: Path
    jobs: tuple[Job, ...]
