"""Who outlives whom: keepers, the jobs they keep, their starters, nodes, folders and disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
refusals = [None] * 5
real = job_keeper.write_state
def write_state(folder, record):
    if record.state == "HELD" and refusals:
        refusals.pop()
        raise OSError(errno.ENOSPC, "No space left on device")
    real(folder, record)
job_keeper.write_state = write_state
sys.stderr = open("/dev/full", "w")
keeper.main([sys.argv[1], "--inside"])
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_state_that_finds_the_disk_full_is_written_when_there_is_room(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    write_spec(folder, Spec("job", command=("sh", "-c", "exit 3"), poll_s=0.05))
    command = [sys.executable, "-c", FULL_DISK, str(folder.path)]
    with subprocess.Popen(command, env=environment()):
        until(lambda: folder.state.exists() and read_state(folder).state is State.HELD)
        assert Supervisor(folder.path).status().fault is Fault.VERIFICATION
        assert Supervisor(folder.path).release().state is State.FAILED


def test_a_keeper_ends_when_its_folder_is_removed(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600")
    shutil.rmtree(supervisor.folder)
    until(lambda: not jobs.left())


def test_a_keeper_that_is_told_to_end_loses_the_job(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600")
    os.kill(keeper_pid(supervisor), signal.SIGTERM)
    assert jobs.settled(supervisor).state is State.LOST
    assert not jobs.left()
