"""Containers: the keeper is process 1 in one, so the container lives exactly as long as it does.

When process 1 ends, the kernel ends all that is in its namespace: nothing can stay behind. The
container has processes and shared memory of its own, and sees the machine's files: with bubblewrap
read-only but for the job's folders and the temporary ones, with `unshare` as they are.

To add a tool: a function (writable folders) -> arguments, and a line in TOOLS.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

from ort_optim.errors import InputError

PROBE_S = 10.0


def bubblewrap(writable: Sequence[Path]) -> list[str]:
    """`bwrap`: the files of the machine are read-only, but for `writable`."""
    arguments = ["bwrap", "--unshare-pid", "--unshare-ipc", "--as-pid-1"]
    arguments += ["--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc"]
    temporary = (Path("/tmp"), Path("/var/tmp"), Path(tempfile.gettempdir()))
    # bwrap can't bind a folder to a path with a link in it: the link's target it takes for a path
    # outside of the container.
    for folder in dict.fromkeys(map(os.path.realpath, (*temporary, *writable))):
        arguments += ["--bind-try", folder, folder]
    return [*arguments, "--"]


def unshare(_: Sequence[Path]) -> list[str]:
    """`unshare` of util-linux: namespaces of processes, mounts and shared memory."""
    arguments = ["unshare", "--fork", "--pid", "--ipc", "--mount-proc"]
    if os.geteuid():
        arguments += ["--user", "--map-current-user"]
    return [*arguments, "--"]


TOOLS: dict[str, Callable[[Sequence[Path]], list[str]]] = {
    "bwrap": bubblewrap,
    "unshare": unshare,
}
"""What makes a container, the best first."""


def find_tool(wanted: str | None = None) -> str:
    """The tool to use: `wanted`, or the first that works here.

    Raises InputError: none works, with what each of them said.
    """
    if sys.platform != "linux":
        raise InputError("containers need Linux: leave `container` out of the job")
    if wanted is not None and wanted not in TOOLS:
        raise InputError(f"container tool {wanted!r}: one of {', '.join(TOOLS)}")
    reasons = []
    for tool in [wanted] if wanted else TOOLS:
        reason = _why_not(tool)
        if not reason:
            return tool
        reasons.append(f"{tool}: {reason}")
    raise InputError(
        f"no container can be made here ({'; '.join(reasons)}): install bubblewrap and allow "
        "unprivileged user namespaces, or leave `container` out of the job"
    )


def command(tool: str, argv: Sequence[str], writable: Sequence[Path]) -> list[str]:
    """The command line that runs `argv` as process 1 of a new container.

    Args:
        tool: From `find_tool`.
        writable: Folders that the container may write; those that are absent are left out.
    """
    cache = Path(platformdirs.user_cache_dir())
    return [*TOOLS[tool]([*writable, cache]), *argv]


def container_id() -> str:
    """The id of the container that this process is in: the inode of its process namespace."""
    return Path("/proc/self/ns/pid").readlink().name.removeprefix("pid:[").removesuffix("]")


@functools.cache
def _why_not(tool: str) -> str:
    """Why a tool does not work here; empty when it does."""
    if shutil.which(tool) is None:
        return "not installed"
    check = 'test "$$" = 1'  # process 1 indeed
    try:
        done = subprocess.run(
            [*TOOLS[tool]([]), "/bin/sh", "-c", check],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split())
    if done.returncode:
        return " ".join((done.stderr or f"exit {done.returncode}").split())[:200]
    return ""
