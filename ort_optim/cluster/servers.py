"""The servers of a cluster, as a cluster file describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ort_optim.cluster.documents import Value, read_document
from ort_optim.cluster.jobs import MOST_CPUS, MOST_SERVERS, check_version
from ort_optim.errors import InputError

VERSION = 1

MOST_DEVICES = 1024
"""GPUs of one server."""

FIELDS = ("name", "class", "cpus", "memory", "gpus", "labels", "drained")

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,250}")
_RANGE = re.compile(r"(?P<before>[^][]*)\[(?P<first>\d{1,9})-(?P<last>\d{1,9})\](?P<after>[^][]*)")


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


def read_cluster(path: Path) -> Cluster:
    """The servers of a YAML file; a name such as "n[01-10]" stands for ten equal ones.

    Raises InputError in one line that names file, line and field: for what is not YAML, unknown or
    missing fields, wrong types, duplicate names, and amounts out of range.
    """
    document = read_document(path).mapping(("version", "servers"))
    check_version(document, path, VERSION)
    if "servers" not in document:
        raise InputError(f"{path}: has no `servers`")
    servers: dict[str, Server] = {}
    for value in document["servers"].items():
        fields = value.mapping(FIELDS)
        for name in ("name", "cpus", "memory"):
            if name not in fields:
                raise value.error(f"has no {name}")
        names = _names(fields["name"], MOST_SERVERS - len(servers))
        first = _server(names[0], fields)
        for name in names:
            if name in servers:
                raise fields["name"].error(f"there are two servers '{name}'")
            servers[name] = replace(first, name=name)
    if not servers:
        raise document["servers"].error("lists no server")
    return Cluster(tuple(servers.values()))


def _names(value: Value, most: int) -> list[str]:
    """All names that a name with a range stands for; numbers are as wide as the first one."""
    text = value.text()
    match = _RANGE.fullmatch(text)
    names = [text]
    if match is not None:
        first, last = int(match["first"]), int(match["last"])
        if not first <= last < first + most:
            raise value.error(f"'{text[:100]}': a range rises, and {MOST_SERVERS} servers are most")
        width = len(match["first"])
        names = [
            f"{match['before']}{number:0{width}}{match['after']}"
            for number in range(first, last + 1)
        ]
    if not _NAME.fullmatch(names[-1]):
        raise value.error(
            f"'{text[:100]}': write A-Z a-z 0-9 . _ : -, with one range such as [1-10] at most"
        )
    return names


def _server(name: str, fields: Mapping[str, Value]) -> Server:
    return Server(
        name=name,
        cls=_class(fields["class"]) if "class" in fields else "auto",
        milli_cpus=fields["cpus"].milli(MOST_CPUS),
        memory=fields["memory"].size(),
        gpus=_gpus(fields["gpus"]) if "gpus" in fields else None,
        labels=fields["labels"].text_mapping() if "labels" in fields else {},
        drained=fields["drained"].flag() if "drained" in fields else False,
    )


def _class(value: Value) -> Literal["one", "two", "auto"]:
    match value.text():
        case "one" | "two" | "auto" as cls:
            return cls
        case other:
            raise value.error(f"must be one, two or auto, not '{other[:50]}'")


def _gpus(value: Value) -> Gpus | None:
    fields = value.mapping(("model", "count", "memory"))
    for name in ("model", "count"):
        if name not in fields:
            raise value.error(f"has no {name}")
    count = fields["count"].integer(0, MOST_DEVICES)
    memory = fields["memory"].size() if "memory" in fields else 0
    return Gpus(fields["model"].text(), count, memory) if count else None
