"""Patches: checked as a whole, then applied; each is kept as a file that later starts read."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time

from ort_optim.cluster.keeping.spec import MOST_PATCHES, effective_spec, patch_files
from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.keeping.work_folder import WorkFolder, write_whole
from ort_optim.errors import InputError

OURS = frozenset({"work", "quiet", "debug", "help"})
"""Options that the keeper gives itself, and those that make no sense in a job."""

_one_at_a_time = threading.Lock()  # a supervisor actor serves several clients at once
_OPTION = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def apply_patch(folder: WorkFolder, patch: Patch) -> None:
    """Copy the files of a patch into the work folder, and keep the rest for the next start.

    Whether `optimize` takes the options is for the caller to check, who knows the command line;
    if it does not, the next start is held again.

    Raises InputError, with nothing changed: it is empty, does not fit the job, or names something
    that is no option, a path that leaves the work folder, or a source that can't be read.
    """
    if not patch:
        raise InputError("the patch changes nothing: give an option, a variable or a file")
    with _one_at_a_time:
        _apply(folder, patch)


def _apply(folder: WorkFolder, patch: Patch) -> None:
    effective_spec(folder).patched(patch)
    _check_names(patch)
    if len(patch_files(folder)) >= MOST_PATCHES:
        raise InputError(f"{folder.patches}: {MOST_PATCHES} patches already: release the job")
    contents = []
    for file in patch.files:
        folder.check_destination(file.destination)
        try:
            contents.append(file.read())
        except OSError as error:
            raise InputError(f"{file.source!s}: {error.strerror}: name a readable file") from None
    for file, content in zip(patch.files, contents, strict=True):
        folder.copy_in(file.destination, content, executable=file.is_executable())
    number = 1 + max((int(path.stem) for path in patch_files(folder)), default=0)
    record = {
        "at_s": time.time(),
        "patch": Patch(patch.options, patch.env, patch.command, patch.model).to_dict(),
        "files": [
            {"destination": file.destination, "sha256": hashlib.sha256(content).hexdigest()}
            for file, content in zip(patch.files, contents, strict=True)
        ],
    }
    text = json.dumps(record, indent=1)
    write_whole(folder.patches / f"{number:04}.json", text.encode() + b"\n")


def _check_names(patch: Patch) -> None:
    for name in patch.options:
        if not _OPTION.fullmatch(name) or name.replace("_", "-") in OURS:
            raise InputError(f"option {name!r}: give one of `optimize` by its long name")
    for name, value in patch.env.items():
        if not name or "=" in name or "\0" in name or "\0" in (value or ""):
            raise InputError(f"{name!r}: not the name of an environment variable with its value")
    if any("\0" in word for word in patch.command) or "\0" in patch.model:
        raise InputError("a NUL character can't be in a command or a path")
