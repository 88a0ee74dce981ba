"""Jobs on several servers: who runs where, and what the job's state is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.gang import (
    WORST_FIRST,
    environment_of,
    folder_of,
    members_of,
    together,
)

TWO = (Placement("a", 1, 1), Placement("b", 1, 1))


def status(state: State, cause: str = "", start: int = 1) -> Status:
    return Status(state, cause, 1, start, None, "", "", "", 0.0)


def test_a_command_runs_on_each_server_and_a_model_on_the_first():
    assert members_of(Job("c", command=("x",)), TWO) == TWO
    assert members_of(Job("m", model=Path("m"), output=Path("o")), TWO) == TWO[:1]


def test_processes_have_folders_of_their_own_which_no_id_can_meet():
    state = Path("/s")
    folders = {folder_of(state, job, rank) for job in ("a", "1", "ranks") for rank in range(3)}
    assert len(folders) == 9
    assert folder_of(state, "a", 0) == state / "jobs" / "a"


def test_each_process_learns_its_rank_and_the_addresses():
    assert environment_of(1, TWO, {"a": "10.0.0.1"}) == {
        "ORT_OPTIM_RANK": "1",
        "ORT_OPTIM_SERVERS": "10.0.0.1,b",
    }
    assert environment_of(0, TWO[:1], {}) == {}


@given(st.lists(st.sampled_from(WORST_FIRST), min_size=2, max_size=4))
def test_the_worst_state_is_the_job_s_and_names_its_server(states):
    placements = [Placement(f"s{index}", 1, 1) for index in range(len(states))]
    told = together([status(state, "why") for state in states], placements)
    assert told.state is min(states, key=WORST_FIRST.index)
    assert told.cause == f"on s{states.index(told.state)}: why"


@pytest.mark.parametrize("starts", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_each_restart_of_any_process_makes_the_count_grow(starts):
    told = together([status(State.RUNNING, start=start) for start in starts], TWO)
    assert told.start == sum(starts) - 1


def test_done_only_when_all_are():
    done, runs = status(State.DONE), status(State.RUNNING)
    assert together([done, runs], TWO).state is State.RUNNING
    assert together([done, done], TWO).state is State.DONE
