"""Jobs in real keepers, which are all gone when a test ends."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping import processes
from ort_optim.cluster.keeping.control import Client
from ort_optim.cluster.keeping.state_file import read_state
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.plan import Placement
from ort_optim.errors import OrtOptimError

PATIENCE_S = 60.0
PLACE = Placement("here", 500, 0)


def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds; what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return value


def keeper_pid(supervisor: Supervisor) -> int:
    """The keeper's process as seen from here."""
    with Client(read_state(WorkFolder(supervisor.folder)).socket, 10.0) as client:
        pid = client.keeper_pid()
    assert pid is not None
    return pid


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Jobs:
    """Starts jobs in folders below one, and tells what becomes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nonces: set[str] = set()

    def start(self, *argv: str, name: str = "job", **options: Any) -> Supervisor:
        """A supervisor whose job runs a command; `options` are of Job, and of Supervisor.start."""
        names = ("attempt", "fence_pid", "env_of_starter", "container_tool", "most_starts")
        given = {key: options.pop(key) for key in names if key in options}
        if "env_of_starter" in given:
            given["env"] = given.pop("env_of_starter")
        place = options.pop("place", PLACE)
        supervisor = Supervisor(self.folder / name)
        job = Job(name, command=argv, **options)
        supervisor.start(job, place, poll_s=0.05, grace_s=0.3, **given)
        self._nonces.add(read_state(WorkFolder(supervisor.folder)).nonce)
        return supervisor

    def python(self, code: str, **options: Any) -> Supervisor:
        """The same for a piece of Python."""
        return self.start(sys.executable, "-c", code, **options)

    def settled(self, supervisor: Supervisor) -> Status:
        """The status once the job does not run any more."""
        return until(lambda: (s := supervisor.status()).state != "RUNNING" and s)

    def left(self) -> list[int]:
        """Processes that any of the jobs left."""
        return [pid for nonce in self._nonces for pid in processes.marked(nonce)]

    def close(self) -> None:
        for folder in self.folder.iterdir():
            with contextlib.suppress(OrtOptimError):
                Supervisor(folder).stop()
        processes.kill(self.left, lambda: None)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    folder = tmp_path / "jobs"
    folder.mkdir()
    bench = Jobs(folder)
    try:
        yield bench
    finally:
        bench.close()
