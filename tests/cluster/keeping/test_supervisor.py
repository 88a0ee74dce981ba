"""What an owner does with a held job: look, patch, debug, release; and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.keeping import archive
from ort_optim.cluster.keeping.state_file import read_state
from ort_optim.cluster.keeping.status import Fault, Patch, PatchFile, Status
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, until

MIB = 2**20


@pytest.fixture
def held(jobs: Jobs) -> Supervisor:
    """A job that failed and is held."""
    supervisor = jobs.start("sh", "-c", "cat fixed; echo variable=$VARIABLE; false", name="held")
    assert jobs.settled(supervisor).state is State.HELD
    return supervisor


# Environment and slot


def test_the_environment_is_the_starters_with_the_jobs_and_the_slot_on_top(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B", "C", "RAY_RAYLET_PID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "starter")
    supervisor = jobs.start(
        *("sh", "-c", "env; pwd"),
        env={"C": "job", "CUDA_VISIBLE_DEVICES": "7", "OMP_NUM_THREADS": "3"},
        env_of_starter={"B": "driver", "C": "driver"},
        place=Placement("here", 2500, 0, ((1, 1000), (3, 1000))),
    )
    jobs.settled(supervisor)
    rows = supervisor.log().splitlines()
    found = dict(row.split("=", 1) for row in rows[1:-1] if "=" in row)
    assert (found["A"], found["B"], found["C"]) == ("starter", "driver", "job")
    assert found["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert found["ORT_OPTIM_DEVICES"] == "1:1000,3:1000"
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["ORT_OPTIM_JOB"] == "job"
    assert "RAY_RAYLET_PID" not in found
    assert rows[-1] == str(supervisor.folder / "work")


def test_a_job_without_devices_sees_none(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", 'test "${CUDA_VISIBLE_DEVICES-unset}" = ""')
    assert jobs.settled(supervisor).state is State.DONE


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no CPU affinity here")
def test_whole_cpus_are_bound_to_the_job(jobs: Jobs) -> None:
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    supervisor = jobs.python(code, place=Placement("here", 1000, 0))
    jobs.settled(supervisor)
    bound = json.loads(supervisor.log().splitlines()[-1])
    assert set(bound) <= os.sched_getaffinity(0)
    claimed = list(read_state(WorkFolder(supervisor.folder)).cpus)
    assert claimed in (bound, [])  # another job on this machine may have the CPU
    assert len(claimed) <= 1


def test_a_model_is_optimized_by_this_very_package(jobs: Jobs, tmp_path: Path) -> None:
    supervisor = Supervisor(jobs.folder / "model")
    job = Job(
        "model", model=tmp_path / "none.onnx", output=tmp_path / "out" / "x.onnx", env={"A": "b"}
    )
    supervisor.start(job, Placement("here", 2000, 0))
    status = jobs.settled(supervisor)
    assert (status.state, status.fault) == (State.HELD, Fault.BAD_INPUT)
    assert status.command[:5] == (sys.executable, "-P", "-m", "ort_optim", "optimize")
    assert "--threads=2" in status.command
    assert f"{supervisor.folder}/work/steps" in status.command


def test_a_model_with_a_bad_option_is_patched_and_optimized_in_its_place(
    jobs: Jobs, tmp_path: Path
) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) '
        "{ a = Relu(x)  y = Relu(a) }"
    )
    onnx.save(model, tmp_path / "in.onnx")
    supervisor = Supervisor(jobs.folder / "model")
    job = Job(
        "model",
        model=tmp_path / "in.onnx",
        output=tmp_path / "out" / "out.onnx",
        options={"rtol": "much", "no-timing": True},
    )
    supervisor.start(job, Placement("here", 1000, 0))
    held = jobs.settled(supervisor)
    assert (held.state, held.fault, held.last_step) == (State.HELD, Fault.BAD_INPUT, "")
    assert "rtol" in held.log_tail
    supervisor.restart(Patch(options={"rtol": 0.001}))
    done = jobs.settled(supervisor)
    assert (done.state, done.start) == (State.DONE, 2), done
    assert done.last_step == "save"
    assert (tmp_path / "out" / "out.onnx").exists()
    assert (supervisor.folder / "report.json").exists()


# Patches


def test_patches_add_up_and_the_last_one_wins(held: Supervisor, jobs: Jobs) -> None:
    held.patch(Patch(env={"VARIABLE": "1"}, files=(PatchFile("fixed", b"one\n"),)))
    held.patch(Patch(env={"VARIABLE": "2"}))
    assert "one" not in held.log()
    held.restart()
    status = jobs.settled(held)
    assert status.log_tail.splitlines()[-2:] == ["one", "variable=2"]
    held.restart(Patch(env={"VARIABLE": None}, files=(PatchFile("fixed", b"two\n"),)))
    assert jobs.settled(held).log_tail.splitlines()[-2:] == ["two", "variable="]
    held.restart(Patch(command=("true",)))
    assert jobs.settled(held).state is State.DONE


def test_patches_of_two_clients_at_once_are_both_kept(held: Supervisor) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: held.patch(Patch(env={f"N{number}": "1"})), range(8)))
    kept = [json.loads(path.read_text()) for path in (held.folder / "patches").iterdir()]
    assert {name for each in kept for name in each["patch"]["env"]} == {f"N{i}" for i in range(8)}


def test_an_empty_patch_is_told(held: Supervisor) -> None:
    with pytest.raises(InputError, match="changes nothing"):
        held.patch(Patch())


def test_a_patch_keeps_what_a_file_may(held: Supervisor, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_text("#!/bin/sh\n")
    source.chmod(0o755)
    held.patch(Patch(files=(PatchFile("bin/tool", source), PatchFile("data", b"x"))))
    assert os.access(held.folder / "work" / "bin" / "tool", os.X_OK)
    assert not os.access(held.folder / "work" / "data", os.X_OK)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (Patch(options={"threads": 1}), "runs a command"),
        (Patch(model="x.onnx"), "runs a command"),
        (Patch(env={"A=B": "c"}), "not the name of an environment variable"),
        (Patch(command=("a\0b",)), "NUL"),
        (Patch(files=(PatchFile("../out", b""),)), "inside the work folder"),
        (Patch(files=(PatchFile("/etc/passwd", b""),)), "inside the work folder"),
        (Patch(files=(PatchFile("good", b""), PatchFile("link/x", b""))), "a link or no folder"),
        (Patch(files=(PatchFile("good", b""), PatchFile("x", Path("/none")))), "readable file"),
    ],
)
def test_a_bad_patch_is_refused_and_changes_nothing(
    held: Supervisor, tmp_path: Path, patch: Patch, words: str
) -> None:
    (held.folder / "work" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=words):
        held.restart(patch)
    assert held.status().start == 1
    assert not (held.folder / "work" / "good").exists()
    assert list((held.folder / "patches").iterdir()) == []


def test_options_that_are_the_keepers_are_not_patched(jobs: Jobs, tmp_path: Path) -> None:
    supervisor = Supervisor(jobs.folder / "model")
    job = Job("model", model=tmp_path / "none.onnx", output=tmp_path / "x.onnx")
    supervisor.start(job, Placement("here", 1000, 0))
    for name in ("work", "quiet", "--threads", "a b", ""):
        with pytest.raises(InputError, match="by its long name"):
            supervisor.patch(Patch(options={name: 1}))
    with pytest.raises(InputError, match="optimizes a model"):
        supervisor.patch(Patch(command=("true",)))


def test_a_damaged_patch_is_told_and_starts_nothing(held: Supervisor) -> None:
    (held.folder / "patches" / "0001.json").write_text("{")
    with pytest.raises(InputError, match=r"0001\.json: damaged"):
        held.restart()
    assert held.status().start == 1


def test_a_patch_survives_json() -> None:
    patch = Patch(
        {"a": [1]}, {"B": None}, ("c",), "d", (PatchFile("e", b"\0\xff"), PatchFile("f", b"", True))
    )
    assert Patch.from_dict(json.loads(json.dumps(patch.to_dict()))) == patch


def test_a_status_survives_json(held: Supervisor) -> None:
    status = held.status()
    assert Status.from_dict(json.loads(json.dumps(status.to_dict()))) == status


# Debugging


def test_processes_show_where_a_frozen_job_stands(jobs: Jobs) -> None:
    supervisor = jobs.start("sleep", "600", timeout_s=0.1)
    pid = jobs.settled(supervisor).pid
    (facts,) = supervisor.processes()
    assert (facts["pid"], facts["name"], facts["state"]) == (pid, "sleep", "stopped")
    assert facts["command"] == ["sleep", "600"]


# Release


def test_a_release_keeps_an_archive_and_removes_the_bulk(held: Supervisor, tmp_path: Path) -> None:
    held.patch(Patch(env={"A": "b"}, files=(PatchFile("big", bytes(MIB)),)))
    path = tmp_path / "kept" / "held.tar.gz"
    status = held.release(path)
    assert (status.state, status.cause) == (State.FAILED, "exit 1")
    with tarfile.open(path) as file:
        names = set(file.getnames())
        log = file.extractfile("log")
        assert log is not None
        assert b"variable=" in log.read()
    assert names >= {"job.json", "state.json", "log", "patches/0001.json"}
    assert not (held.folder / "work").exists()
    assert held.status() == status
    assert held.release(path) == status


def test_a_release_makes_room_before_it_writes_an_archive(
    held: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (held.folder / "work" / "what-fills-the-disk").write_text("")
    found = []
    monkeypatch.setattr(
        archive, "write_archive", lambda folder, _: found.append(list(folder.work.iterdir()))
    )
    held.release()
    assert found == [[]]


def test_what_is_over_stays_what_it_is_when_released_or_stopped(jobs: Jobs) -> None:
    supervisor = jobs.start("true")
    jobs.settled(supervisor)
    assert supervisor.stop().state is State.DONE
    assert supervisor.release().state is State.DONE
    assert (supervisor.folder / "archive.tar.gz").exists()


# Waiting for news


def test_a_watch_tells_news_at_once_and_nothing_new_after_its_time(jobs: Jobs) -> None:
    supervisor = jobs.start("sh", "-c", "while ! test -e go; do sleep 0.01; done; exit 1")
    running = supervisor.status()
    assert supervisor.watch(running, 0.1).state is State.RUNNING
    assert supervisor.watch(dataclasses.replace(running, cause="old"), 600.0) is not None
    (supervisor.folder / "work" / "go").touch()
    held = supervisor.watch(running, 600.0)
    assert (held.state, held.cause) == (State.HELD, "exit 1")


def test_a_watch_tells_steps_and_ends(jobs: Jobs) -> None:
    log = json.dumps({"version": 1, "last_finished_step": "rewrite"})
    script = f"mkdir steps; echo '{log}' >steps/steps.json; while ! test -e go; do sleep 0.01; done"
    supervisor = jobs.start("sh", "-c", script)
    status = supervisor.status()
    while not status.last_step:
        status = supervisor.watch(status, 600.0)
    assert status.last_step == "rewrite"
    (supervisor.folder / "work" / "go").touch()
    assert supervisor.watch(status, 600.0).state is State.DONE


# State files that must not be trusted


def test_no_job_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no job to be found there"):
        Supervisor(tmp_path / "none").attach()
    with pytest.raises(InputError, match="no job to be found there"):
        Supervisor(tmp_path).status()


def test_a_forged_state_is_refused_by_every_call_until_it_is_mended(held: Supervisor) -> None:
    path = held.folder / "state.json"
    before = path.read_bytes()
    for change, words in (({"version": 2}, "newer ort_optim"), ({"host": "x"}, "runs on x")):
        path.write_text(json.dumps({**json.loads(before), **change}))
        for call in (held.attach, held.restart, held.release, held.stop, held.debug):
            with pytest.raises(InputError, match=words):
                call()
    path.write_bytes(before)
    assert held.attach().state is State.HELD


def test_the_memory_of_a_frozen_job_is_still_told(jobs: Jobs) -> None:
    code = "x = b'1' * (50 << 20); import time; time.sleep(600)"
    supervisor = jobs.python(code, timeout_s=2.0, resources=Resources(memory=900 * MIB))
    assert jobs.settled(supervisor).frozen
    until(lambda: supervisor.status().memory > 50 * MIB)


def test_the_time_of_a_state_is_when_it_came(jobs: Jobs) -> None:
    before = time.time()
    supervisor = jobs.start("false")
    status = jobs.settled(supervisor)
    assert before <= status.since_s <= time.time()
    assert supervisor.status().since_s == status.since_s
