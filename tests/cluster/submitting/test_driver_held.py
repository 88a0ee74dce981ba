"""Held jobs, and what owners ask for: restart, release, cancel; and the cap on what is held."""

import pytest

from ort_optim.cluster.keeping.status import Patch
from ort_optim.cluster.states import Answer, State
from ort_optim.cluster.submitting.backend import Gone, OrderKind
from ort_optim.cluster.submitting.driver import Limits
from tests.cluster.submitting.driven import Batch, command


def test_a_held_job_keeps_its_slot_and_others_go_on(batch):
    batch.submit(command("bad"), *(command(name) for name in "xy"))
    batch.begin()
    slot = batch.journal.record("bad").placements
    batch.backend.tell("bad", State.HELD, "exit 1")
    batch.turn()
    for name in "xy":
        batch.backend.tell(name, State.DONE)
        batch.turn()
    assert batch.state("x") is batch.state("y") is State.DONE
    record = batch.journal.record("bad")
    assert (record.state, record.cause, record.placements) == (State.HELD, "exit 1", slot)
    number = batch.journal.ask("bad", "restart", {"patch": Patch(env={"A": "b"}).to_dict()})
    batch.turn(1)
    assert batch.journal.answer_of(number) == Answer(True, "bad is RUNNING: start 2")
    assert batch.backend.orders[-1].patch.env == {"A": "b"}
    record = batch.journal.record("bad")
    assert (record.state, record.starts, record.attempt) == (State.RUNNING, 2, 1)
    assert record.placements == slot
    assert batch.path("bad") == [State.RUNNING, State.HELD, State.RUNNING]


def test_a_restart_that_fails_before_anyone_looks_is_in_the_books(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    batch.backend.tell("x", State.HELD, "exit 2", start=2)
    batch.turn()
    assert batch.path("x") == [State.RUNNING, State.HELD, State.RUNNING, State.HELD]
    assert batch.journal.record("x").cause == "exit 2"


def test_a_restart_that_succeeds_before_anyone_looks_is_in_the_books(batch):
    batch.submit(command("x"), command("y"))
    batch.begin()
    for name, start in (("x", 2), ("y", 1)):  # y was frozen, and went on
        batch.backend.tell(name, State.HELD, "no progress")
        batch.turn()
        batch.backend.tell(name, State.DONE, start=start)
        batch.turn()
        assert batch.path(name) == [State.RUNNING, State.HELD, State.RUNNING, State.DONE]


def test_an_order_that_the_keeper_refuses_is_answered_with_its_reason(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    batch.backend.refuse["x"] = "started too often"
    number = batch.journal.ask("x", "restart", {})
    batch.turn(1)
    assert batch.journal.answer_of(number) == Answer(False, "started too often")
    assert batch.state("x") is State.HELD


@pytest.mark.parametrize("kind", ["restart", "release", "continue"])
def test_only_held_jobs_are_restarted_or_released(batch, kind):
    batch.submit(command("x"), command("y", cpus=2))
    batch.begin()
    for job, word in (("x", "RUNNING"), ("y", "waits")):
        number = batch.journal.ask(job, kind, {})
        batch.turn(1)
        answer = batch.journal.answer_of(number)
        assert not answer.ok
        assert word in answer.text
    assert batch.backend.orders == []


def test_release_gives_the_slot_to_others_and_keeps_an_archive(batch):
    batch.submit(command("bad", cpus=2), command("x"))
    batch.begin()
    batch.backend.tell("bad", State.HELD, "exit 1")
    batch.turn()
    assert batch.state("x") is State.QUEUED
    number = batch.journal.ask("bad", "release", {})
    batch.turn()
    assert batch.journal.answer_of(number).ok
    assert batch.backend.orders[-1].archive == batch.journal.folder / "archives" / "bad-1.tar.gz"
    record = batch.journal.record("bad")
    assert (record.state, record.cause) == (State.FAILED, "exit 1")
    assert batch.state("x") is State.RUNNING


def test_cancel_ends_jobs_in_every_state(batch):
    batch.submit(command("running"), command("held"), command("queued"))
    batch.begin()
    batch.backend.tell("held", State.HELD, "exit 1")
    batch.turn()
    for name in ("queued", "running", "held"):
        number = batch.journal.ask(name, "cancel", {})
        batch.turn()
        assert batch.journal.answer_of(number).ok
        assert batch.state(name) is State.CANCELLED
    assert not batch.journal.requests()


def test_a_held_job_whose_server_dies_is_lost_too_and_its_owner_told(batch):
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    batch.backend.order = lambda order: None  # it never answers
    number = batch.journal.ask("x", "restart", {})
    batch.turn()
    batch.backend.gone("x", Gone.SERVER, "server a died")
    batch.turn(1)
    assert batch.journal.answer_of(number) == Answer(False, "x was lost: server a died")
    assert batch.path("x")[:4] == [State.RUNNING, State.HELD, State.LOST, State.QUEUED]


def test_without_hold_what_fails_is_released_at_once(tmp_path):
    batch = Batch(tmp_path / "s", limits=Limits(hold=False))
    batch.submit(command("x"))
    batch.begin()
    batch.backend.tell("x", State.HELD, "exit 1")
    batch.turn()
    assert batch.path("x") == [State.RUNNING, State.HELD, State.FAILED]
    assert [order.kind for order in batch.backend.orders] == [OrderKind.RELEASE]


def test_the_oldest_held_give_way_when_others_wait_for_their_share(tmp_path):
    batch = Batch(tmp_path / "s", "a", "b", limits=Limits(held_share=0.5))
    batch.submit(*(command(name) for name in ("h1", "h2", "h3", "h4")))
    batch.begin()
    for name in ("h1", "h2", "h3", "h4"):
        batch.backend.tell(name, State.HELD, "exit 1")
        batch.turn()
    assert len(batch.journal.records(State.HELD)) == 4  # nobody waits
    batch.crash()
    batch.submit(command("x"))
    batch.begin()
    assert [batch.state(name) for name in ("h1", "h2", "h3", "h4", "x")] == [
        State.FAILED,
        State.FAILED,
        State.HELD,
        State.HELD,
        State.RUNNING,
    ]


def test_the_only_held_job_is_never_released_by_the_cap(batch):
    batch.submit(command("bad", cpus=2), command("x"))
    batch.begin()
    batch.backend.tell("bad", State.HELD, "exit 1")
    batch.turn(10)
    assert batch.state("bad") is State.HELD
    assert batch.state("x") is State.QUEUED
