"""The jobs of a batch, as a job file describes them.

Resources, Job, JobFile     the data
read_jobs                   a job file, checked as a whole before anything is started
"""

from __future__ import annotations

import graphlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ort_optim.cluster.documents import Value, read_document
from ort_optim.errors import InputError

VERSION = 1

MOST_CPUS = 100_000
MOST_GPUS = 100_000
MOST_SERVERS = 100_000
MOST_PRIORITY = 1000
"""More than this of one thing is a slip of the pen."""

RESOURCES = ("servers", "cpus", "gpus", "memory", "gpu_memory", "gpu_model", "labels")
SHARED = (
    *("resources", "options", "env", "target", "priority", "duration", "owner"),
    *("container", "timeout", "hold"),
)
"""Fields of a job that may stand in `defaults`, too."""

MERGED = ("resources", "options", "env")
"""Of these the defaults count field by field."""

FIELDS = ("id", "model", "output", "command", "after", *SHARED)

_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_VARIABLE = re.compile(r"[^=\0]+")

_READERS: Mapping[str, tuple[str, Callable[[Value], Any]]] = {
    "priority": ("priority", lambda value: value.integer(-MOST_PRIORITY, MOST_PRIORITY)),
    "owner": ("owner", Value.text),
    "container": ("container", Value.flag),
    "after": ("after", lambda value: tuple(dict.fromkeys(value.texts()))),
    "duration": ("duration_s", Value.duration),
    "timeout": ("timeout_s", Value.duration),
    "hold": ("hold_s", Value.duration),
}
"""Plain fields: what they are called in `Job`, and how they are read."""

OptionCheck = Callable[[Mapping[str, Any], Path], Mapping[str, Any]]
"""Options of `optimize`, and the folder that files among them count from, to the options as they
are to be given. Raises InputError, which names the option, unless `optimize` takes them."""


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
        model, output: Files, by their whole paths; both or neither.
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


def read_jobs(path: Path, check_options: OptionCheck | None = None) -> JobFile:
    """The jobs of a YAML file.

    Args:
        path: Paths in it count from its folder.
        check_options: Called with the options of each model, as this module knows no command line;
            `ort_optim.cli.batch.job_file.load_jobs` gives the one that asks `optimize` itself.

    Raises InputError in one line that names file, line and field: for what is not YAML, unknown or
    missing fields, wrong types, duplicate ids, unknown ids and cycles in `after`, amounts out of
    range, missing models, and two jobs that write the same file.
    """
    document = read_document(path).mapping(("version", "defaults", "jobs"))
    check_version(document, path, VERSION)
    if "jobs" not in document:
        raise InputError(f"{path}: has no `jobs`")
    defaults = document["defaults"].mapping(SHARED) if "defaults" in document else {}
    jobs: dict[str, Job] = {}
    places: dict[str, Value] = {}
    for value in document["jobs"].items():
        job = _job(value, defaults, path.parent, check_options)
        if job.id in jobs:
            raise value.error(f"id '{job.id}' is taken by the job on line {places[job.id].line}")
        jobs[job.id] = job
        places[job.id] = value
    if not jobs:
        raise document["jobs"].error("lists no job")
    _check_after(jobs, places)
    _check_files(jobs, places)
    return JobFile(path, tuple(jobs.values()))


def check_version(document: Mapping[str, Value], path: Path, known: int) -> None:
    """Raises InputError unless a file says that it is of the version that this program reads."""
    if "version" not in document:
        raise InputError(f"{path}: has no `version`: write `version: {known}`")
    version = document["version"]
    if type(version.content) is not int or version.content != known:
        raise version.error(f"this program reads version {known}, not '{version.raw[:20]}'")


def _job(
    value: Value, defaults: Mapping[str, Value], folder: Path, check_options: OptionCheck | None
) -> Job:
    own = value.mapping(FIELDS)
    fields = {**defaults, **own}
    if "id" not in own:
        raise value.error("has no id")
    name = own["id"].text()
    if not _ID.fullmatch(name) or name in (".", ".."):
        raise own["id"].error(f"'{name[:100]}': write 1 to 100 of A-Z a-z 0-9 . _ -")
    model, output, command = _work(value, own, folder)
    given = _merged("options", own, defaults) if model else {}
    options: Mapping[str, Any] = {key: each.plain() for key, each in given.items()}
    if check_options is not None and model is not None:
        try:
            options = check_options(options, folder)
        except InputError as error:
            raise fields.get("options", value).error(str(error)) from None
    target = _target(fields["target"], folder) if model and "target" in fields else "native"
    rest: dict[str, Any] = {
        field: read(fields[key]) for key, (field, read) in _READERS.items() if key in fields
    }
    return Job(
        id=name,
        model=model,
        output=output,
        options=options,
        command=command,
        target=target,
        resources=_resources(value, own, defaults),
        env=_environment(_merged("env", own, defaults)),
        **rest,
    )


def _work(
    value: Value, own: Mapping[str, Value], folder: Path
) -> tuple[Path | None, Path | None, tuple[str, ...]]:
    """Model and output, or a command."""
    if "command" in own:
        for name in ("model", "output", "options", "target"):
            if name in own:
                raise own[name].error("belongs to a model, and this job has a command")
        command = own["command"].texts()
        if not command or not command[0]:
            raise own["command"].error("must name a program, as in [python, count.py]")
        return None, None, command
    for name in ("model", "output"):
        if name not in own:
            raise value.error(f"has no {name}: give model and output, or a command")
        if not own[name].text():
            raise own[name].error("must not be empty")
    model, output = (folder.absolute() / own[name].text() for name in ("model", "output"))
    return model, output, ()


def _target(value: Value, folder: Path) -> str:
    """A name, or the whole path of a file of facts."""
    text = value.text()
    if not text.endswith(".json"):
        return text
    path = folder.absolute() / text
    if not path.is_file():
        raise value.error(f"{text}: there is no such file")
    return str(path)


def _merged(name: str, own: Mapping[str, Value], defaults: Mapping[str, Value]) -> dict[str, Value]:
    known = RESOURCES if name == "resources" else None
    return {
        **(defaults[name].mapping(known) if name in defaults else {}),
        **(own[name].mapping(known) if name in own else {}),
    }


def _environment(fields: Mapping[str, Value]) -> dict[str, str]:
    for name, value in fields.items():
        if not _VARIABLE.fullmatch(name):
            raise value.error("is no name of an environment variable")
    return {name: value.text() for name, value in fields.items()}


def _resources(value: Value, own: Mapping[str, Value], defaults: Mapping[str, Value]) -> Resources:
    fields = _merged("resources", own, defaults)
    amounts: dict[str, Any] = {}
    if "servers" in fields:
        amounts["servers"] = fields["servers"].integer(0, MOST_SERVERS)
    if "cpus" in fields:
        amounts["milli_cpus"] = fields["cpus"].milli(MOST_CPUS)
    if "gpus" in fields:
        amounts["milli_gpus"] = milli = fields["gpus"].milli(MOST_GPUS)
        if milli > 1000 and milli % 1000:
            raise fields["gpus"].error(
                f"{fields['gpus'].raw}: a share of one device is below 1; several are whole ones"
            )
    if not amounts.get("milli_gpus") and not (amounts.get("servers") and "gpus" not in fields):
        asked = own["resources"].mapping() if "resources" in own else {}
        for name in ("gpu_model", "gpu_memory"):
            if name in asked:
                raise asked[name].error("needs `gpus`, too: this job asks for none")
            fields.pop(name, None)  # of the defaults: for the jobs that have GPUs
    for name in ("memory", "gpu_memory"):
        if name in fields:
            amounts[name] = fields[name].size()
    if "gpu_model" in fields:
        models = fields["gpu_model"]
        listed = isinstance(models.content, list)
        amounts["gpu_models"] = frozenset(models.texts() if listed else (models.text(),))
        if not amounts["gpu_models"]:
            raise models.error("lists no model: leave it out if any will do")
    if "labels" in fields:
        amounts["labels"] = fields["labels"].text_mapping()
    return Resources(**amounts)


def _check_after(jobs: Mapping[str, Job], places: Mapping[str, Value]) -> None:
    for job in jobs.values():
        for other in job.after:
            if other not in jobs:
                raise places[job.id].error(f"after: there is no job '{other}'")
    try:
        graphlib.TopologicalSorter({job.id: job.after for job in jobs.values()}).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
        raise places[cycle[0]].error(f"cycle in `after`: {' <- '.join(cycle)}") from None


def _check_files(jobs: Mapping[str, Job], places: Mapping[str, Value]) -> None:
    """Models are there, or will be, and no file is written while another job reads or writes it."""
    writers: dict[str, str] = {}
    for job in jobs.values():
        if job.output is not None:
            if job.output.is_dir():
                raise places[job.id].error(f"output {job.output} is a folder: name a file")
            other = writers.setdefault(os.path.realpath(job.output), job.id)
            if other != job.id:
                raise places[job.id].error(f"output {job.output}: job '{other}' writes it, too")
    for job in jobs.values():
        if job.model is None:
            continue
        writer = writers.get(os.path.realpath(job.model), job.id)
        if writer in _waited_for(job, jobs):
            continue
        there = job.model.is_file()
        if writer == job.id and not there:
            raise places[job.id].error(f"model {job.model}: there is no such file")
        if writer != job.id and not (there and job.id in _waited_for(jobs[writer], jobs)):
            raise places[job.id].error(
                f"model {job.model}: job '{writer}' writes it: add it to `after`"
            )


def _waited_for(job: Job, jobs: Mapping[str, Job]) -> set[str]:
    """Ids of the jobs that end before this one starts."""
    found: set[str] = set()
    waiting = list(job.after)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(jobs[each].after)
    return found
