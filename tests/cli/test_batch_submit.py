"""`batch submit` and what owners do from other terminals, with real keepers, without Ray."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ort_optim.cli import main
from ort_optim.cli.batch import submit as submit_module
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.ray.actor_backend import ActorBackend
from ort_optim.cluster.states import OVER, State
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.tokens import token_file
from tests.cluster.thread_door import ThreadDoor

WAIT_S = 30.0


class Desk:
    """A folder with a job file, and the terminals of its owner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / "jobs.yaml"
        self.doors: list[ThreadDoor] = []
        self.address = "local"
        self._meanwhile: list[threading.Thread] = []
        self._failed: list[BaseException] = []

    def connect(self, address, state, wanted=None, *, transfer=False):
        door = ThreadDoor("n1", "n2", address=self.address)
        self.doors.append(door)
        return ActorBackend(door, state, wanted, transfer=transfer)

    def jobs(self, *lines: str) -> None:
        text = "version: 1\njobs:\n" + "".join(f"  - {{{line}}}\n" for line in lines)
        self.file.write_text(text)

    def batch(self, *words: str) -> int:
        return main(["batch", words[0], "--state", str(self.state), *words[1:]])

    def submit(self, *words: str) -> int:
        self._running = True
        code = self.batch("submit", str(self.file), *words)
        self._running = False
        for thread in self._meanwhile:
            thread.join(WAIT_S)
        self._meanwhile.clear()
        if self._failed:
            raise self._failed.pop()
        return code

    def meanwhile(self, act: Callable[[], object]) -> None:
        """Do this while `submit` runs, which a failure ends."""

        def run() -> None:
            try:
                act()
            except BaseException as error:
                self._failed.append(error)
                if self._running:
                    os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=run)
        self._meanwhile.append(thread)
        thread.start()

    def until_state(self, job: str, state: State) -> None:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            if (self.state / "journal.sqlite").exists():
                with Journal.open(self.state, create=True) as journal:
                    found = {record.id: record.state for record in journal.records()}
                if found.get(job) is state:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{job} did not become {state}")

    def record(self, job: str):
        with Journal.open(self.state) as journal:
            return journal.record(job)

    def path(self, job: str) -> list[State]:
        with Journal.open(self.state) as journal:
            return [event.after for event in journal.events(job)]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home-state"))
    made = Desk(tmp_path)
    monkeypatch.setattr(submit_module, "connect", made.connect)
    yield made
    for file in made.state.glob("jobs/*/state.json"):
        Supervisor(file.parent).stop()
    for door in made.doors:
        door.close()


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


def test_a_held_job_is_patched_and_restarted_by_its_owner(desk, capsys):
    desk.jobs(
        "id: bad, command: [sh, -c, 'cat data && test -n \"$FIXED\"']", "id: x, command: ['true']"
    )
    (desk.folder / "source").write_text("content")

    def owner() -> None:
        desk.until_state("bad", State.HELD)
        assert desk.batch("patch", "bad", "--file", f"{desk.folder}/source:data") == 0
        assert desk.batch("restart", "bad", "--env", "FIXED=1") == 0

    desk.meanwhile(owner)
    assert desk.submit() == 0
    out = capsys.readouterr().out
    assert "bad HELD: exit 1 (`batch debug bad`, then `batch restart bad`)" in out
    assert "bad is RUNNING: start 2" in out
    assert desk.path("bad") == [State.RUNNING, State.HELD, State.RUNNING, State.DONE]
    assert "content" in (desk.state / "jobs/bad/log").read_text()


def test_a_released_job_makes_exit_code_3_and_leaves_an_archive(desk, capsys):
    desk.jobs("id: bad, command: ['false']", "id: next, command: ['true'], after: [bad]")

    def owner() -> None:
        desk.until_state("bad", State.HELD)
        assert desk.batch("release", "bad") == 0

    desk.meanwhile(owner)
    assert desk.submit() == 3
    assert desk.record("bad").state is State.FAILED
    assert desk.record("next").state is State.FAILED
    assert (desk.state / "archives/bad-1.tar.gz").is_file()
    assert "2 jobs: 2 failed" in capsys.readouterr().out


def test_without_hold_faults_are_over_at_once(desk):
    desk.jobs("id: bad, command: ['false']")
    assert desk.submit("--no-hold") == 3
    assert desk.path("bad") == [State.RUNNING, State.HELD, State.FAILED]


def test_cancel_and_status_from_another_terminal(desk, capsys):
    desk.jobs("id: x, command: [sleep, '60']")

    def owner() -> None:
        desk.until_state("x", State.RUNNING)
        assert desk.batch("status", "--json") == 0
        assert desk.batch("cancel", "x") == 0

    desk.meanwhile(owner)
    assert desk.submit("--quiet") == 3
    out = capsys.readouterr().out
    told = json.loads(out[: out.rindex("}") + 1])
    assert told["submitter"]["pid"] == os.getpid()
    assert [(job["job"], job["state"]) for job in told["jobs"]] == [("x", "RUNNING")]
    assert told["jobs"][0]["placements"][0]["server"] == "n1"
    assert "x is CANCELLED" in out


def test_debug_runs_a_command_in_the_folder_of_a_held_job(desk, capfd):
    desk.jobs("id: bad, command: [sh, -c, 'echo trace > here; exit 4']")

    def owner() -> None:
        desk.until_state("bad", State.HELD)
        assert desk.batch("debug", "bad", "--", "sh", "-c", "cat here; exit 7") == 7
        assert desk.batch("release", "bad") == 0

    desk.meanwhile(owner)
    assert desk.submit() == 3
    out, err = capfd.readouterr()
    assert "trace" in out
    assert "HELD: exit 4" in err


def test_interrupted_on_this_machine_it_goes_on_at_the_next_submit(desk, capsys):
    desk.jobs("id: x, command: [sh, -c, 'echo ran >> times; test -e go || sleep 60']")

    def owner() -> None:
        desk.until_state("x", State.RUNNING)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    desk.meanwhile(owner)
    assert desk.submit() == 130
    assert "submit the same file again to go on" in capsys.readouterr().out
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


def test_only_the_owner_may_act(desk, capsys):
    desk.jobs("id: x, command: ['false'], owner: ann")

    def other() -> None:
        desk.until_state("x", State.HELD)
        token = token_file("ann").read_text()
        token_file("ann").write_text("0" * 64)
        for words in (("restart", "x"), ("release", "x"), ("cancel", "x"), ("debug", "x")):
            assert desk.batch(*words) == 2
        assert desk.batch("patch", "x", "--env", "A=b") == 2
        assert desk.batch("submit", str(desk.file)) == 2
        token_file("ann").unlink()
        assert desk.batch("restart", "x") == 2
        token_file("ann").write_text(token)
        token_file("ann").chmod(0o600)
        assert desk.batch("release", "x") == 0

    desk.meanwhile(other)
    assert desk.submit() == 3
    err = capsys.readouterr().err
    assert err.count("belongs to another ann") == 6
    assert "whose token you do not have" in err
    assert desk.path("x") == [State.RUNNING, State.HELD, State.FAILED]


@pytest.mark.parametrize("destination", ["../out", "/tmp/out", "a/../../out"])
def test_paths_out_of_the_work_folder_are_refused(desk, capsys, destination):
    desk.jobs("id: x, command: ['true']")
    desk.submit()
    (desk.folder / "source").write_text("")
    assert desk.batch("patch", "x", "--file", f"{desk.folder}/source:{destination}") == 2
    assert "leaves the work folder" in capsys.readouterr().err


def test_requests_without_a_submitter_say_how_to_go_on(desk, capsys):
    desk.jobs("id: x, command: ['true']")
    desk.submit()
    assert desk.batch("cancel", "x") == 2
    assert "start `batch submit` with the same file again" in capsys.readouterr().err


def test_the_batch_submitted_last_is_meant_when_nothing_is_said(desk, capsys):
    assert main(["batch", "status"]) == 2
    assert "--state DIR" in capsys.readouterr().err
    desk.jobs("id: x, command: ['true']")
    desk.submit("--quiet")
    assert main(["batch", "status"]) == 0
    assert str(desk.state) in capsys.readouterr().out
    assert all(record_state in OVER for record_state in [desk.record("x").state])


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
