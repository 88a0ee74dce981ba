"""job.json: what a keeper has to run, and under which limits; and what patches make of it.

The supervisor writes it once. Patches are files of their own, `patches/0001.json` and on, applied
in their order at each start; their files were copied into the work folder when they came.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.processes import MARK
from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.keeping.work_folder import WorkFolder, read_ours, write_whole
from ort_optim.cluster.plan import Placement
from ort_optim.errors import InputError

LARGEST_BYTES = 4 << 20
MOST_PATCHES = 1000
PACKAGE_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Spec:
    """What to run, where and under which limits.

    Attributes:
        id, model, output, options, command, target, timeout_s, hold_s: As in Job.
        env: Added to the environment that the keeper has from its starter.
        attempt: Which one of the job, from 1.
        milli_cpus, devices: From the placement.
        memory: Bytes that all processes together may have resident; 0: no limit.
        container: The tool that makes the container; empty: none.
        most_starts: How often the child may be started in all.
        poll_s: How often memory and progress are looked at.
        grace_s: How long processes may take to end by themselves.
    """

    id: str
    model: str = ""
    output: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    target: str = "native"
    timeout_s: float = 600.0
    hold_s: float = 86400.0
    env: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    milli_cpus: int = 1000
    devices: tuple[tuple[int, int], ...] = ()
    memory: int = 0
    container: str = ""
    most_starts: int = 100
    poll_s: float = 0.2
    grace_s: float = 5.0

    @classmethod
    def of(cls, job: Job, placement: Placement, **changes: Any) -> Spec:
        """The spec of a job at its place; `changes` are further fields."""
        return cls(
            id=job.id,
            model=str(job.model.absolute()) if job.model else "",
            output=str(job.output.absolute()) if job.output else "",
            options=dict(job.options),
            command=tuple(job.command),
            target=job.target,
            timeout_s=job.timeout_s,
            hold_s=job.hold_s,
            memory=job.resources.memory,
            milli_cpus=placement.milli_cpus,
            devices=tuple(placement.devices),
            **changes,
        )

    def patched(self, patch: Patch) -> Spec:
        """With what a patch changes, files apart. Raises InputError: it does not fit this job."""
        if self.command and (patch.options or patch.model):
            raise InputError(f"job {self.id} runs a command: options and a model are for others")
        if self.model and patch.command:
            raise InputError(f"job {self.id} optimizes a model: patch its options instead")
        options = {**self.options, **patch.options}
        env: dict[str, str] = dict(self.env)
        for name, value in patch.env.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return dataclasses.replace(
            self,
            options={name: value for name, value in options.items() if value is not None},
            env=env,
            command=patch.command or self.command,
            model=patch.model or self.model,
        )

    def argv(self, folder: WorkFolder) -> tuple[str, ...]:
        """The command line of the child."""
        if not self.model:
            return self.command
        given: dict[str, Any] = {"threads": self.whole_cpus}
        if self.target != "native":
            given["target"] = self.target
        return (
            *(sys.executable, "-P", "-m", "ort_optim", "optimize"),
            # Relative to the child's folder, the work folder, when a patch brought the model.
            *(self.model, self.output),
            *("--work", str(folder.steps), "--report", str(folder.report), "--quiet"),
            *option_arguments({**given, **self.options}),
        )

    def environment(self, folder: WorkFolder, nonce: str) -> dict[str, str]:
        """All of the child's environment. The slot is not for the job to change, so it comes last.

        ORT_OPTIM_DEVICES tells the shares: "0:500" is half of device 0.
        """
        threads = str(self.whole_cpus)
        inherited = dict(os.environ)
        if self.model:
            paths = [str(PACKAGE_ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
            inherited["PYTHONPATH"] = os.pathsep.join(paths)
        return {
            **inherited,
            "OMP_NUM_THREADS": threads,
            **self.env,
            "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index, _ in self.devices),
            "ORT_OPTIM_DEVICES": ",".join(f"{index}:{share}" for index, share in self.devices),
            "ORT_OPTIM_JOB": self.id,
            "ORT_OPTIM_ATTEMPT": str(self.attempt),
            "ORT_OPTIM_WORK": str(folder.work),
            "ORT_OPTIM_PROGRESS": str(folder.progress),
            MARK: nonce,
        }

    @property
    def whole_cpus(self) -> int:
        """Threads to use: CPUs that are wholly the job's, at least one."""
        return max(1, self.milli_cpus // 1000)

    def writable(self, folder: WorkFolder) -> list[Path]:
        """Folders that the job must be able to write outside of the system's temporary ones."""
        places = [folder.path]
        if self.output:
            places.append(Path(self.output).parent)
        return places


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options by name as arguments: true is a flag, a list repeats the option, false is nothing."""
    arguments: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            arguments.append(option)
        elif isinstance(value, Mapping):  # shapes by input name
            for key, item in value.items():
                arguments.append(f"{option}={key}:{_dims(item)}")
        elif isinstance(value, str) or not isinstance(value, Sequence):
            if value is not None and value is not False:
                arguments.append(f"{option}={value}")
        else:
            arguments += [f"{option}={item}" for item in value]
    return arguments


def write_spec(folder: WorkFolder, spec: Spec) -> None:
    """Write job.json."""
    write_whole(folder.job, json.dumps(dataclasses.asdict(spec), indent=1).encode() + b"\n")


def read_spec(folder: WorkFolder) -> Spec:
    """Read job.json, without patches. Raises InputError: damaged, or not ours."""
    values = _read(folder.job)
    try:
        values["command"] = tuple(values["command"])
        values["devices"] = tuple((index, share) for index, share in values["devices"])
        return Spec(**values)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder.job}: damaged: start the job anew") from None


def effective_spec(folder: WorkFolder) -> Spec:
    """job.json with all patches applied. Raises InputError: one is damaged or does not fit."""
    spec = read_spec(folder)
    for path in patch_files(folder):
        values = _read(path)
        try:
            patch = Patch.from_dict({**values["patch"], "files": []})
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: damaged: remove it, and patch again") from None
        spec = spec.patched(patch)
    return spec


def patch_files(folder: WorkFolder) -> list[Path]:
    """The patches so far, in their order."""
    return sorted(folder.patches.glob("[0-9][0-9][0-9][0-9].json"))


def _dims(item: object) -> object:
    if isinstance(item, Sequence) and not isinstance(item, str):
        return "x".join(map(str, item))
    return item


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_ours(path, LARGEST_BYTES))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged: start the job anew") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: damaged: start the job anew")
    return values
