"""A container lives exactly as long as its keeper, and lets nothing out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping import container
from ort_optim.cluster.keeping.status import Fault, Patch, PatchFile
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, is_running, keeper_pid, until
from tests.toolbox import environment


def works(tool: str) -> bool:
    try:
        return container.find_tool(tool) == tool
    except InputError:
        return False


@pytest.fixture(params=list(container.TOOLS))
def inside(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a job in a container, once for each tool that works here."""
    if not works(request.param):
        pytest.skip(f"{request.param} can't make containers here")
    return {"container": True, "container_tool": request.param}


needs_any = pytest.mark.skipif(
    not any(works(tool) for tool in container.TOOLS), reason="no tool for containers works here"
)


def namespace(pid: int | str) -> str:
    link = Path(f"/proc/{pid}/ns/pid").readlink().name
    return link.removeprefix("pid:[").removesuffix("]")


def test_the_container_stays_from_the_fault_through_the_restart(
    jobs: Jobs, inside: dict[str, Any]
) -> None:
    supervisor = jobs.start("sh", "-c", "readlink /proc/self/ns/pid; cat fixed", **inside)
    held = jobs.settled(supervisor)
    assert (held.state, held.cause) == (State.HELD, "exit 1")
    assert held.container not in ("", namespace("self"))
    keeper = keeper_pid(supervisor)
    assert namespace(keeper) == held.container
    for start in (2, 3):
        supervisor.restart()
        again = jobs.settled(supervisor)
        assert (again.start, again.container) == (start, held.container)
    supervisor.restart(Patch(files=(PatchFile("fixed", b"well"),)))
    done = jobs.settled(supervisor)
    assert (done.state, done.container) == (State.DONE, held.container)
    assert supervisor.log().count(f"pid:[{held.container}]") == 4
    until(lambda: not is_running(keeper))


def test_the_job_sees_no_process_of_the_machine(jobs: Jobs, inside: dict[str, Any]) -> None:
    supervisor = jobs.start("sh", "-c", "cat /proc/1/cmdline; ls -d /proc/[0-9]* | wc -l", **inside)
    jobs.settled(supervisor)
    last = supervisor.log().splitlines()[-1]
    assert "cluster.keeping" in last
    assert int(last.rpartition("\0")[2] or last.split()[-1]) < 10


def test_a_frozen_job_in_a_container_can_be_debugged_there_and_goes_on(
    jobs: Jobs, inside: dict[str, Any]
) -> None:
    script = "while ! test -e go; do sleep 0.01; done"
    supervisor = jobs.start("sh", "-c", script, timeout_s=0.3, **inside)
    status = jobs.settled(supervisor)
    assert (status.fault, status.frozen) == (Fault.NO_PROGRESS, True)
    assert {facts["state"] for facts in supervisor.processes()} == {"stopped"}
    look = f"grep -c stopped /proc/{status.pid}/status; readlink /proc/self/ns/pid; touch go"
    with supervisor.debug(["sh", "-c", look]) as session:
        code, out, _ = session.communicate()
    assert (code, out) == (0, f"1\npid:[{status.container}]\n".encode())
    supervisor.resume()
    assert jobs.settled(supervisor).state is State.DONE


def test_nothing_outlives_the_end_of_a_container(jobs: Jobs, inside: dict[str, Any]) -> None:
    daemon = "setsid setsid sh -c 'trap \"\" TERM; sleep 601' & setsid sleep 602 & sleep 603"
    supervisor = jobs.start("sh", "-c", daemon, **inside)
    until(lambda: len(supervisor.processes()) >= 4)
    keeper = keeper_pid(supervisor)
    assert supervisor.release().state is State.CANCELLED
    until(lambda: not jobs.left() and not is_running(keeper))


def test_killing_the_keeper_ends_the_container(jobs: Jobs, inside: dict[str, Any]) -> None:
    supervisor = jobs.start("sh", "-c", "setsid sleep 601 & sleep 602", **inside)
    until(lambda: len(supervisor.processes()) >= 3)
    os.kill(keeper_pid(supervisor), signal.SIGKILL)
    status = jobs.settled(supervisor)
    assert (status.state, status.cause) == (State.LOST, "its keeper was killed")
    until(lambda: not jobs.left())


def test_a_container_ends_with_its_node(jobs: Jobs, inside: dict[str, Any]) -> None:
    node = subprocess.Popen(["sleep", "600"])
    supervisor = jobs.start("sleep", "601", fence_pid=node.pid, **inside)
    node.kill()
    node.wait()
    assert jobs.settled(supervisor).cause == "its node ended"
    until(lambda: not jobs.left())


def test_the_job_can_not_kill_its_keeper(jobs: Jobs, inside: dict[str, Any]) -> None:
    supervisor = jobs.start("sh", "-c", "kill -KILL 1; kill -STOP 1; exit 4", **inside)
    assert jobs.settled(supervisor).cause == "exit 4"


STARTER = """
import os, pathlib, signal, sys
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.keeping.supervisor import Supervisor
job = Job("job", command=("sleep", "600"), container=True)
Supervisor(pathlib.Path(sys.argv[1])).start(job, Placement("a", 500, 0))
os.killpg(0, signal.SIGKILL)
"""


def test_the_folder_may_be_reached_through_a_link(
    jobs: Jobs, inside: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(jobs.folder)
    beyond = Jobs(tmp_path / "link")
    status = beyond.settled(beyond.start("sh", "-c", "touch here", **inside))
    assert status.state is State.DONE, status


@needs_any
def test_a_container_outlives_the_starter_of_its_keeper(jobs: Jobs) -> None:
    folder = jobs.folder / "job"
    starter = subprocess.run(
        [sys.executable, "-c", STARTER, str(folder)],
        env=environment(),
        start_new_session=True,
        check=False,
    )
    assert starter.returncode == -signal.SIGKILL
    supervisor = Supervisor(folder)
    status = supervisor.attach()
    assert (status.state, status.container != "") == (State.RUNNING, True)
    assert supervisor.stop().state is State.CANCELLED


@pytest.mark.skipif(not works("bwrap"), reason="bwrap can't make containers here")
def test_bubblewrap_lets_a_job_write_its_own_folders_alone(jobs: Jobs, tmp_path: Path) -> None:
    code = (
        "import os, tempfile\n"
        "places = ['/', tempfile.gettempdir(), '.']\n"
        "print([bool(os.statvfs(place).f_flag & os.ST_RDONLY) for place in places])\n"
        "open('here', 'w').close()\n"
    )
    supervisor = jobs.python(code, container=True, container_tool="bwrap")
    status = jobs.settled(supervisor)
    assert status.state is State.DONE, status
    assert status.log_tail.splitlines()[-1] == "[True, False, False]"
    arguments = container.command("bwrap", ["x"], [tmp_path])
    assert arguments[-2:] == ["--", "x"]
    assert ["--bind-try", str(tmp_path), str(tmp_path)] == arguments[
        arguments.index(str(tmp_path)) - 1 : arguments.index(str(tmp_path)) + 2
    ]


def test_without_a_tool_the_way_out_is_told(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    container._why_not.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    try:
        with pytest.raises(InputError, match="bwrap: not installed; unshare: not installed"):
            Supervisor(jobs.folder / "x").start(
                Job("x", command=("true",), container=True), Placement("a", 1000, 0)
            )
    finally:
        container._why_not.cache_clear()
    assert not (jobs.folder / "x").exists()


def test_a_tool_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in container.TOOLS:
        (tmp_path / tool).write_text("#!/bin/sh\necho 'not\nallowed' >&2\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    container._why_not.cache_clear()
    try:
        with pytest.raises(InputError, match="unshare: not allowed"):
            container.find_tool("unshare")
    finally:
        container._why_not.cache_clear()


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(InputError, match="one of bwrap, unshare"):
        container.find_tool("chroot")
