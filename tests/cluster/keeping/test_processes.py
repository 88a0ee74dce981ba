"""Processes are found with all below them, wherever they went; modules import on any system."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ort_optim.cluster.keeping import processes
from ort_optim.cluster.keeping.status import Fault
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.states import State
from ort_optim.errors import InputError
from tests.cluster.conftest import Jobs, until
from tests.toolbox import environment

CGROUP = Path("/sys/fs/cgroup")
LIMIT_BYTES = 150 << 20


def test_descendants_are_found_but_for_those_to_spare() -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "subprocess.run(['sh', '-c', 'sleep 600 & sleep 600; true'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as top:
        until(lambda: len(processes.descendants(top.pid)) == 4)
        found = processes.descendants(top.pid)
        shell = next(pid for pid in found if (processes.describe(pid) or {})["name"] == "sh")
        assert len(processes.descendants(top.pid, spare=[shell])) == 1
        assert top.pid in processes.descendants(os.getpid())
        alone = processes.resident_bytes([top.pid])
        assert 0 < alone < processes.resident_bytes([top.pid, *found])
        assert processes.kill(lambda: processes.descendants(top.pid), lambda: None) == []
        top.kill()


def test_what_is_gone_is_nothing() -> None:
    child = subprocess.Popen(["true"])
    started = processes.started(child.pid)
    child.wait()
    assert started
    assert processes.started(child.pid) == ""
    assert processes.descendants(child.pid) == []
    assert processes.resident_bytes([child.pid]) == 0
    assert processes.describe(child.pid) is None
    processes.send([child.pid], 9)


def test_a_process_that_can_not_be_killed_is_told() -> None:
    stays = [2**22 + 1]  # no such process: it never goes away, whatever is sent
    assert processes.kill(lambda: stays, lambda: None, limit_s=0.05) == stays


OURS = sorted(path.stem for path in Path(processes.__file__).parent.glob("[a-z]*.py"))


def test_the_modules_can_be_imported_where_there_is_no_posix() -> None:
    blocked = dict.fromkeys(("fcntl", "termios", "tty", "pty"))
    code = "".join(f"import ort_optim.cluster.keeping.{name}\n" for name in OURS)
    code = f"import sys\nsys.modules.update({blocked!r})\n{code}"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=120)


def test_where_there_is_no_posix_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(InputError, match="needs Linux or macOS"):
        Supervisor(tmp_path)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, where this user may make one."""
    own = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own[controllers] = path
    if "memory" in own:
        places = [CGROUP / "memory" / own["memory"][1:], CGROUP / "memory"]
        limit = "memory.limit_in_bytes"
    else:
        places, limit = [CGROUP / own.get("", "/")[1:], CGROUP], "memory.max"
    for place in places:
        group = place / f"ort_optim-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(LIMIT_BYTES))
        except OSError:
            group.rmdir()
            continue
        yield group
        until(lambda group=group: not (group / "cgroup.procs").read_text())
        group.rmdir()
        return
    pytest.skip("this user can't make control groups for memory")


STARTER = """
import os, pathlib, sys
(pathlib.Path(sys.argv[2]) / "cgroup.procs").write_text(str(os.getpid()))
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.keeping.supervisor import Supervisor
hog = "x = b'1' * (400 << 20); import time; time.sleep(600)"
job = Job("job", command=(sys.executable, "-c", hog))
Supervisor(pathlib.Path(sys.argv[1])).start(job, Placement("a", 500, 0))
"""


def test_the_kernels_want_of_memory_is_told_from_other_kills(jobs: Jobs, small_group: Path) -> None:
    folder = jobs.folder / "job"
    subprocess.run(
        [sys.executable, "-c", STARTER, str(folder), str(small_group)],
        env=environment(),
        check=True,
        timeout=120,
    )
    status = jobs.settled(Supervisor(folder))
    assert (status.state, status.fault) == (State.HELD, Fault.KERNEL_MEMORY)
    assert status.cause == "killed by the kernel: out of memory"
    Supervisor(folder).release()


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux alone has this")
def test_short_of_memory_the_kernel_takes_no_keeper_before_its_job(jobs: Jobs) -> None:
    pid = jobs.start("sleep", "600").status().pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"  # more there is not
