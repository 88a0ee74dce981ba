"""What a submitter prints, line by line, where there is no terminal."""

import io
from types import SimpleNamespace

from rich.console import Console

from ort_optim.cli.batch.progress import Board
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.states import Record, State


def record(name: str, state: State) -> Record:
    job = Job(name, command=("true",))
    return Record(job, 0, "", state, "exit 1", "", 1, 1, (), 0.0, 0.0, 0.0, 0.0, "", "")


def printed(*turns: dict[str, State]) -> list[str]:
    file = io.StringIO()
    board = Board(Console(file=file, width=200))
    for states in turns:
        records = {name: record(name, state) for name, state in states.items()}
        board(SimpleNamespace(records=records))
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


def test_nothing_is_told_while_something_runs_or_nobody_waits() -> None:
    one = {"a": State.HELD, "b": State.QUEUED, "c": State.RUNNING}
    other = {"a": State.HELD, "b": State.DONE}
    assert not [line for line in printed(one, other) if "nothing runs" in line]
