"""The servers of a cluster, as a cluster file describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Gpus:
    """The equal devices of one server: their model, how many, and the memory of each in bytes."""

    model: str
    count: int
    memory: int = 0


@dataclass(frozen=True)
class Server:
    """One machine.

    Attributes:
        name: Unique in its cluster.
        cls: "one": for jobs that take whole machines; "two": for fragments; "auto": the planner
            decides.
        milli_cpus: Thousandths of a CPU.
        memory: Bytes.
        gpus: None without devices.
        labels: What jobs can ask for.
        drained: Nothing new is placed here; what runs goes on.
    """

    name: str
    cls: Literal["one", "two", "auto"]
    milli_cpus: int
    memory: int
    gpus: Gpus | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    drained: bool = False

    @property
    def devices(self) -> int:
        """How many GPUs it has."""
        return self.gpus.count if self.gpus else 0


@dataclass(frozen=True)
class Cluster:
    """All servers in the order of the file; of equal ones, earlier ones are taken first."""

    servers: tuple[Server, ...]
