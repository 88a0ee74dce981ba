"""What the driver starts, when, and what it makes of lost servers: the journal tells it all."""

import itertools
import threading

from ort_optim.cluster.states import State
from ort_optim.cluster.submitting import driver as driver_module
from ort_optim.cluster.submitting import turns
from ort_optim.cluster.submitting.backend import Gone
from ort_optim.cluster.submitting.driver import Driver, Limits
from ort_optim.cluster.submitting.turns import Planner
from tests.cluster.fake_backend import cluster, first_fit
from tests.cluster.submitting.driven import Batch, command


def test_jobs_run_as_many_as_fit_and_all_get_done(batch):
    batch.submit(*(command(name) for name in "vwxyz"))
    batch.begin()
    for _ in range(5):
        running = batch.journal.records(State.RUNNING)
        assert len(running) <= 2
        for record in running:
            batch.backend.tell(record.id, State.DONE)
        batch.turn()
    assert {record.state for record in batch.journal.records()} == {State.DONE}
    assert all(batch.path(name) == [State.RUNNING, State.DONE] for name in "vwxyz")


def test_run_returns_when_all_is_over(batch):
    batch.submit(command("x"))
    batch.journal.take_lease()
    turns = itertools.count()

    def observe(driver):
        if next(turns) == 2:
            batch.backend.tell("x", State.DONE)

    driver = Driver(
        batch.journal, batch.backend, Planner(first_fit), clock=batch.clock, observer=observe
    )
    assert driver.run(turn_s=0.0)
    assert batch.state("x") is State.DONE


def test_a_job_that_comes_after_others_waits_for_them(batch):
    batch.submit(command("x"), command("y", after=("x",)))
    batch.begin()
    assert batch.state("y") is State.QUEUED
    batch.backend.tell("x", State.DONE)
    batch.turn()
    assert batch.state("y") is State.RUNNING


def test_what_comes_after_a_failed_job_fails_with_the_reason(batch):
    batch.submit(command("x"), command("y", after=("x",)), command("z", after=("y",)))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    assert batch.state("y") is State.QUEUED  # x may still be repaired
    batch.backend.tell("x", State.FAILED, "released")
    batch.turn()
    assert batch.state("y") is State.FAILED
    assert batch.state("z") is State.FAILED
    assert batch.journal.record("y").cause == "comes after x, which is FAILED"


def test_a_lost_server_means_another_attempt_elsewhere(tmp_path):
    batch = Batch(tmp_path / "s", "a", "b")
    batch.submit(command("x", cpus=2))
    batch.begin()
    batch.backend.servers = cluster("b")
    batch.backend.gone("x", Gone.SERVER, "server a died")
    batch.turn()
    assert batch.path("x") == [State.RUNNING, State.LOST, State.QUEUED, State.RUNNING]
    assert batch.backend.started == [("x", 1, "a"), ("x", 2, "b")]


def test_a_job_that_loses_its_server_again_and_again_is_given_up(tmp_path):
    batch = Batch(tmp_path / "s", limits=Limits(attempts=3))
    batch.submit(command("x"))
    batch.begin()
    for _ in range(3):
        assert batch.state("x") is State.RUNNING
        batch.backend.gone("x", Gone.SERVER, "server a died")
        batch.turn()
    assert batch.state("x") is State.FAILED
    assert "lost 3 times" in batch.journal.record("x").cause


def test_no_room_means_back_to_the_queue_and_a_later_try(batch):
    batch.submit(command("x"))
    batch.backend.no_room.add("x")
    batch.begin()
    assert batch.state("x") is State.QUEUED
    batch.backend.no_room.clear()
    batch.turn(10)
    assert batch.state("x") is State.RUNNING


def test_jobs_that_can_not_be_started_at_all_fail(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.gone("x", Gone.REFUSED, "no tool for containers works here")
    batch.turn()
    record = batch.journal.record("x")
    assert (record.state, record.cause) == (State.FAILED, "no tool for containers works here")


def test_with_no_server_for_what_waits_the_driver_gives_up_after_its_patience(batch):
    batch.submit(command("x", cpus=2))
    batch.backend.servers = cluster("a", cpus=1)
    batch.journal.take_lease()
    driver = Driver(batch.journal, batch.backend, Planner(first_fit), clock=batch.clock)

    def wanted():
        batch.clock.now_s += 1.0
        return True

    assert not driver.run(wanted, turn_s=0.0)
    assert batch.clock.now_s > 1000.0 + Limits().patience_s
    assert batch.journal.record("x").note == "more CPUs than any server has"


def test_news_of_an_earlier_attempt_changes_nothing(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.gone("x", Gone.SERVER, "server a died")
    batch.turn()
    batch.backend.tell("x", State.DONE, attempt=1)
    batch.turn()
    assert batch.state("x") is State.RUNNING
    assert batch.journal.record("x").attempt == 2


def test_of_a_long_queue_the_planner_sees_the_first_and_all_get_done(batch, monkeypatch):
    monkeypatch.setattr(turns, "WINDOW", 3)
    seen = []

    def ask(jobs, *arguments, **others):
        seen.append([job.id for job in jobs])
        return first_fit(jobs, *arguments, **others)

    late = command("late", priority=9)
    batch.submit(*(command(f"j{index}") for index in range(8)), late)
    batch.journal.take_lease()
    batch.driver = Driver(batch.journal, batch.backend, Planner(ask), clock=batch.clock)
    batch.driver.recover()
    for _ in range(10):
        batch.turn()
        for record in batch.journal.records(State.RUNNING):
            batch.backend.tell(record.id, State.DONE)
    assert {record.state for record in batch.journal.records()} == {State.DONE}
    assert max(map(len, seen)) == 3
    assert "late" in seen[0]


def test_owners_are_answered_while_a_long_plan_is_made(batch, monkeypatch):
    monkeypatch.setattr(driver_module, "PLAN_WITHIN_TURN_S", 0.0)
    planned = threading.Event()

    def ask(*arguments, **others):
        assert planned.wait(30)
        return first_fit(*arguments, **others)

    batch.submit(command("x"), command("y"))
    batch.journal.take_lease()
    batch.driver = Driver(batch.journal, batch.backend, Planner(ask), clock=batch.clock)
    batch.driver.recover()
    batch.turn(1)
    number = batch.journal.ask("x", "cancel", {})
    batch.turn()
    assert batch.journal.answer_of(number).ok
    planned.set()
    while batch.state("y") is State.QUEUED:
        batch.turn(1)
    assert batch.state("x") is State.CANCELLED  # though the plan was to start it
    assert batch.backend.started == [("y", 1, "a")]


def test_what_waits_says_what_for(batch):
    batch.submit(
        command("x"), command("big", cpus=2), command("y", after=("x", "big")), command("z")
    )
    batch.begin()
    notes = {record.id: record.note for record in batch.journal.records(State.QUEUED)}
    assert notes == {"big": "waits for room", "y": "comes after x, big"}
