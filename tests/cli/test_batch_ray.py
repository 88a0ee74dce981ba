"""`batch submit` as a program, with Ray on this machine: killed, interrupted, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.journal import Journal
from tests.toolbox import ROOT

pytest.importorskip("ray")

WAIT_S = 90.0


class Program:
    """The command line in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.env = os.environ | {
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "home-state"),
            "PYTHONPATH": str(ROOT),
        }

    def begin(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ort_optim",
                "batch",
                words[0],
                "--state",
                self.state,
                *words[1:],
            ],
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str) -> tuple[int, str]:
        process = self.begin(*words)
        out, _ = process.communicate(timeout=WAIT_S)
        return process.returncode, out

    def until(self, **wanted: State) -> None:
        until_s = time.monotonic() + WAIT_S
        found: dict[str, State] = {}
        while time.monotonic() < until_s:
            if (self.state / "journal.sqlite").exists():
                with Journal.open(self.state, create=True) as journal:
                    found = {record.id: record.state for record in journal.records()}
                if all(found.get(job) is state for job, state in wanted.items()):
                    return
            time.sleep(0.1)
        raise AssertionError(f"only {found}")


def test_a_killed_submitter_loses_nothing_and_runs_nothing_twice(tmp_path):
    program = Program(tmp_path)
    wait = "while ! test -e go; do sleep 0.1; done"
    (tmp_path / "jobs.yaml").write_text(
        f"""
version: 1
defaults: {{resources: {{cpus: 0.25}}}}
jobs:
  - {{id: runs, command: [sh, -c, 'echo ran >> times; {wait}']}}
  - {{id: fails, command: [sh, -c, 'echo ran >> times; test -e go']}}
  - {{id: done, command: [sh, -c, 'echo ran >> times']}}
  - {{id: waits, command: [sh, -c, 'echo ran >> times'], after: [runs, fails]}}
"""
    )
    first = program.begin("submit", "jobs.yaml")
    program.until(runs=State.RUNNING, fails=State.HELD, done=State.DONE)
    while not (program.state / "jobs/runs/work/times").exists():
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert program.call("restart", "fails")[0] == 2  # nobody is there to do it
    second = program.begin("submit", "jobs.yaml")
    for job in ("runs", "fails"):
        (program.state / "jobs" / job / "work" / "go").touch()
    program.until(runs=State.DONE)
    begun_s = time.monotonic()
    code, out = program.call("restart", "fails")
    assert (code, out) == (0, "fails is RUNNING: start 2\n"), f"{time.monotonic() - begun_s} s"
    out, _ = second.communicate(timeout=WAIT_S)
    assert second.returncode == 0, out
    times = {
        job: (program.state / "jobs" / job / "work" / "times").read_text().count("ran")
        for job in ("runs", "fails", "done", "waits")
    }
    assert times == {"runs": 1, "fails": 2, "done": 1, "waits": 1}
    with Journal.open(program.state) as journal:
        assert {record.attempt for record in journal.records()} == {1}
        assert State.QUEUED not in {event.after for event in journal.events()}


@pytest.mark.slow
def test_interrupted_from_the_keyboard_it_ends_and_goes_on(tmp_path):
    program = Program(tmp_path)
    (tmp_path / "jobs.yaml").write_text(
        "version: 1\njobs: [{id: x, command: [sh, -c, 'test -e go || sleep 60']}]\n"
    )
    first = program.begin("submit", "jobs.yaml")
    program.until(x=State.RUNNING)
    while not (program.state / "jobs/x/state.json").exists():
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: Ray's processes get it too
    out, _ = first.communicate(timeout=WAIT_S)
    assert first.returncode == 130, out
    assert "1 running job ended" in out
    (program.state / "jobs/x/work/go").touch()
    code, out = program.call("submit", "jobs.yaml")
    assert code == 0, out
    with Journal.open(program.state) as journal:
        assert journal.record("x").attempt == 2
