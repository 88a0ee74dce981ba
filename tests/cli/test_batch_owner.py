"""What owners do to their jobs from other terminals while `submit` runs, and who may not."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import tracemalloc

import pytest

from ort_optim.cli import main
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.tokens import token_file
from tests.cli.batch_desk import WAIT_S


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
        state = str(desk.state)
        assert main(["batch", "debug", "bad", "--state", state, "--", "echo", "--", "-n"]) == 0
        assert main(["batch", "debug", "bad", "cat", "--state", state]) == 2
        assert desk.batch("release", "bad") == 0

    desk.meanwhile(owner)
    assert desk.submit() == 3
    out, err = capfd.readouterr()
    assert "trace\n-- -n\n" in out
    assert "HELD: exit 4" in err
    assert "unrecognized arguments: cat" in err


def test_debug_and_logs_reach_the_process_of_a_gang_that_is_held(desk, capfd):
    script = "echo rank $ORT_OPTIM_RANK; test $ORT_OPTIM_RANK = 0"
    desk.jobs(f"id: g, command: [sh, -c, '{script}'], resources: {{servers: 2}}")

    def owner() -> None:
        desk.until_state("g", State.HELD)
        assert desk.batch("logs", "g", "--rank", "1") == 0
        assert desk.batch("logs", "g") == 0
        show = ("--", "sh", "-c", "echo debug $ORT_OPTIM_RANK")
        assert desk.batch("debug", "g", *show) == 0
        assert desk.batch("debug", "--rank", "1", "g", *show) == 0
        for command in (("logs", "g", "--rank", "2"), ("debug", "--rank", "-1", "g")):
            assert desk.batch(*command) == 2
        assert desk.batch("release", "g") == 0

    desk.meanwhile(owner)
    assert desk.submit("--quiet") == 3
    out, err = capfd.readouterr()
    lines = [line for line in out.splitlines() if line.startswith(("rank", "debug"))]
    assert lines == ["rank 1", "rank 0", "debug 1", "debug 1"]
    assert err.count("rank 1, on n2: HELD: exit 1") == 2
    assert "g has no process of rank 2: it has processes of ranks 0 to 1" in err
    assert "g has no process of rank -1" in err


def test_a_log_of_any_size_is_followed_over_its_release(desk, capfd):
    desk.jobs("id: x, command: [sh, -c, 'truncate -s 1G ../log; echo end >> ../log; exit 1']")
    codes = []

    def owner() -> None:
        desk.until_state("x", State.HELD)
        follower = threading.Thread(target=lambda: codes.append(desk.batch("logs", "x", "-fn1")))
        follower.start()
        time.sleep(0.5)
        assert desk.batch("release", "x") == 0
        follower.join(WAIT_S)

    desk.meanwhile(owner)
    tracemalloc.start()
    assert desk.submit("--quiet") == 3
    assert tracemalloc.get_traced_memory()[1] < 256 << 20
    tracemalloc.stop()
    assert codes == [0]
    assert capfd.readouterr().out.count("end\n") == 1


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


def test_a_copy_of_the_state_folder_does_not_reach_the_jobs_of_the_original(desk, capsys):
    desk.jobs("id: bad, command: ['false']")
    copy = desk.folder / "copy"

    def owner() -> None:
        desk.until_state("bad", State.HELD)
        shutil.copytree(desk.state, copy)
        assert main(["batch", "restart", "bad", "--state", str(copy)]) == 2
        assert main(["batch", "submit", str(desk.file), "--state", str(copy)]) == 2
        assert main(["batch", "debug", "bad", "--state", str(copy), "--", "true"]) == 2
        assert desk.batch("release", "bad") == 0

    desk.meanwhile(owner)
    assert desk.submit() == 3
    err = capsys.readouterr().err
    assert "no submitter runs for these jobs" in err
    assert f"bad is HELD in {desk.state}, which this folder is a copy of" in err
    assert f"bad is in {desk.state}, which this folder is a copy of" in err
    assert desk.path("bad") == [State.RUNNING, State.HELD, State.FAILED]


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
