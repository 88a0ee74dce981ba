"""Jobs on a real Ray cluster of four nodes: where they run, and what outlives what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.keeping.state_file import read_state
from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.servers import Cluster, Server
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.tokens import make_token
from ort_optim.errors import InputError
from tests.cluster.ray_cluster import add_node, four_nodes
from tests.cluster.ray_run import Run
from tests.toolbox import ROOT

pytest.importorskip("ray")
from ort_optim.cluster.ray.ray_backend import RemoteJob, connect

WAIT_S = 60.0
FACTS = "echo rank=$ORT_OPTIM_RANK devices=$ORT_OPTIM_DEVICES cuda=$CUDA_VISIBLE_DEVICES"


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    with four_nodes() as made:
        yield made


@pytest.fixture
def run(cluster, tmp_path):
    made = Run(tmp_path / "state", cluster.address)
    yield made
    made.close()


def shell(name: str, script: str, *, gpus: float = 0, servers: int = 0, **others) -> Job:
    resources = Resources(servers=servers, milli_cpus=1000, milli_gpus=round(gpus * 1000))
    return Job(name, command=("sh", "-c", script), resources=resources, **others)


def ask_actor(run: Run, job: str, what: Callable):
    """Something only the actor's process knows."""
    import ray

    actor = run.backend._slots[job].processes[0].actor
    return ray.get(actor.__ray_call__.remote(lambda _: what()), timeout=10)


def node_id() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


def test_jobs_run_on_the_servers_and_devices_that_were_planned(run):
    whole = shell("whole", FACTS + "; echo raylet=$PPID", servers=1)
    parts = [shell(f"part{index}", FACTS, gpus=0.5) for index in range(4)]
    pairs = [shell("pair", FACTS, gpus=1)]
    run.submit(whole, *parts, *pairs)
    run.begin()
    run.until_over()
    for record in run.journal.records():
        assert record.state is State.DONE, record.cause
        (placement,) = record.placements
        devices = ",".join(f"{index}:{share}" for index, share in placement.devices)
        cuda = ",".join(str(index) for index, _ in placement.devices)
        assert f"devices={devices} cuda={cuda}" in run.log(record.id)
    assert run.record("whole").placements[0].server in {"a", "b"}
    assert {run.record(f"part{index}").server for index in range(4)} <= {"c", "d"}
    # Exporting the class takes longer than making the actor.
    assert run.backend._door._remote_class.cache_info().misses == 1


def test_the_actor_of_a_job_is_on_the_node_that_was_planned(run):
    run.submit(*(shell(f"s{index}", "sleep 60", gpus=1) for index in range(4)))
    run.begin()
    run.until(lambda: len(run.journal.records(State.RUNNING)) == 4 and all_known(run))
    nodes = run.backend._alive()
    for record in run.journal.records():
        assert ask_actor(run, record.id, node_id) == nodes[record.server].id
    places = [record.placements[0] for record in run.journal.records()]
    assert len({(each.server, each.devices) for each in places}) == 4


def all_known(run: Run) -> bool:
    return all(slot.known for slot in run.backend._slots.values())


def test_two_gangs_that_compete_run_one_after_the_other(run):
    script = FACTS + "; echo servers=$ORT_OPTIM_SERVERS; sleep 0.3"
    run.submit(shell("one", script, servers=2), shell("two", script, servers=2))
    run.begin()
    run.until_over()
    first, second = run.record("one"), run.record("two")
    assert first.state is second.state is State.DONE, (first.cause, second.cause)
    assert {each.server for each in first.placements} == {"a", "b"}
    assert first.ended_s <= second.started_s
    assert "rank=0" in run.log("one")
    assert "rank=1" in (run.state / "ranks" / "one" / "1" / "log").read_text()


def test_a_job_is_held_patched_and_restarted_in_its_place(run):
    run.submit(shell("bad", "test -e repaired"), shell("good", "true"))
    run.begin()
    run.until_state("bad", State.HELD)
    run.until_state("good", State.DONE)
    before = run.record("bad")
    (run.state / "jobs" / "bad" / "work" / "repaired").touch()
    number = run.journal.ask("bad", "restart", {"patch": Patch(env={"A": "b"}).to_dict()})
    run.until_over()
    after = run.record("bad")
    assert run.journal.answer_of(number).ok
    assert after.state is State.DONE
    assert (after.placements, after.attempt, after.starts) == (before.placements, 1, 2)
    assert run.path("bad") == [State.RUNNING, State.HELD, State.RUNNING, State.DONE]


def test_a_killed_supervisor_is_replaced_and_the_job_does_not_notice(run):
    run.submit(shell("job", "echo begun; while ! test -e go; do sleep 0.1; done"))
    run.begin()
    run.until_state("job", State.RUNNING)
    run.until(lambda: all_known(run))
    process = run.backend._slots["job"].processes[0]
    child = child_pid(run, "job")
    os.kill(ask_actor(run, "job", os.getpid), signal.SIGKILL)
    run.until(lambda: process.generation > 1 and process.actor is not None and _answers(process))
    assert child_pid(run, "job") == child
    (run.state / "jobs" / "job" / "work" / "go").touch()
    run.until_over()
    assert run.path("job") == [State.RUNNING, State.DONE]
    assert run.log("job").count("begun") == 2  # once in the line above the start


def _answers(process) -> bool:
    import ray

    try:
        ray.get(process.actor.status.remote(), timeout=5)
    except ray.exceptions.RayError:
        return False
    return True


def child_pid(run: Run, job: str) -> int:
    return read_state(WorkFolder(run.state / "jobs" / job)).pid


def test_a_killed_keeper_is_a_lost_job_and_the_next_attempt(run):
    run.submit(shell("job", "test -e $ORT_OPTIM_WORK/second || { touch second; sleep 60; }"))
    run.begin()
    run.until_state("job", State.RUNNING)
    run.until(lambda: all_known(run) and (run.state / "jobs/job/work/second").exists())
    keeper = psutil.Process(child_pid(run, "job")).ppid()
    os.kill(keeper, signal.SIGKILL)
    run.until_over()
    assert run.path("job") == [
        State.RUNNING,
        State.LOST,
        State.QUEUED,
        State.RUNNING,
        State.DONE,
    ]


@pytest.mark.slow
def test_a_new_driver_finds_what_runs_and_what_ended_meanwhile(run):
    run.submit(
        shell("runs", "echo begun; while ! test -e go; do sleep 0.1; done"),
        shell("ends", "sleep 1"),
        shell("fails", "sleep 1; exit 5"),
    )
    run.begin()
    run.until(lambda: len(run.journal.records(State.RUNNING)) == 3 and all_known(run))
    pid = child_pid(run, "runs")
    run.end()
    time.sleep(1.5)
    run.begin()
    run.until_state("ends", State.DONE)
    run.until_state("fails", State.HELD)
    assert run.record("fails").cause == "exit 5"
    assert child_pid(run, "runs") == pid
    (run.state / "jobs" / "runs" / "work" / "go").touch()
    run.until_state("runs", State.DONE)
    assert all(record.attempt == 1 for record in run.journal.records())


def test_debug_reaches_a_job_on_another_server_through_ray(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    job = shell("bad", "echo trace | tee here; exit 1")
    run.journal.submit([job], {"bad": "ann"}, {"ann": make_token("ann")})
    run.begin()
    run.until_state("bad", State.HELD)
    script = "cat here - >&2; echo $ORT_OPTIM_JOB; exit 7"
    command = ["batch", "debug", "--state", str(run.state), "bad", "--", "sh", "-c", script]
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "ort_optim",
            *command,
            "cat here - >&2; echo $ORT_OPTIM_JOB; exit 7",
        ],
        input="typed\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert told.returncode == 7, told.stderr
    assert told.stdout == "bad\n"
    assert "HELD: exit 1" in told.stderr
    assert told.stderr.endswith("trace\ntyped\n")


def test_a_job_that_nobody_drives_is_told_as_such(run):
    with pytest.raises(InputError, match="no supervisor"):
        RemoteJob(run.address, run.state, "nothing", 1, 0)


def test_a_dead_server_is_a_lost_job_which_runs_elsewhere(cluster, tmp_path):
    node = add_node(cluster, "e")
    run = Run(tmp_path / "state", cluster.address, wanted=Cluster((Server("e", "two", 4000, 0),)))
    try:
        run.submit(shell("job", "test -e second || { touch second; sleep 60; }"))
        run.begin()
        run.until_state("job", State.RUNNING)
        run.until(lambda: (run.state / "jobs/job/work/second").exists())
        child = psutil.Process(child_pid(run, "job"))
        run.backend._wanted = None  # the others may be used from now on
        cluster.remove_node(node, allow_graceful=False)
        run.until_over()
        assert run.path("job")[:3] == [State.RUNNING, State.LOST, State.QUEUED]
        assert run.record("job").attempt == 2
        assert run.record("job").server in {"c", "d"}
        assert run.record("job").state is State.DONE
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    finally:
        run.close()


@pytest.mark.slow
def test_models_and_outputs_go_through_the_object_store(run, own_models, tmp_path):
    run.options["transfer"] = True
    output = tmp_path / "out" / "kws.onnx"
    job = Job(
        "kws",
        model=own_models / "tones_kws.onnx",
        output=output,
        options={"no-timing": True},
        timeout_s=120.0,
    )
    run.submit(job)
    run.begin()
    run.until_over()
    assert run.record("kws").state is State.DONE, run.record("kws").cause
    assert output.stat().st_size > 1000
    assert (run.state / "jobs" / "kws" / "report.json").is_file()
    assert not (run.state / "jobs" / "kws" / "job.json").exists()  # it ran elsewhere


def test_a_cluster_file_must_fit_the_cluster(cluster, tmp_path):
    for server, message in (
        (Server("z", "two", 1000, 0), "no node called z"),
        (Server("a", "two", 64000, 0), "says 64 CPUs, and Ray offers 4"),
    ):
        with pytest.raises(InputError, match=message):
            connect(cluster.address, tmp_path, Cluster((server,)))


def test_no_cluster_at_an_address_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no Ray cluster at 127") as caught:
        connect("127.0.0.1:1", tmp_path)
    assert "\n" not in str(caught.value)
