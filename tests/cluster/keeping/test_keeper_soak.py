"""Injected failures, many at a time: each is held with its cause, restarted, and accounted for."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.keeping.container import find_tool
from ort_optim.cluster.keeping.status import Fault, Patch, PatchFile
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, keeper_pid, until

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


def kill_at(jobs: Jobs, number: int, delay_s: float, *, container: bool) -> None:
    """Kill a keeper while its job fails, is restarted, patched or released."""
    script = "setsid sleep 600 & sleep 0.05; exit 1"
    supervisor = jobs.start("sh", "-c", script, name=f"chaos-{number}", container=container)
    pid = keeper_pid(supervisor)
    killer = threading.Timer(delay_s, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        while supervisor.status().state is not State.LOST:
            with contextlib.suppress(InputError):  # it runs just now
                supervisor.restart(Patch(env={"A": "b"}))
    finally:
        killer.join()
    assert supervisor.status().cause == "its keeper was killed"
    assert jobs.start("true", name=f"chaos-{number}", attempt=2).status().attempt == 2
    assert jobs.settled(supervisor).state is State.DONE


def test_a_keeper_that_is_killed_at_any_moment_leaves_nothing_but_a_readable_state(
    jobs: Jobs,
) -> None:
    contain = can_contain()
    for number in range(8):
        kill_at(jobs, number, 0.03 * number, container=contain and number % 2 == 1)
    until(lambda: not jobs.left())


def test_a_dozen_injected_failures_are_accounted_for(jobs: Jobs) -> None:
    soak(jobs, 12)


@pytest.mark.slow
def test_200_injected_failures_are_accounted_for(jobs: Jobs) -> None:
    soak(jobs, 200)
