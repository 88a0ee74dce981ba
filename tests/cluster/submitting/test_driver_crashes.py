"""Drivers that are killed, stopped or replaced: nothing is lost, nothing runs twice."""

import pytest

from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.journal import LeaseLostError
from tests.cluster.submitting.driven import command


def test_a_new_driver_finds_what_runs_and_starts_what_nobody_started(batch):
    batch.submit(command("runs"), command("intended"), command("waits"))
    batch.begin()
    batch.turn()
    del batch.backend.keepers["intended"]  # the driver died between the books and the start
    batch.crash()
    batch.begin()
    assert batch.backend.started == [("intended", 1, "a")]
    for name in ("runs", "intended"):
        assert batch.path(name) == [State.RUNNING]
        assert batch.journal.record(name).attempt == 1


def test_what_happened_while_no_driver_ran_is_taken_over(batch):
    batch.submit(command("done"), command("held"))
    batch.begin()
    batch.crash()
    batch.backend.tell("done", State.DONE)
    batch.backend.tell("held", State.HELD, "exit 1")
    batch.backend.poll(0.0)
    batch.begin()
    assert batch.state("done") is State.DONE
    assert batch.state("held") is State.HELD
    assert batch.backend.started == []


def test_a_cancel_that_a_crash_interrupted_is_still_carried_out(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.crash()
    number = batch.journal.ask("x", "cancel", {})
    batch.begin()
    assert batch.state("x") is State.CANCELLED
    assert batch.journal.answer_of(number).ok


def test_a_driver_that_is_stopped_stops_what_runs_and_the_next_goes_on(batch):
    batch.submit(command("x"), command("held"))
    batch.begin()
    batch.backend.tell("held", State.HELD, "exit 1")
    batch.turn()
    assert not batch.driver.run(wanted=lambda: False, turn_s=0.0)
    assert batch.state("x") is State.QUEUED
    assert batch.state("held") is State.HELD
    batch.crash()
    batch.begin()
    assert batch.backend.started == [("x", 2, "a")]


def test_a_driver_whose_jobs_outlive_it_leaves_them_alone(batch):
    batch.submit(command("x"))
    batch.backend.outlives = True
    batch.begin()
    assert not batch.driver.run(wanted=lambda: False, turn_s=0.0)
    assert batch.state("x") is State.RUNNING
    assert batch.backend.orders == []


def test_a_driver_that_lost_its_lease_stops_before_it_starts_anything(batch):
    batch.submit(command("x", cpus=2), command("y"))
    batch.begin()
    batch.journal._connection.execute("UPDATE lease SET nonce = 'of another'")
    batch.backend.tell("x", State.DONE)
    with pytest.raises(LeaseLostError):
        batch.turn()
    assert batch.backend.started == [("x", 1, "a")]
