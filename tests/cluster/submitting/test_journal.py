"""The journal: what is written stays, and what is not ours is refused."""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import FOLLOWING, OVER, Answer, State
from ort_optim.cluster.submitting.journal import Journal, LeaseLostError
from ort_optim.cluster.submitting.records import (
    job_from_text,
    job_to_text,
    placements_from_text,
    placements_to_text,
)
from ort_optim.errors import InputError

SLOT = (Placement("a", 1000, 5, ((0, 500),), 7),)


@pytest.fixture
def journal(tmp_path: Path):
    with Journal.open(tmp_path / "state", create=True) as opened:
        yield opened


def submit(journal: Journal, *jobs: Job, again: bool = False):
    return journal.submit(
        jobs, {job.id: job.owner or "ann" for job in jobs}, {"ann": "d1"}, again=again
    )


def command(name: str, **others) -> Job:
    return Job(name, command=("true",), **others)


def test_jobs_and_placements_come_back_equal():
    job = Job(
        "a.b-c_1",
        model=Path("/m/in put.onnx"),
        output=Path("/m/out.onnx"),
        options={"threads": 1, "disable": ["tiling"]},
        resources=Resources(0, 1500, 500, 2, 3, frozenset({"A100", "H100"}), {"zone": "x"}),
        after=("x", "y"),
        env={"A": "b"},
        container=True,
    )
    assert job_from_text(job_to_text(job)) == job
    assert placements_from_text(placements_to_text(SLOT)) == SLOT


def test_equal_jobs_have_equal_texts_whatever_the_order_of_their_parts():
    one = command(
        "a", resources=Resources(gpu_models=frozenset({"x", "y", "z"})), env={"a": "", "b": ""}
    )
    two = command(
        "a", resources=Resources(gpu_models=frozenset({"z", "y", "x"})), env={"b": "", "a": ""}
    )
    assert job_to_text(one) == job_to_text(two)


def test_submitted_jobs_are_queued_in_their_order(journal):
    told = submit(journal, command("z"), command("a"))
    assert told.added == ["z", "a"]
    assert [(record.id, record.state) for record in journal.records()] == [
        ("z", State.QUEUED),
        ("a", State.QUEUED),
    ]


def test_jobs_of_one_submission_are_ready_at_the_same_moment(tmp_path):
    """So the planner may take the longest first, also where they are run again."""
    ticks = itertools.count(1000.0)
    with Journal.open(tmp_path / "j", create=True, clock=lambda: next(ticks)) as journal:
        submit(journal, command("a"), command("b"))
        assert len({record.since_s for record in journal.records()}) == 1
        for name in "ab":
            journal.move(name, State.RUNNING, placements=SLOT, attempt=1)
            journal.move(name, State.FAILED)
        submit(journal, command("a"), command("b"), again=True)
        assert len({record.since_s - record.wait_s for record in journal.records()}) == 1


def test_submitting_the_same_again_changes_nothing(journal):
    submit(journal, command("a"))
    told = submit(journal, command("a"))
    assert (told.added, told.changed, told.again, told.left) == ([], [], [], {})
    assert journal.events() == []


def test_a_new_definition_is_taken_over_while_the_job_waits_and_only_told_of_later(journal):
    submit(journal, command("a"), command("b"))
    journal.move("b", State.RUNNING, placements=SLOT, attempt=1)
    journal.move("b", State.DONE)
    changed = [command("a", priority=5), command("b", priority=5), command("c")]
    told = submit(journal, *changed)
    assert (told.added, told.changed, told.left) == (["c"], ["a"], {"b": State.DONE})
    assert journal.record("a").job.priority == 5
    assert journal.record("b").job.priority == 0
    told = submit(journal, *changed, again=True)
    assert (told.again, told.left) == (["b"], {})
    assert journal.record("b").state is State.QUEUED
    assert journal.record("b").attempt == 1  # the next one is the second


def test_again_runs_what_failed_but_not_what_is_done_and_unchanged(journal):
    submit(journal, command("done"), command("failed"))
    for name, end in (("done", State.DONE), ("failed", State.FAILED)):
        journal.move(name, State.RUNNING, placements=SLOT, attempt=1)
        journal.move(name, end)
    assert submit(journal, command("done"), command("failed"), again=True).again == ["failed"]


def test_every_change_of_state_is_an_event_and_the_wait_is_counted(tmp_path):
    now = [100.0]
    with Journal.open(tmp_path / "s", create=True, clock=lambda: now[0]) as journal:
        submit(journal, command("a"))
        now[0] = 107.0
        journal.move("a", State.RUNNING, placements=SLOT, attempt=1)
        journal.note("a", starts=1, last_step="load")
        now[0] = 110.0
        journal.move("a", State.HELD, "exit 1")
        record = journal.record("a")
        assert (record.wait_s, record.started_s, record.since_s) == (7.0, 107.0, 110.0)
        assert (record.placements, record.cause, record.last_step) == (SLOT, "exit 1", "load")
        now[0] = 111.0
        journal.move("a", State.LOST, "server a died")
        journal.move("a", State.QUEUED)
        assert journal.record("a").placements == ()
        assert [(event.before, event.after, event.attempt) for event in journal.events("a")] == [
            (State.QUEUED, State.RUNNING, 1),
            (State.RUNNING, State.HELD, 1),
            (State.HELD, State.LOST, 1),
            (State.LOST, State.QUEUED, 1),
        ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(State), max_size=12))
def test_only_what_may_follow_follows_and_a_refused_move_changes_nothing(wanted):
    name = "a"
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal.open(Path(folder), create=True) as journal,
    ):
        submit(journal, command(name))
        state, moves = State.QUEUED, 0
        for after in wanted:
            if after in FOLLOWING[state]:
                journal.move(name, after)
                state, moves = after, moves + 1
            else:
                with pytest.raises(ValueError, match="can't follow"):
                    journal.move(name, after)
            assert journal.record(name).state is state
        assert len(journal.events(name)) == moves
        assert (journal.record(name).ended_s > 0) == (state in OVER)


def test_an_unknown_job_is_named(journal):
    with pytest.raises(InputError, match="no job `x`"):
        journal.record("x")


def test_requests_are_answered_once_and_their_content_goes(journal):
    submit(journal, command("a"))
    number = journal.ask("a", "patch", {"patch": {"env": {"secret": "1"}}})
    assert [(each.number, each.kind) for each in journal.requests()] == [(number, "patch")]
    assert journal.answer_of(number) is None
    journal.answer(number, Answer(True, "fine"))
    journal.answer(number, Answer(False, "late"))
    assert journal.answer_of(number) == Answer(True, "fine")
    assert journal.requests() == []
    assert journal._connection.execute("SELECT body FROM requests").fetchone()[0] == "{}"


def test_a_second_submitter_is_told_who_the_first_is(journal):
    assert journal.take_lease() is None
    journal.beat("addr")
    with Journal.open(journal.folder) as other:
        lease = other.take_lease()
        assert lease is not None
        assert (lease.pid, lease.address) == (os.getpid(), "addr")
        journal.drop_lease()
        assert other.lease() is None
        assert other.take_lease() is None
        assert other.last_lease().address == "addr"
        with pytest.raises(LeaseLostError, match="another submitter"):
            journal.beat()


def _hold_lease(folder: Path, ready) -> None:
    journal = Journal.open(folder)
    journal.take_lease()
    ready.set()
    signal.pause()


def test_the_lease_of_a_killed_submitter_is_free_at_once(journal):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold_lease, args=(journal.folder, ready))
    process.start()
    assert ready.wait(30)
    assert journal.take_lease() is not None
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but not yet buried
    assert journal.take_lease() is None
    process.join()


def test_a_copy_knows_its_original_and_has_no_part_in_its_lease(tmp_path):
    with Journal.open(tmp_path / "s", create=True) as journal:
        assert journal.original() is None
        submit(journal, command("x"))
        assert journal.take_lease() is None
        shutil.copytree(tmp_path / "s", tmp_path / "copy")
        (tmp_path / "link").symlink_to(tmp_path / "s")
        with Journal.open(tmp_path / "link") as same:
            assert same.original() is None
            assert same.lease().pid == os.getpid()
    with Journal.open(tmp_path / "copy") as copy:
        assert copy.lease() is None
        assert copy.take_lease() is None
        assert copy.original() == tmp_path / "s"
        copy.beat()  # it was found to be a batch of its own
        assert copy.original() is None
    (tmp_path / "s").rename(tmp_path / "moved")
    with Journal.open(tmp_path / "moved") as moved:
        assert moved.original() is None


def test_a_lease_of_another_host_goes_stale_without_beats(tmp_path):
    now = [1000.0]
    with Journal.open(tmp_path / "s", create=True, clock=lambda: now[0]) as journal:
        journal.take_lease()
        journal._connection.execute("UPDATE lease SET host = 'elsewhere', nonce = 'theirs'")
        now[0] = 1050.0
        assert journal.take_lease() is not None
        now[0] = 1061.0
        assert journal.take_lease() is None


WRITER = """
import os, sys, signal
from pathlib import Path
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.submitting import journal_file
from ort_optim.cluster.submitting.journal import Journal
journal = Journal.open(Path(sys.argv[1]), create=True)
for index in range(1000):
    jobs = [Job(f"{index}-{part}", command=("true",)) for part in range(3)]
    journal.submit(jobs, {job.id: "ann" for job in jobs}, {"ann": "d"})
    print(index, flush=True)
"""


def test_a_killed_writer_leaves_whole_transactions_and_all_it_told_of(tmp_path):
    for round_number in range(3):
        folder = tmp_path / str(round_number)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(1 + 5 * round_number):
                told = int(writer.stdout.readline())
            writer.kill()
        with Journal.open(folder) as journal:
            count = len(journal.records())
        assert count % 3 == 0
        assert count >= 3 * (told + 1)


def test_a_rerun_keeps_the_definition_of_the_file(journal):
    job = command("a")
    submit(journal, job)
    journal.move("a", State.CANCELLED)
    submit(journal, replace(job, priority=3), again=True)
    assert journal.record("a").job.priority == 3
