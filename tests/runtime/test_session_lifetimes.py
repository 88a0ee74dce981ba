"""Sessions of real regions, many at once and many in a row."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from ort_optim.runtime import library
from ort_optim.runtime.session import stats
from tests.runtime.networks import assert_close, chain, feeds_of, names_of, plain, residual, tiled
from tests.runtime.opened import opened
from tests.toolbox import environment

GROWTH_BYTES = 4 << 20


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_on_sessions_of_several_models(threads: int) -> None:
    models = [residual("N", "H"), residual("N", "H", seed=1), chain()]
    sessions = [opened(tiled(each), threads) for each in models]
    cases = []
    for number in range(8):
        which = number % len(models)
        feeds = feeds_of(models[which], seed=number, N=1 + number % 3, H=7 + number, W=12)
        cases.append((sessions[which], feeds, plain(models[which], feeds)))
    start = threading.Barrier(len(cases))

    def work(number: int) -> None:
        session, feeds, wanted = cases[number]
        start.wait()
        for _ in range(40):
            assert_close(session.run(None, feeds), wanted)

    with ThreadPoolExecutor(len(cases)) as pool:
        list(pool.map(work, range(len(cases))))
    assert [stats(each).runs for each in sessions] == [120, 120, 2 * 80]
    for session in sessions:
        assert all(each.runs_under_way == 0 for each in stats(session).regions.values())


@pytest.mark.usefixtures("warm")
def test_sessions_may_be_made_by_many_threads_at_once() -> None:
    models = [(tiled(each), each) for each in (residual(), chain(), residual(seed=1), chain(4))]
    wanted = [plain(before, feeds_of(before, N=2)) for _, before in models]
    start = threading.Barrier(8)

    def work(number: int) -> None:
        model, before = models[number % 4]
        start.wait()
        for _ in range(5):
            session = opened(model)
            assert_close(session.run(None, feeds_of(before, N=2)), wanted[number % 4])
            assert stats(session).runs == len(names_of(model))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def resident_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.usefixtures("warm")
def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    models = [(tiled(each), each) for each in (residual(), chain())]

    def cycle() -> None:
        for model, before in models:
            feeds = feeds_of(before, N=2)
            opened(model).run(None, feeds)

    for _ in range(10):
        cycle()
    gc.collect()
    totals, resident = library.totals(), resident_bytes()
    for _ in range(50):
        cycle()
    gc.collect()
    assert library.totals() == totals
    assert resident_bytes() - resident < GROWTH_BYTES


@pytest.mark.usefixtures("warm")
def test_a_thousand_runs_take_no_more_memory_than_the_first() -> None:
    before = residual("N", "H")
    session = opened(tiled(before), 2)
    sizes = [feeds_of(before, N=n, H=h, W=w) for n, h, w in ((1, 9, 9), (2, 16, 17), (1, 33, 5))]
    for number in range(100):
        session.run(None, sizes[number % 3])
    totals, resident = library.totals(), resident_bytes()
    for number in range(1000):
        session.run(None, sizes[number % 3])
    assert library.totals() == totals
    assert resident_bytes() - resident < GROWTH_BYTES


RUN = """
import json, sys
import numpy as np
from ort_optim.runtime.session import InferenceSession, stats
session = InferenceSession(sys.argv[1])
given = np.load(sys.argv[2])
found = session.run(None, {"x0": given["x"]})[0]
worst = float(np.abs(found - given["y"]).max())
modules = [name for name in sys.modules if name.startswith("llvmlite")]
print(json.dumps([stats(session).runs, dict(stats(session).left), worst, modules]))
"""


def start(model: Path, data: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(model), str(data)],
        env=environment(XDG_CACHE_HOME=str(cache)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_start_at_once_compile_beside_each_other(cold: Path, tmp_path: Path) -> None:
    before = residual()
    feeds = feeds_of(before)
    model, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    model.write_bytes(tiled(before).SerializeToString())
    wanted = plain(before, feeds)[0]
    np.savez(data, x=feeds["x0"], y=wanted)
    for processes in ([start(model, data, cold) for _ in range(2)], [start(model, data, cold)]):
        for process in processes:
            out, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            runs, left, worst, modules = json.loads(out)
            assert (runs, left) == (1, {})
            assert worst <= 1e-4 * max(1.0, float(np.abs(wanted).max()))
    assert not modules  # the last process found all code in the cache
    assert not list(cold.rglob("*.tmp"))
