"""`batch submit`, with real keepers, without Ray: what is run, refused, gone on with."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ort_optim.cli import main
from ort_optim.cli.batch import submit as submit_module
from ort_optim.cluster.states import OVER, State
from ort_optim.cluster.submitting.journal import Journal
from tests.cli.batch_desk import WAIT_S


def test_all_done_is_exit_code_0_with_a_line_per_event_and_a_summary(desk, capsys):
    desk.jobs("id: x, command: [echo, hello]", "id: y, command: ['true'], after: [x]")
    assert desk.submit("--summary", str(desk.folder / "s.md")) == 0
    out = capsys.readouterr().out
    assert "x RUNNING on n1" in out
    assert "y DONE" in out
    assert "2 jobs: 2 done" in out
    assert "| <code>x</code> | DONE |" in (desk.folder / "s.md").read_text()
    assert desk.batch("logs", "x") == 0
    assert "hello" in capsys.readouterr().out


def test_submitting_again_runs_nothing_twice_and_takes_new_jobs(desk, capsys):
    line = "id: x, command: [sh, -c, 'echo ran >> times']"
    desk.jobs(line)
    assert desk.submit() == 0
    assert desk.submit() == 0
    assert len(desk.doors) == 1  # the second time nothing had to be connected to
    desk.jobs(line, "id: y, command: ['true']")
    capsys.readouterr()
    assert desk.submit() == 0
    assert "2 jobs (1 new)" in capsys.readouterr().out
    assert (desk.state / "jobs/x/work/times").read_text() == "ran\n"


def test_a_changed_finished_job_is_told_of_and_runs_again_only_with_again(desk, capsys):
    desk.jobs("id: x, command: ['true']")
    desk.submit()
    desk.jobs("id: x, command: [echo, changed]")
    assert desk.submit() == 0
    assert "x has changed in the file, but is DONE: left as it was" in capsys.readouterr().out
    assert desk.submit("--again") == 0
    assert desk.record("x").attempt == 2
    assert "changed" in (desk.state / "jobs/x/log").read_text()


def test_without_hold_faults_are_over_at_once(desk):
    desk.jobs("id: bad, command: ['false']")
    assert desk.submit("--no-hold") == 3
    assert desk.path("bad") == [State.RUNNING, State.HELD, State.FAILED]


def test_interrupted_on_this_machine_it_goes_on_at_the_next_submit(desk, capsys):
    desk.jobs("id: x, command: [sh, -c, 'echo ran >> times; test -e go || sleep 60']")

    def owner() -> None:
        desk.until_state("x", State.RUNNING)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    desk.meanwhile(owner)
    assert desk.submit() == 130
    out = capsys.readouterr().out
    assert out.count("interrupted: ending what runs (once more leaves it running)") == 1
    assert "submit the same file again to go on" in out
    assert desk.record("x").state is State.QUEUED
    (desk.state / "jobs/x/work/go").touch()
    assert desk.submit() == 0
    assert desk.record("x").attempt == 2


def test_interrupted_on_a_cluster_jobs_go_on_and_are_found_again(desk, capsys):
    desk.address = "head:6379"
    desk.jobs(
        "id: x, command: [sh, -c, 'echo ran >> times; while ! test -e go; do sleep 0.1; done']"
    )

    def owner() -> None:
        desk.until_state("x", State.RUNNING)
        until_s = time.monotonic() + WAIT_S
        while not (desk.state / "jobs/x/work/times").exists() and time.monotonic() < until_s:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    desk.meanwhile(owner)
    assert desk.submit("--address", "head:6379") == 128 + signal.SIGTERM
    assert desk.record("x").state is State.RUNNING
    with Journal.open(desk.state) as journal:
        assert journal.lease() is None
    for words in ([], ["--address", "head:6379", "--transfer"]):  # not where, or how, they run
        assert desk.submit(*words) == 2
        assert "submit that way" in capsys.readouterr().err
    (desk.state / "jobs/x/work/go").touch()
    assert desk.submit("--address", "head:6379") == 0
    assert (desk.state / "jobs/x/work/times").read_text() == "ran\n"
    assert desk.record("x").attempt == 1


def test_a_second_submitter_is_refused_or_waits(desk, capsys):
    desk.jobs("id: x, command: [sh, -c, 'while ! test -e go; do sleep 0.05; done']")
    codes = []

    def second() -> None:
        desk.until_state("x", State.RUNNING)
        codes.append(desk.batch("submit", str(desk.file)))
        waiter = threading.Thread(
            target=lambda: codes.append(desk.batch("submit", str(desk.file), "--wait"))
        )
        waiter.start()
        time.sleep(0.3)
        (desk.state / "jobs/x/work/go").touch()
        waiter.join(WAIT_S)

    desk.meanwhile(second)
    assert desk.submit() == 0
    assert codes == [2, 0]
    assert f"process {os.getpid()}" in capsys.readouterr().err
    assert desk.record("x").attempt == 1


def test_what_no_server_can_take_is_refused_before_anything_starts(desk, capsys):
    desk.jobs("id: ok, command: ['true']", "id: big, command: ['true'], resources: {cpus: 5}")
    assert desk.submit() == 2
    assert "job big can't be placed" in capsys.readouterr().err
    with Journal.open(desk.state) as journal:
        assert journal.records() == []
        assert journal.lease() is None


def test_what_was_refused_is_not_the_batch_submitted_last(desk, capsys):
    desk.jobs("id: ok, command: ['true']")
    assert desk.submit() == 0
    big = desk.folder / "big.yaml"
    big.write_text("version: 1\njobs: [{id: x, command: ['true'], resources: {cpus: 5}}]\n")
    assert main(["batch", "submit", str(big)]) == 2
    capsys.readouterr()
    assert main(["batch", "status"]) == 0
    assert str(desk.state) in capsys.readouterr().out


def test_jobs_that_left_the_file_are_told_of(desk, capsys):
    desk.jobs("id: x, command: [sleep, '60']", "id: y, command: ['true'], after: [x]")

    def owner() -> None:
        desk.until_state("x", State.RUNNING)
        os.kill(os.getpid(), signal.SIGINT)

    desk.meanwhile(owner)
    assert desk.submit() == 130
    assert "interrupted: 1 running job ended; submit the same file" in capsys.readouterr().out
    desk.jobs("id: z, command: ['true']")

    def again() -> None:
        desk.until_state("x", State.RUNNING)
        assert desk.batch("cancel", "x") == 0

    desk.meanwhile(again)
    assert desk.submit() == 3
    out = capsys.readouterr().out
    for job in "xy":
        assert f"{job} is not in the file any more, and QUEUED all the same" in out
    assert desk.record("z").state is State.DONE


def test_the_batch_submitted_last_is_meant_when_nothing_is_said(desk, capsys):
    assert main(["batch", "status"]) == 2
    assert "--state DIR" in capsys.readouterr().err
    desk.jobs("id: x, command: ['true']")
    desk.submit("--quiet")
    assert main(["batch", "status"]) == 0
    assert str(desk.state) in capsys.readouterr().out
    assert desk.record("x").state in OVER


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--summary", "s.txt"], "must end in"),
        (["--summary", "s.json"], "must end in .md or .html"),
        (["--held-share", "2"], "no share between 0 and 1"),
        (["--cluster", "missing.yaml"], "missing.yaml"),
    ],
)
def test_bad_arguments_are_one_line_before_anything_starts(desk, capsys, words, message):
    desk.jobs("id: x, command: ['true']")
    assert desk.submit(*words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert desk.doors == []


def test_without_ray_the_extra_is_named(desk, capsys, monkeypatch):
    monkeypatch.setattr(submit_module.importlib.util, "find_spec", lambda _: None)
    desk.jobs("id: x, command: ['true']")
    assert desk.submit() == 2
    assert 'pip install "ort_optim[cluster]"' in capsys.readouterr().err


def test_a_forged_journal_stops_everything(desk, capsys):
    desk.state.mkdir(mode=0o700)
    (desk.state / "journal.sqlite").write_bytes(b"forged" * 1000)
    (desk.state / "journal.sqlite").chmod(0o600)
    desk.jobs("id: x, command: ['true']")
    assert desk.submit() == 2
    assert "damaged" in capsys.readouterr().err
    assert desk.doors == []
