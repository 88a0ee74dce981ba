"""Models, data and outputs as parcels, for servers that share no file system with the submitter.

A parcel goes through Ray's object store: the model with its external data and the files that its
options name to the server, the output with its data, the report, the log and the archive back.
Files that commands use are not known, so commands must find theirs on the server.
"""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.work_folder import check_ours, read_ours, write_whole
from ort_optim.errors import InputError

INPUTS = "inputs"
OUTPUTS = "outputs"
RECORDS = ("report.json", "log", "archive.tar.gz")


@dataclass(frozen=True)
class Parcel:
    """Files by their names relative to a folder; no name leaves it."""

    files: Mapping[str, bytes]


def pack(job: Job) -> Parcel:
    """What a job reads. Raises InputError: a file of it can't be read."""
    files: dict[str, bytes] = {}
    if job.model is not None:
        for name in (job.model.name, *_external_files(job.model)):
            files[f"model/{name}"] = _read(job.model.parent / name)
        for option, value in _paths(job.options):
            for path in sorted(value.rglob("*")) if value.is_dir() else [value]:
                if path.is_file():
                    inside = path.relative_to(value.parent)
                    files[f"options/{option}/{inside.as_posix()}"] = _read(path)
    return Parcel(files)


def unpack(parcel: Parcel, job: Job, folder: Path) -> Job:
    """Write what a job reads below its folder; the job as it finds its files there."""
    inputs, outputs = folder / INPUTS, folder / OUTPUTS
    shared = Path(tempfile.gettempdir())
    own = [each for each in folder.parents if each != shared and each.is_relative_to(shared)]
    for each in (*reversed(own), folder, inputs, outputs):
        each.mkdir(mode=0o700, exist_ok=True)
        check_ours(each, each.lstat(), stat.S_ISDIR)
    _write(parcel.files, inputs)
    if job.model is None or job.output is None:
        return job
    moved = {
        option: str(inputs / "options" / option / value.name)
        for option, value in _paths(job.options)
    }
    return replace(
        job,
        model=inputs / "model" / job.model.name,
        output=outputs / job.output.name,
        options={**job.options, **moved},
    )


def collect(job: Job, folder: Path) -> Parcel:
    """What a job wrote, in the folder that `unpack` made."""
    outputs = folder / OUTPUTS
    files = {
        f"{OUTPUTS}/{path.name}": _own(path)
        for path in sorted(outputs.glob("*"))
        if path.is_file() and not path.is_symlink()
    }
    for name in RECORDS:
        if (folder / name).is_file():
            files[name] = _own(folder / name)
    return Parcel(files)


def deliver(parcel: Parcel, job: Job, folder: Path) -> None:
    """Put what a job wrote where its job file wants it; reports and logs into `folder`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write({name: parcel.files[name] for name in RECORDS if name in parcel.files}, folder)
    if job.output is None:
        return
    job.output.parent.mkdir(parents=True, exist_ok=True)
    written = {
        name.removeprefix(f"{OUTPUTS}/"): content
        for name, content in parcel.files.items()
        if name.startswith(f"{OUTPUTS}/")
    }
    model = written.pop(job.output.name, None)
    if model is not None:  # last, when all that it refers to is there
        written[job.output.name] = model
    _write(written, job.output.parent)
    for name in written:
        (job.output.parent / name).chmod(0o644)


def _paths(options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The options that name files or folders that are there."""
    for option, value in options.items():
        if isinstance(value, str) and Path(value).is_absolute() and Path(value).exists():
            yield option, Path(value)


def _external_files(model: Path) -> list[str]:
    """Names of the files that hold weights of the model, relative to its folder."""
    import onnx

    from ort_optim.graph.walk import tensors
    from ort_optim.graph.weights import is_external, resolve_location

    try:
        proto = onnx.load(model, load_external_data=False)
    except Exception:  # not a model: `optimize` says so better than we could
        return []
    locations = {
        (entry.value, tensor.name)
        for tensor in tensors(proto)
        if is_external(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for location, name in locations:
        resolve_location(location, model.parent, name)  # refuses what leaves the folder
    return sorted({location for location, _ in locations})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: it can't be sent to a server") from None


def _own(path: Path) -> bytes:
    return read_ours(path, path.lstat().st_size)


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{name}: leaves the folder of the job: refused")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, content)
