"""Two hundred faults and twenty models on a Ray cluster of four nodes: all accounted for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.states import State
from ort_optim.pipeline import optimize
from tests.cluster.ray_cluster import four_nodes

pytest.importorskip("ray")
from tests.cluster.ray_run import Run

JOBS = 40
FAULTS_EACH = 5
FAULTS = {  # what the job does -> the cause it is held with
    "exit 1": "exit 1",
    "exit 2": "bad option or input",
    "exit 3": "verification failed",
    "kill -9 $$": "signal SIGKILL",
    "python3 -c 'x = bytes(range(256)) * (1 << 20); import time; time.sleep(60)'": "memory limit",
    "sleep 60": "no progress",
}
MODELS = 20


@pytest.fixture(scope="module")
def cluster():
    with four_nodes() as made:
        yield made


@pytest.fixture
def run(cluster, tmp_path):
    made = Run(tmp_path / "state", cluster.address)
    yield made
    made.close()


def faulty(index: int) -> Job:
    """Fails FAULTS_EACH times, then is as its owner's patch says."""
    fault = list(FAULTS)[index % len(FAULTS)]
    script = (
        f"n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; "
        f'if test "$n" -lt {FAULTS_EACH}; then {fault}; fi; test "$REPAIRED" = yes'
    )
    return Job(
        f"faulty{index}",
        command=("sh", "-c", script),
        resources=Resources(milli_cpus=200, memory=64 << 20),
        timeout_s=5.0 if fault == "sleep 60" else 60.0,
    )


@pytest.mark.slow
def test_two_hundred_faults_are_all_in_the_journal_and_all_repaired(run):
    run.submit(*(faulty(index) for index in range(JOBS)))
    run.begin()
    asked: dict[tuple[str, int], int] = {}
    upsets = {JOBS: "actor", 2 * JOBS: "driver", 3 * JOBS: "actor", 4 * JOBS: "driver"}

    def care() -> bool:
        """What owners do, and what goes wrong around them."""
        for record in run.driver.records.values():
            key = (record.id, record.starts)
            if record.state is State.HELD and key not in asked:
                patch = Patch(env={"REPAIRED": "yes"} if record.starts >= FAULTS_EACH else {})
                body = {"patch": patch.to_dict(), "start": record.starts}
                asked[key] = run.journal.ask(record.id, "restart", body)
        if upsets and len(asked) >= min(upsets):
            upset(run, upsets.pop(min(upsets)))
        return len(run.journal.records(State.DONE)) == JOBS

    run.until(care, wait_s=900.0)
    assert len(asked) == JOBS * FAULTS_EACH
    for index, record in enumerate(run.journal.records()):
        events = run.journal.events(record.id)
        assert (record.attempt, record.starts) == (1, FAULTS_EACH + 1)
        assert [event.after for event in events] == [
            State.RUNNING,
            *[State.HELD, State.RUNNING] * FAULTS_EACH,
            State.DONE,
        ]
        cause = list(FAULTS.values())[index % len(FAULTS)]
        assert all(cause in event.cause for event in events if event.after is State.HELD)
        work = run.state / "jobs" / record.id / "work"
        assert int((work / "n").read_text()) == FAULTS_EACH + 1


def upset(run: Run, what: str) -> None:
    if what == "driver":
        run.end()
        run.begin()
        return
    import ray

    slot = next(slot for slot in run.backend._slots.values() if slot.known)
    actor = slot.processes[0].actor
    os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


@pytest.mark.slow
def test_twenty_models_come_out_as_from_a_plain_optimize(run, own_models, tmp_path):
    sources = sorted(own_models.glob("*.onnx"))
    options = [
        {"no-timing": True, "disable": disabled} for disabled in ([], ["tiling"]) for _ in sources
    ]
    jobs = [
        Job(
            f"m{index}",
            model=sources[index % len(sources)],
            output=tmp_path / "batch" / f"m{index}.onnx",
            options=options[index],
            resources=Resources(milli_cpus=1000),
        )
        for index in range(MODELS)
    ]
    run.submit(*jobs)
    run.begin()
    run.until(lambda: len(run.journal.records(State.DONE)) == MODELS, wait_s=900.0)
    plain = tmp_path / "plain.onnx"
    for job in jobs:
        optimize(
            job.model, plain, threads=1, timing=False, disable=frozenset(job.options["disable"])
        )
        assert Path(job.output).read_bytes() == plain.read_bytes(), job.model
