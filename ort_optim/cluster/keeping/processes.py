"""The processes of a job: who they are, how much memory they have; stop, continue and kill them.

Linux tells the children of a process in /proc; where it does not (macOS, kernels without
CONFIG_PROC_CHILDREN) psutil looks through all processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
LONGEST_STACK = 4096
PAUSE_S = 0.002
SURE_MISSES = 2
"""A list of children that is read while one of them ends may lack another: look twice."""

MARK = "ORT_OPTIM_KEEPER"

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> bool:
    """Make processes whose parents end children of this one; whether the system can (Linux)."""
    return _libc is not None and _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def die_with_parent() -> None:
    """For a child between fork and exec: be killed when the parent dies (Linux)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def started(pid: int) -> str:
    """When a process started, in a form that only equality means something of; "" if it is gone."""
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[19]
    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.2f}"
    return ""


def descendants(pid: int, *, spare: Iterable[int] = ()) -> list[int]:
    """All processes below `pid`, parents first, without the trees of those to spare."""
    spared = set(spare)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop(0)):
            if child not in spared:
                found.append(child)
                waiting.append(child)
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory that the processes have resident; what they share is counted for each."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except OSError:
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
    return total


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each of the processes that still is there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def freeze(find: Callable[[], list[int]], rounds: int = 20) -> list[int]:
    """Stop all processes that `find` finds, also those that are born meanwhile."""
    stopped: set[int] = set()
    for _ in range(rounds):
        fresh = [pid for pid in find() if pid not in stopped]
        if not fresh:
            break
        send(fresh, signal.SIGSTOP)
        stopped.update(fresh)
    return sorted(stopped)


def kill(
    find: Callable[[], list[int]], reap: Callable[[], object], limit_s: float = 10.0
) -> list[int]:
    """Kill all processes that `find` finds until none is found; returns those that stay.

    Stopped before they are killed, they can't make new ones faster than they are found. One that
    hangs in the kernel (a dead network disk) may outlast the limit.
    """
    deadline = time.monotonic() + limit_s
    misses = 0
    while misses < SURE_MISSES:
        freeze(find)
        pids = find()
        misses = 0 if pids else misses + 1
        send(pids, signal.SIGKILL)
        reap()
        if pids:
            if time.monotonic() > deadline:
                return pids
            time.sleep(PAUSE_S)
    return []


def marked(nonce: str) -> list[int]:
    """Processes of this user that a keeper with this nonce started, wherever they went."""
    mark = f"{MARK}={nonce}".encode()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if sys.platform == "linux":
                environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if mark in environment:
                    found.append(process.pid)
            elif process.environ().get(MARK) == nonce:
                found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]


def describe(pid: int) -> dict[str, Any] | None:
    """What there is to know of a process; None if it is gone. The stack needs a privilege."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            facts: dict[str, Any] = {
                "pid": pid,
                "parent": process.ppid(),
                "name": process.name(),
                "state": process.status(),
                "threads": process.num_threads(),
                "memory": process.memory_info().rss,
                "command": process.cmdline(),
            }
    except psutil.Error:
        return None
    for name, file in (("waits_in", "wchan"), ("stack", "stack")):
        text = ""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/{file}").read_text(errors="replace")[:LONGEST_STACK]
        facts[name] = text
    return facts


def kernel_kills() -> int:
    """How many processes of this control group the kernel killed for want of memory.

    Where no control group tells, those of the whole machine count. Compare two calls.
    """
    groups = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            groups[names] = path
    if "memory" in groups:
        base, name, path = "/sys/fs/cgroup/memory", "memory.oom_control", groups["memory"]
    else:
        base, name, path = "/sys/fs/cgroup", "memory.events", groups.get("", "/")
    for place in (f"{base}{path}/{name}", f"{base}/{name}", "/proc/vmstat"):
        with contextlib.suppress(OSError):
            for line in Path(place).read_text().splitlines():
                word, _, count = line.partition(" ")
                if word == "oom_kill":
                    return int(count)
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        with os.scandir(f"/proc/{pid}/task") as threads:
            for thread in threads:
                text = Path(f"{thread.path}/children").read_text()
                found += map(int, text.split())
    except FileNotFoundError:
        if _OWN_CHILDREN.exists():
            return found  # it ended
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
    except OSError:
        return found
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the name may hold any character."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


_OWN_CHILDREN = Path("/proc/thread-self/children")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
