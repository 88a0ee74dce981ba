"""What a submitter prints, line by line, where there is no terminal."""

import io
from types import SimpleNamespace

from rich.console import Console

from ort_optim.cli.batch.progress import Board
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.states import Record, State
from ort_optim.cluster.submitting.driver import Limits


def record(name: str, state: State) -> Record:
    job = Job(name, command=("true",))
    return Record(job, 0, "", state, "exit 1", "", 1, 1, (), 0.0, 0.0, 0.0, 0.0, "", "")


def printed(*turns: dict[str, State], hold: bool = True) -> list[str]:
    file = io.StringIO()
    board = Board(Console(file=file, width=200))
    for states in turns:
        records = {name: record(name, state) for name, state in states.items()}
        board(SimpleNamespace(records=records, limits=Limits(hold=hold)))
    return file.getvalue().splitlines()


def test_held_jobs_that_keep_all_others_waiting_are_told_of_once() -> None:
    stuck = {"a": State.HELD, "b": State.QUEUED, "c": State.QUEUED}
    lines = [line for line in printed(stuck, stuck) if "nothing runs" in line]
    assert len(lines) == 1
    assert "2 jobs may have to wait" in lines[0]


def test_they_are_told_of_again_when_it_happens_again() -> None:
    stuck = {"a": State.HELD, "b": State.QUEUED}
    going = {"a": State.RUNNING, "b": State.QUEUED}
    assert sum("nothing runs" in line for line in printed(stuck, going, stuck)) == 2


def test_nothing_of_it_is_told_while_something_runs() -> None:
    turn = {"a": State.HELD, "b": State.QUEUED, "c": State.RUNNING}
    assert not [line for line in printed(turn) if "nothing runs" in line]


def test_it_is_told_when_only_held_jobs_are_left() -> None:
    (line,) = [line for line in printed({"a": State.HELD, "b": State.DONE}) if "nothing" in line]
    assert "this waits until held ones are restarted or released" in line


def test_what_is_released_at_once_is_not_told_to_be_held() -> None:
    held, over = {"a": State.HELD, "b": State.QUEUED}, {"a": State.FAILED, "b": State.QUEUED}
    (line,) = printed(held, over, hold=False)
    assert "a FAILED: exit 1" in line
