"""The life of a job in its keeper: ends, faults, holds and restarts."""

from __future__ import annotations

import psutil
import pytest

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.keeping.status import Fault, Patch
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, is_running, keeper_pid, until

MIB = 2**20
HOG = "import time; x = b'1' * (200 << 20); print('full', flush=True); time.sleep(600)"
TWO_HOGS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOG!r}])"

FAULTS = {
    "exit 1": ("exit 1", {}, Fault.EXIT, "exit 1"),
    "exit 2": ("exit 2", {}, Fault.BAD_INPUT, "bad option or input (exit 2)"),
    "exit 3": ("exit 3", {}, Fault.VERIFICATION, "verification failed (exit 3)"),
    "killed": ("kill -KILL $$", {}, Fault.SIGNAL, "signal SIGKILL"),
    "crashed": ("kill -SEGV $$", {}, Fault.SIGNAL, "signal SIGSEGV"),
    "hung": (
        "sleep 600",
        {"timeout_s": 0.2},
        Fault.NO_PROGRESS,
        "no progress for 0.2 s: stopped, its memory kept",
    ),
}


def limited(size: int) -> Resources:
    return Resources(memory=size)


def test_a_job_that_ends_well_is_done_and_its_keeper_gone(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "echo one; echo two >&2")
    status = jobs.settled(supervisor)
    assert (status.state, status.cause, status.fault) == (State.DONE, "", None)
    assert status.log_tail.splitlines()[-2:] == ["one", "two"]
    assert "start 1 of attempt 1" in status.log_tail
    until(lambda: not jobs.left())
    assert Supervisor(supervisor.folder).attach() == status


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_held_with_its_cause(jobs: Jobs, name: str) -> None:
    script, options, fault, cause = FAULTS[name]
    status = jobs.settled(jobs.start("sh", "-c", script, **options))
    assert (status.state, status.fault, status.cause) == (State.HELD, fault, cause)
    assert status.start == 1
    assert status.frozen == (name == "hung")


@pytest.mark.parametrize("code", [HOG, TWO_HOGS], ids=["one process", "a child of it"])
def test_more_memory_than_the_limit_is_held(jobs: Jobs, code: str) -> None:
    supervisor = jobs.python(code, resources=limited(150 * MIB))
    status = jobs.settled(supervisor)
    assert (status.state, status.fault) == (State.HELD, Fault.MEMORY)
    assert status.cause.startswith("memory limit: ")
    assert status.cause.endswith(" of 150 MiB")
    assert supervisor.processes() == []


def test_less_memory_than_the_limit_is_no_fault(jobs: Jobs) -> None:
    supervisor = jobs.python(HOG, resources=limited(2000 * MIB))
    until(lambda: "full" in supervisor.log())
    status = until(lambda: (s := supervisor.status()).memory > 200 * MIB and s)
    assert status.state is State.RUNNING


def test_a_program_that_is_not_there_is_held_and_can_be_replaced(jobs: Jobs) -> None:
    supervisor = jobs.start("no-such-program-at-all")
    status = supervisor.status()
    assert (status.state, status.fault) == (State.HELD, Fault.NOT_STARTED)
    assert status.cause == "not started: no-such-program-at-all: No such file or directory"
    supervisor.restart(Patch(command=("true",)))
    assert jobs.settled(supervisor).state is State.DONE


def test_a_work_folder_that_the_job_removed_is_what_the_cause_names(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "rm -r ../work; exit 1")
    jobs.settled(supervisor)
    work = f"{supervisor.folder}/work"
    assert supervisor.restart().cause == f"not started: {work}: No such file or directory"
    with pytest.raises(InputError, match=f"No such file or directory: '{work}'$"):
        supervisor.debug(["true"])


@pytest.mark.parametrize("trick", ["mkfifo", "ln -s /etc/passwd"])
def test_a_log_that_the_job_replaced_is_not_followed(jobs: Jobs, trick: str) -> None:
    supervisor = jobs.start("sh", "-c", f"rm ../log; {trick} ../log; exit 1")
    assert jobs.settled(supervisor).cause == "exit 1"
    status = supervisor.restart()
    assert (status.state, status.fault) == (State.HELD, Fault.NOT_STARTED)
    assert supervisor.log() == ""


def test_a_frozen_job_keeps_its_process_and_goes_on_where_it_was(jobs: Jobs) -> None:
    code = (
        "import pathlib, time\n"
        "memory = 'kept'\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "print(memory)\n"
    )
    supervisor = jobs.python(code, timeout_s=0.3)
    status = jobs.settled(supervisor)
    assert status.frozen
    assert status.pid is not None
    assert psutil.Process(status.pid).status() == psutil.STATUS_STOPPED
    (supervisor.folder / "work" / "go").touch()
    resumed = supervisor.resume()
    assert (resumed.pid, resumed.start, resumed.frozen) == (status.pid, 1, False)
    done = jobs.settled(supervisor)
    assert (done.state, done.log_tail.splitlines()[-1]) == (State.DONE, "kept")


def test_all_processes_of_a_frozen_job_are_stopped(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "setsid sleep 601 & sleep 602 & wait", timeout_s=0.3)
    assert jobs.settled(supervisor).frozen
    found = supervisor.processes()
    assert len(found) == 3
    assert {facts["state"] for facts in found} == {"stopped"}


def test_only_a_frozen_job_can_be_continued(jobs: Jobs) -> None:
    supervisor = jobs.start("false")
    jobs.settled(supervisor)
    with pytest.raises(InputError, match="no frozen process"):
        supervisor.resume()


@pytest.mark.parametrize(
    "sign", ["echo more", 'touch "$ORT_OPTIM_PROGRESS"', "mkdir -p steps; touch steps/progress"]
)
def test_a_sign_of_life_is_progress(jobs: Jobs, sign: str) -> None:
    script = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {sign}; sleep 0.15; done"
    status = jobs.settled(jobs.start("sh", "-c", script, timeout_s=1.2))
    assert status.state is State.DONE, status.cause


def test_what_the_child_leaves_behind_is_killed_when_it_fails(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "setsid sh -c 'sleep 601 & sleep 602' & sleep 0.1; exit 1")
    assert jobs.settled(supervisor).state is State.HELD
    assert supervisor.processes() == []
    assert not jobs.left()


def test_a_daemon_does_not_outlive_a_release(jobs: Jobs) -> None:
    daemon = (
        "import os, time\n"
        "if os.fork(): time.sleep(600)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "os.closerange(0, 100)\n"
        "time.sleep(600)\n"
    )
    supervisor = jobs.python(daemon)
    until(lambda: len(supervisor.processes()) == 2)
    assert supervisor.release().state is State.CANCELLED
    assert not jobs.left()


def test_a_fork_bomb_is_ended(jobs: Jobs) -> None:
    code = (
        "import os, time\n"
        "for _ in range(60):\n"
        "    if not os.fork():\n"
        "        os.setsid()\n"
        "        while True:\n"
        "            time.sleep(0.05)\n"
        "            if not os.fork(): os._exit(0)\n"
        "            os.waitpid(-1, 0)\n"
        "time.sleep(600)\n"
    )
    supervisor = jobs.python(code)
    until(lambda: len(supervisor.processes()) > 50)
    supervisor.stop()
    assert not jobs.left()


def test_a_restart_stays_in_its_place(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "echo $$ >> starts; cat fixed")
    before = jobs.settled(supervisor)
    assert before.state is State.HELD
    (supervisor.folder / "work" / "fixed").write_text("well\n")
    supervisor.restart()
    status = jobs.settled(supervisor)
    assert (status.state, status.start, status.attempt) == (State.DONE, 2, 1)
    assert len((supervisor.folder / "work" / "starts").read_text().split()) == 2
    assert status.log_tail.splitlines()[-1] == "well"


def test_a_restart_keeps_the_keeper(jobs: Jobs) -> None:
    supervisor = jobs.start("false")
    jobs.settled(supervisor)
    keeper = keeper_pid(supervisor)
    supervisor.restart()
    assert jobs.settled(supervisor).start == 2
    assert keeper_pid(supervisor) == keeper


def test_a_restart_ends_the_frozen_process(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600", timeout_s=0.2)
    frozen = jobs.settled(supervisor).pid
    assert frozen is not None
    supervisor.restart(Patch(command=("sh", "-c", "exit 5")))
    assert not is_running(frozen)
    status = jobs.settled(supervisor)
    assert (status.start, status.cause) == (2, "exit 5")


def test_there_is_no_restart_that_nobody_asked_for_and_those_are_bounded(jobs: Jobs) -> None:
    supervisor = jobs.start("false", most_starts=3)
    for start in (1, 2, 3):
        status = jobs.settled(supervisor)
        assert (status.state, status.start, status.cause) == (State.HELD, start, "exit 1")
        if start < 3:
            supervisor.restart()
    with pytest.raises(InputError, match="started 3 times: release it"):
        supervisor.restart()
    assert supervisor.status().start == 3


def test_only_a_held_job_can_be_restarted(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600")
    with pytest.raises(InputError, match="RUNNING: only a held job"):
        supervisor.restart()
    supervisor.stop()
    with pytest.raises(InputError, match="CANCELLED: only a held job"):
        supervisor.restart()


def test_a_job_held_for_too_long_has_failed_and_gives_up_its_place(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600", timeout_s=0.1, hold_s=0.3)
    status = until(lambda: (s := supervisor.status()).state == "FAILED" and s)
    assert status.cause.startswith("no progress for 0.1 s")
    assert status.cause.endswith("; held for more than 0.3 s")
    until(lambda: not jobs.left())


def test_a_stop_lets_the_job_end_by_itself(jobs: Jobs) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    supervisor = jobs.start("sh", "-c", script)
    until(lambda: "ready" in supervisor.log())
    assert supervisor.stop().state is State.CANCELLED
    assert supervisor.log().splitlines()[-1] == "bye"


def test_a_stop_ends_a_job_that_does_not_want_to(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "trap '' TERM HUP INT; echo ready; sleep 600 & wait; wait")
    until(lambda: "ready" in supervisor.log())
    assert supervisor.stop().state is State.CANCELLED
    assert not jobs.left()
