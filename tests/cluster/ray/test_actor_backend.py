"""The backend of actors with real keepers, on a cluster that is only threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.ray import actor_backend
from ort_optim.cluster.ray.actor_backend import ActorBackend
from ort_optim.cluster.states import OVER, State
from ort_optim.cluster.submitting.backend import Gone, News, Order, OrderKind
from tests.cluster.thread_door import ThreadDoor

WAIT_S = 30.0


def shell(name: str, script: str, **others) -> Job:
    return Job(name, command=("sh", "-c", script), resources=Resources(), **others)


def at(*servers: str, devices: tuple[tuple[int, int], ...] = ()) -> tuple[Placement, ...]:
    return tuple(Placement(server, 1000, 0, devices) for server in servers)


class Bench:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.door = ThreadDoor("a", "b")
        self.backend = ActorBackend(self.door, state)
        self.news: list[News] = []
        self.unread = 0  # which of them `until` has not looked at

    def again(self) -> None:
        """Another driver, with the keepers that are there."""
        self.door.close()
        self.door = ThreadDoor("a", "b")
        self.backend = ActorBackend(self.door, self.state)
        self.news.clear()
        self.unread = 0

    def until(self, wanted: Callable[[News], bool]) -> News:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            for news in self.news[self.unread :]:
                self.unread += 1
                if wanted(news):
                    return news
            self.news += self.backend.poll(0.05)
        raise AssertionError(f"only {self.news} came")

    def until_state(self, job: str, state: State) -> News:
        """The news of it, if it was not the last that was read of the job."""

        def tells(news: News) -> bool:
            return news.job == job and news.status is not None

        latest = next(filter(tells, reversed(self.news[: self.unread])), None)
        if latest is not None and latest.status.state is state:
            return latest
        return self.until(lambda news: tells(news) and news.status.state is state)

    def until_gone(self, job: str) -> News:
        return self.until(lambda news: news.job == job and news.gone is not None)

    def order(self, job: str, kind: OrderKind, **others) -> News:
        self.backend.order(Order(7, job, kind, **others))
        return self.until(lambda news: news.order == 7)

    def pid(self, job: str) -> int:
        return Supervisor(self.state / "jobs" / job).status().pid


@pytest.fixture
def bench(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    made = Bench(state)
    yield made
    for file in (*state.glob("jobs/*/state.json"), *state.glob("ranks/*/*/state.json")):
        Supervisor(file.parent).stop()
    made.door.close()


def test_a_job_runs_and_its_end_is_told_once(bench):
    bench.backend.start(shell("x", "exit 0"), at("a"), 1)
    news = bench.until_state("x", State.DONE)
    assert (news.attempt, news.status.start) == (1, 1)
    bench.backend.forget("x")
    assert bench.door.groups == {}
    assert not bench.backend.poll(0.0)


def test_a_fault_is_held_and_restarted_by_an_order(bench):
    bench.backend.start(shell("x", 'test -n "$FIXED" && sleep 30'), at("a"), 1)
    assert bench.until_state("x", State.HELD).status.cause == "exit 1"
    answer = bench.order("x", OrderKind.RESTART, patch=Patch(env={"FIXED": "1"}))
    assert not answer.refused
    assert (answer.status.state, answer.status.start) == (State.RUNNING, 2)
    answer = bench.order("x", OrderKind.RESTART)
    assert not answer.refused  # nothing was held, so there was nothing to do
    assert answer.status.start == 2
    assert bench.order("x", OrderKind.CANCEL).status.state is State.CANCELLED


def test_a_restart_that_is_ordered_again_after_a_crash_happens_once(bench):
    bench.backend.start(shell("x", "echo ran >> times; exit 1"), at("a"), 1)
    bench.until_state("x", State.HELD)
    for _ in range(3):
        answer = bench.order("x", OrderKind.RESTART, start=1)
        assert (answer.refused, answer.status.start) == ("", 2)
        bench.again()
        bench.backend.attach(shell("x", ""), at("a"), 1)
        bench.until_state("x", State.HELD)
    assert (bench.state / "jobs" / "x" / "work" / "times").read_text() == "ran\n" * 2


def test_an_answer_that_comes_late_does_not_bring_an_old_state_back(bench):
    bench.backend.start(shell("x", "exit 1"), at("a"), 1)
    held = bench.until_state("x", State.HELD).status
    slot = bench.backend._slots["x"]
    (process,) = slot.processes
    done = replace(held, state=State.DONE, cause="", start=2, since_s=held.since_s + 2)
    bench.backend._know(slot, process, done)
    runs = replace(done, state=State.RUNNING, since_s=held.since_s + 1)
    bench.backend._know(slot, process, runs, watch=False)
    bench.backend._know(slot, process, held, watch=False)
    told = [news.status.state for news in bench.backend.poll(0.0) if news.status is not None]
    assert told == [State.DONE]


def test_released_jobs_leave_an_archive_where_it_was_wanted(bench):
    bench.backend.start(shell("x", "exit 1"), at("a"), 1)
    bench.until_state("x", State.HELD)
    archive = bench.state / "archives" / "x-1.tar.gz"
    answer = bench.order("x", OrderKind.RELEASE, archive=archive)
    assert answer.status.state is State.FAILED
    assert archive.stat().st_size > 0


def test_an_order_to_a_job_without_a_slot_is_refused(bench):
    assert "no slot" in bench.order("x", OrderKind.CANCEL).refused


def test_what_a_patch_may_not_do_is_refused_with_the_reason(bench):
    bench.backend.start(shell("x", "exit 1"), at("a"), 1)
    bench.until_state("x", State.HELD)
    refused = bench.order("x", OrderKind.PATCH, patch=Patch(options={"threads": 1})).refused
    assert "runs a command" in refused


def test_a_gang_runs_on_each_server_and_one_fault_holds_it(bench):
    script = 'echo "$ORT_OPTIM_RANK of $ORT_OPTIM_SERVERS"; test "$ORT_OPTIM_RANK" = 0 -o -e ok'
    bench.backend.start(shell("g", script), at("a", "b"), 1)
    news = bench.until_state("g", State.HELD)
    assert news.status.cause == "on b: exit 1"
    other = bench.state / "ranks" / "g" / "1"
    assert "1 of address-of-a,address-of-b" in (other / "log").read_text()
    assert "0 of " in (bench.state / "jobs" / "g" / "log").read_text()
    (other / "work" / "ok").touch()
    answer = bench.order("g", OrderKind.RESTART)
    assert answer.status.start == 2
    bench.until_state("g", State.DONE)


def test_a_gang_that_loses_one_server_ends_on_the_others(bench):
    bench.backend.start(shell("g", "sleep 60"), at("a", "b"), 1)
    bench.until_state("g", State.RUNNING)
    pid = bench.pid("g")
    bench.door.servers.remove("b")
    bench.door.kill(bench.door.actors[1])
    news = bench.until_gone("g")
    assert (news.gone, news.reason) == (Gone.SERVER, "server b died")
    assert not psutil.pid_exists(pid)


def test_a_dead_actor_is_replaced_and_finds_the_keeper(bench):
    bench.backend.start(shell("x", "while ! test -e go; do sleep 0.05; done"), at("a"), 1)
    bench.until_state("x", State.RUNNING)
    pid = bench.pid("x")
    bench.door.kill(bench.door.actors[0])
    until_s = time.monotonic() + WAIT_S
    while len(bench.door.actors) < 2 and time.monotonic() < until_s:
        assert all(news.gone is None for news in bench.backend.poll(0.05))
    assert bench.pid("x") == pid
    (bench.state / "jobs" / "x" / "work" / "go").touch()
    assert bench.until_state("x", State.DONE).status.start == 1


def test_an_actor_that_dies_with_its_server_means_a_lost_job(bench):
    bench.backend.start(shell("x", "sleep 60"), at("b"), 3)
    bench.until_state("x", State.RUNNING)
    bench.door.servers.remove("b")
    bench.door.kill(bench.door.actors[0])
    news = bench.until_gone("x")
    assert (news.gone, news.attempt) == (Gone.SERVER, 3)


def test_attach_finds_the_keeper_of_the_same_attempt_only(bench):
    bench.backend.start(shell("x", "sleep 60"), at("a"), 2)
    bench.until_state("x", State.RUNNING)
    pid = bench.pid("x")
    bench.again()
    bench.backend.attach(shell("x", "sleep 60"), at("a"), 2)
    assert bench.until_state("x", State.RUNNING).status.pid == pid
    bench.again()
    bench.backend.attach(shell("x", "sleep 60"), at("a"), 3)
    assert bench.until_gone("x").gone is Gone.NO_ROOM  # an earlier attempt is still there
    bench.backend.attach(shell("y", "true"), at("a"), 1)
    assert bench.until_gone("y").gone is Gone.NEVER


def test_start_never_starts_an_attempt_twice(bench):
    script = "echo ran >> times; sleep 60"
    bench.backend.start(shell("x", script), at("a"), 1)
    bench.until_state("x", State.RUNNING)
    bench.again()
    bench.backend.start(shell("x", script), at("a"), 1)
    bench.until_state("x", State.RUNNING)
    bench.backend.start(shell("x", script), at("a"), 2)
    assert bench.until_gone("x").gone is Gone.NO_ROOM
    assert (bench.state / "jobs" / "x" / "work" / "times").read_text() == "ran\n"


def test_a_server_without_room_gives_the_job_back(bench, monkeypatch):
    monkeypatch.setattr(actor_backend, "ROOM_S", 0.1)
    bench.door.full.add("a")
    bench.backend.start(shell("x", "true"), at("a"), 1)
    news = bench.until_gone("x")
    assert (news.gone, news.reason) == (Gone.NO_ROOM, "Ray has no room on a: others use it")
    assert bench.door.groups == {}


def test_a_server_that_is_gone_takes_nothing(bench):
    bench.backend.start(shell("x", "true"), at("z"), 1)
    assert bench.until_gone("x").gone is Gone.SERVER


def test_another_version_on_a_server_is_told(bench, monkeypatch):
    monkeypatch.setattr(actor_backend, "__version__", "0.0.1")
    bench.backend.start(shell("x", "true"), at("a"), 1)
    news = bench.until_gone("x")
    assert news.gone is Gone.REFUSED
    assert "install the same on all" in news.reason


def test_a_program_that_is_not_there_is_held_with_its_cause(bench):
    bench.backend.start(Job("x", command=("/no/such/program",)), at("a"), 1)
    assert "/no/such/program" in bench.until_state("x", State.HELD).status.cause


def test_a_state_folder_that_a_server_lacks_is_told(tmp_path):
    bench = Bench(tmp_path / "only-here")
    bench.backend.start(shell("x", "true"), at("a"), 1)
    news = bench.until_gone("x")
    assert news.gone is Gone.REFUSED
    assert "--transfer" in news.reason
    bench.door.close()


def test_shared_devices_are_taken_as_a_whole_for_as_long_as_they_are_shared(bench):
    half = at("a", devices=((1, 500),))
    for name in ("x", "y"):
        bench.backend.start(shell(name, "sleep 60"), half, 1)
        bench.until_state(name, State.RUNNING)
    gpus = [
        bundle["GPU"]
        for group in bench.door.groups.values()
        for _, bundle in group
        if "GPU" in bundle
    ]
    assert gpus == [1]
    bench.backend.forget("x")
    assert len(bench.door.groups) == 2
    bench.backend.forget("y")
    assert bench.door.groups == {}


def test_transfer_brings_the_output_home(bench, own_models, tmp_path):
    bench.backend = ActorBackend(bench.door, bench.state, transfer=True)
    output = tmp_path / "out" / "m.onnx"
    model = own_models / "tones_kws.onnx"
    job = Job("m", model=model, output=output, options={"no-timing": True})
    bench.backend.start(job, at("a"), 1)
    bench.until(lambda news: news.status is not None and news.status.state in OVER)
    assert bench.news[-1].status.state is State.DONE
    assert output.is_file()
    assert (bench.state / "jobs" / "m" / "report.json").is_file()
