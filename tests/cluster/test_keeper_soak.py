"""Injected failures, many at a time: each is held with its cause, restarted, and accounted for."""

from __future__ import annotations

import collections
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from ort_optim.cluster.container import find_tool
from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.states import State
from ort_optim.cluster.status import Fault, Patch, PatchFile
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs

HOG = "python3 -c \"import time; x = b'1' * (100 << 20); time.sleep(600)\""
INJECTED = {
    "exit 1": ("exit 1", Fault.EXIT),
    "exit 2": ("exit 2", Fault.BAD_INPUT),
    "exit 3": ("exit 3", Fault.VERIFICATION),
    "killed": ("kill -KILL $$", Fault.SIGNAL),
    "memory": (HOG, Fault.MEMORY),
    "hung": ("sleep 600", Fault.NO_PROGRESS),
}
LIMITS = {"memory": {"resources": Resources(memory=60 << 20)}, "hung": {"timeout_s": 0.3}}
AT_A_TIME = 6


def can_contain() -> bool:
    try:
        return bool(find_tool())
    except InputError:
        return False


def inject(jobs: Jobs, number: int, kind: str, *, container: bool) -> str:
    """One failing job from start to end; what became of it."""
    script, fault = INJECTED[kind]
    work = f"echo $$ >> starts; test -e fixed && exit 0; {script}"
    name = f"{number}-{kind.replace(' ', '-')}"
    supervisor = jobs.start(
        "sh", "-c", work, name=name, container=container, **LIMITS.get(kind, {})
    )
    held = jobs.settled(supervisor)
    assert (held.state, held.fault, held.start) == (State.HELD, fault, 1), held
    supervisor.restart()
    again = jobs.settled(supervisor)
    assert (again.state, again.fault, again.start) == (State.HELD, fault, 2), again
    if number % 3 == 0:
        over = supervisor.release()
        assert over.state is State.FAILED
    else:
        supervisor.restart(Patch(files=(PatchFile("fixed", b""),)))
        over = jobs.settled(supervisor)
        assert (over.state, over.start) == (State.DONE, 3), over
        starts = (supervisor.folder / "work" / "starts").read_text().split()
        assert len(starts) == 3
    assert over.container == again.container == held.container
    assert (over.container != "") == container
    return f"{over.state}"


def soak(jobs: Jobs, count: int) -> None:
    contain = can_contain()
    kinds = list(itertools.islice(itertools.cycle(INJECTED), count))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        ends = collections.Counter(
            pool.map(
                lambda each: inject(jobs, *each, container=contain and each[0] % 4 == 1),
                enumerate(kinds),
            )
        )
    released = len(range(0, count, 3))
    assert ends == {State.FAILED: released, State.DONE: count - released}
    assert not jobs.left()


def test_a_dozen_injected_failures_are_accounted_for(jobs: Jobs) -> None:
    soak(jobs, 12)


@pytest.mark.slow
def test_200_injected_failures_are_accounted_for(jobs: Jobs) -> None:
    soak(jobs, 200)
