"""Who outlives whom: keepers, the jobs they keep, their starters, nodes, folders and disks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from ort_optim.cluster.keeping import leftovers
from ort_optim.cluster.keeping import supervisor as supervisors
from ort_optim.cluster.keeping.spec import Spec, write_spec
from ort_optim.cluster.keeping.state_file import read_state
from ort_optim.cluster.keeping.status import Fault, Patch
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, is_running, keeper_pid, until
from tests.toolbox import environment


def test_the_job_ends_with_its_node(jobs: Jobs) -> None:
    node = subprocess.Popen(["sleep", "600"])
    supervisor = jobs.start("sleep", "601", fence_pid=node.pid)
    child = supervisor.status().pid
    assert child is not None
    node.kill()
    node.wait()
    status = jobs.settled(supervisor)
    assert (status.state, status.cause) == (State.LOST, "its node ended")
    assert not is_running(child)


def test_a_node_that_is_gone_already_starts_nothing(jobs: Jobs) -> None:
    node = subprocess.Popen(["true"])
    node.wait()
    with pytest.raises(InputError, match=f"there is no process {node.pid}"):
        jobs.start("sleep", "600", fence_pid=node.pid)


STARTER = """
import os, pathlib, signal, sys
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.keeping.supervisor import Supervisor
supervisor = Supervisor(pathlib.Path(sys.argv[1]))
supervisor.start(Job("job", command=("sh", "-c", "sleep 0.3; exit 1")), Placement("a", 500, 0))
os.killpg(0, signal.SIGKILL)
"""


def test_the_keeper_outlives_its_starter_and_is_found_again(jobs: Jobs) -> None:
    folder = jobs.folder / "job"
    starter = subprocess.run(
        [sys.executable, "-c", STARTER, str(folder)],
        env=environment(RAY_JOB_ID="7"),
        start_new_session=True,
        check=False,
    )
    assert starter.returncode == -signal.SIGKILL
    supervisor = Supervisor(folder)
    assert supervisor.attach().state in (State.RUNNING, State.HELD)
    assert jobs.settled(supervisor).cause == "exit 1"
    supervisor.restart(Patch(command=("sh", "-c", 'test -z "$RAY_JOB_ID"')))
    assert jobs.settled(supervisor).state is State.DONE


def test_a_killed_keeper_loses_the_job_and_leaves_no_process(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "setsid setsid sleep 601 & sleep 602")
    until(lambda: len(supervisor.processes()) == 3)
    run = read_state(WorkFolder(supervisor.folder)).run
    os.kill(keeper_pid(supervisor), signal.SIGKILL)
    status = jobs.settled(supervisor)
    assert (status.state, status.cause) == (State.LOST, "its keeper was killed")
    assert not jobs.left()
    assert not Path(run).exists()
    again = supervisor.status()
    assert again == status


def test_a_lost_job_starts_its_next_attempt_in_the_same_folder(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "touch mark; sleep 600")
    until((supervisor.folder / "work" / "mark").exists)
    os.kill(keeper_pid(supervisor), signal.SIGKILL)
    assert jobs.settled(supervisor).state is State.LOST
    supervisor = jobs.start("sh", "-c", "test -e mark", attempt=2)
    status = jobs.settled(supervisor)
    assert (status.state, status.attempt, status.start) == (State.DONE, 2, 1)


def test_what_a_dead_keeper_left_does_not_meet_the_next_attempt(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "setsid sleep 601 & sleep 602")
    until(lambda: len(supervisor.processes()) == 3)
    os.kill(keeper_pid(supervisor), signal.SIGKILL)
    until(lambda: len(jobs.left()) < 3)
    jobs.start("true", attempt=2)
    until(lambda: not jobs.left())


def test_two_who_stop_a_job_both_see_it_stopped(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "trap '' TERM; echo ready; sleep 600 & wait; wait")
    until(lambda: "ready" in supervisor.log())
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda _: supervisor.stop().state, range(4)))
    assert set(ends) == {State.CANCELLED}


def test_a_folder_has_one_keeper(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600")
    with pytest.raises(InputError, match="a keeper has it already"):
        jobs.start("sleep", "600")
    assert supervisor.status().state is State.RUNNING


FULL_DISK = """
import errno, os, sys
from ort_optim.cluster.keeping import job_keeper, keeper
real = job_keeper.write_state
def write_state(folder, record):
    if (folder.path / "full").exists() and record.state != "RUNNING":
        raise OSError(errno.ENOSPC, "No space left on device")
    real(folder, record)
job_keeper.write_state = write_state
sys.stderr = open("/dev/full", "w")
keeper.main([sys.argv[1], "--inside"])
"""


@pytest.fixture
def on_a_full_disk(tmp_path: Path) -> Iterator[Callable[[str], Supervisor]]:
    """Starts jobs in a folder where only their start can be written while `full` is there."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    (folder.path / "full").touch()
    keepers = []

    def start(script: str) -> Supervisor:
        write_spec(folder, Spec("job", command=("sh", "-c", script), poll_s=0.05))
        command = [sys.executable, "-c", FULL_DISK, str(folder.path)]
        keepers.append(subprocess.Popen(command, env=environment()))
        until(folder.state.exists)
        return Supervisor(folder.path)

    yield start
    for keeper in keepers:
        keeper.kill()
        keeper.wait()


def test_a_state_that_finds_the_disk_full_is_told_and_written_when_there_is_room(
    on_a_full_disk: Callable[[str], Supervisor],
) -> None:
    supervisor = on_a_full_disk("exit 3")
    until(lambda: supervisor.status().fault is Fault.VERIFICATION)
    assert read_state(WorkFolder(supervisor.folder)).state is State.RUNNING
    (supervisor.folder / "full").unlink()
    until(lambda: read_state(WorkFolder(supervisor.folder)).state is State.HELD)
    assert supervisor.release().state is State.FAILED


def test_a_stop_is_told_although_the_disk_is_full(
    on_a_full_disk: Callable[[str], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "END_S", 0.5)
    supervisor = on_a_full_disk("sleep 600")
    assert supervisor.stop().state is State.CANCELLED
    assert supervisor.stop().state is State.CANCELLED
    (supervisor.folder / "full").unlink()
    until(lambda: read_state(WorkFolder(supervisor.folder)).state is State.CANCELLED)


def test_a_killed_keeper_is_told_although_the_disk_is_full(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = jobs.start("sleep", "600")
    os.kill(keeper_pid(supervisor), signal.SIGKILL)
    with monkeypatch.context() as full:
        full.setattr(leftovers, "write_state", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        assert jobs.settled(supervisor).state is State.LOST
        assert not jobs.left()
    assert supervisor.status().state is State.LOST
    assert read_state(WorkFolder(supervisor.folder)).state is State.LOST


def test_a_keeper_ends_when_its_folder_is_removed(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600")
    shutil.rmtree(supervisor.folder)
    until(lambda: not jobs.left())


def test_a_keeper_that_is_told_to_end_loses_the_job(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600")
    os.kill(keeper_pid(supervisor), signal.SIGTERM)
    assert jobs.settled(supervisor).state is State.LOST
    assert not jobs.left()
