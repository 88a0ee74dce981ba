"""Sessions that come and go, and many at once: nothing leaks, nothing is mixed up."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import psutil
import pytest
from onnx import compose

from ort_optim.runtime import library
from ort_optim.runtime.blob import encode
from tests.runtime.regions import Code, expected, model_of, plan_of
from tests.runtime.sessions import image, open_session, open_test_region, options, weights

SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")  # it keeps what was freed
LEAK_BYTES = 1 << 40 if SANITIZED else 4 << 20


def resident_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_on_two_sessions_get_their_own_results(code: Code, threads: int) -> None:
    sessions = [
        (open_test_region(code, w, threads), w) for w in (weights(8, seed=1), weights(8, seed=2))
    ]
    start = threading.Barrier(8)

    def work(number: int) -> int:
        opened, w = sessions[number % 2]
        start.wait()
        for i in range(60):
            x = image(1 + (number + i) % 3, 8, 3 + i % 7, 5 + number, seed=100 * number + i)
            np.testing.assert_allclose(opened.run(x), expected(x, w), rtol=1e-6)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(8))) == list(range(8))
    for opened, _ in sessions:
        assert (opened.counters().runs, opened.counters().runs_under_way) == (240, 0)


def test_parallel_execution_mode_runs_regions_side_by_side(code: Code) -> None:
    names = [f"R_{letter}" for letter in "abcd"]
    parts = [
        compose.add_prefix(model_of(weights(8, seed=i), name), f"{name}_", rename_functions=False)
        for i, name in enumerate(names)
    ]
    model = parts[0]
    for part in parts[1:]:
        for field in ("node", "initializer", "input", "output"):
            getattr(model.graph, field).extend(getattr(part.graph, field))
        model.functions.extend(part.functions)
    library.stage(encode([plan_of(code, 8, name) for name in names], threads=2))
    registered = options(2)
    registered.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    registered.inter_op_num_threads = 4
    registered.register_custom_ops_library(str(library.library_path()))
    session = ort.InferenceSession(model.SerializeToString(), registered)
    for i in range(50):
        feeds = {f"{name}_x": image(2, 8, 4, 5, seed=i + j) for j, name in enumerate(names)}
        for j, found in enumerate(session.run(None, feeds)):
            x = feeds[f"{names[j]}_x"]
            np.testing.assert_allclose(found, expected(x, weights(8, seed=j)), rtol=1e-6)


def test_sessions_of_several_models_do_not_meet(code: Code) -> None:
    channels = (1, 4, 9, 16)
    opened = {
        c: open_session(model_of(weights(c), f"R_{c}"), [plan_of(code, c, f"R_{c}")])
        for c in channels
    }
    for c in reversed(channels):
        x = image(2, c, 3, 3)
        np.testing.assert_allclose(opened[c].run(x), expected(x, weights(c)), rtol=1e-6)
        assert opened[c].counters(f"R_{c}").runs == 1
        assert library.counters(opened[c].registration, "R_test") is None


def test_sessions_of_one_plan_have_their_own_counters_while_they_live(code: Code) -> None:
    first, second = (open_test_region(code, weights(8, seed)) for seed in (1, 2))
    x = image(1, 8, 2, 2)
    for _ in range(3):
        first.run(x)
    second.run(x)
    assert (first.counters().runs, second.counters().runs) == (3, 1)
    number = first.registration
    del first
    gc.collect()
    third = open_test_region(code, weights(8, 3))
    assert third.counters().runs == 0
    assert library.counters(number, "R_test") is None, "its place was taken"


def test_options_can_make_several_sessions(code: Code) -> None:
    registration = library.stage(encode([plan_of(code, 8)], threads=1))
    registered = options()
    registered.register_custom_ops_library(str(library.library_path()))
    x = image(1, 8, 2, 2)
    for seed in range(3):
        w = weights(8, seed)
        session = ort.InferenceSession(model_of(w).SerializeToString(), registered)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected(x, w), rtol=1e-6)
        del session
    counters = library.counters(registration, "R_test")
    assert counters is not None
    assert (counters.kernels_created, counters.kernels_alive, counters.runs) == (3, 0, 3)


def test_fifty_sessions_one_after_another_leave_nothing_behind(code: Code) -> None:
    x = image(2, 8, 64, 64)

    def once(seed: int) -> None:
        w = weights(8, seed)
        opened = open_test_region(code, w, threads=2)
        np.testing.assert_allclose(opened.run(x), expected(x, w), rtol=1e-6)

    for seed in range(5):
        once(seed)
    gc.collect()
    totals, resident = library.totals(), resident_bytes()
    for seed in range(50):
        once(seed)
    gc.collect()
    assert library.totals() == totals
    assert resident_bytes() - resident < LEAK_BYTES


def test_workspaces_go_with_the_last_kernel(code: Code) -> None:
    gc.collect()
    if library.totals().kernels_alive:
        pytest.skip("a session of another test is still open")
    first, second = (open_test_region(code, weights()) for _ in range(2))
    x = image(2, 8, 64, 64)
    first.run(x)
    second.run(x)
    assert library.totals().workspaces == 1, "runs one after another share a workspace"
    del first
    gc.collect()
    assert library.totals().workspaces == 1
    del second
    gc.collect()
    totals = library.totals()
    assert (totals.kernels_alive, totals.workspaces, totals.workspace_bytes) == (0, 0, 0)


def test_a_thousand_runs_need_the_memory_of_one(code: Code) -> None:
    opened = open_test_region(code, weights(), threads=2)
    shapes = [(1, 8, 32, 32), (2, 8, 40, 40), (1, 8, 17, 31)]
    inputs = [image(*shape) for shape in shapes]
    for x in inputs * 10:
        opened.run(x)
    workspaces, resident = library.totals().workspace_bytes, resident_bytes()
    for i in range(1000):
        opened.run(inputs[i % 3])
    assert library.totals().workspace_bytes == workspaces
    assert resident_bytes() - resident < LEAK_BYTES


def test_a_session_that_can_not_be_made_leaves_no_kernel_and_no_weights(code: Code) -> None:
    gc.collect()
    before = library.totals()
    registration = library.stage(encode([plan_of(code, 8)], threads=1))
    registered = options()
    registered.register_custom_ops_library(str(library.library_path()))
    for _ in range(3):
        with pytest.raises(Exception, match="compiled for 8"):
            ort.InferenceSession(model_of(weights(7)).SerializeToString(), registered)
    counters = library.counters(registration, "R_test")
    assert counters is not None
    assert (counters.kernels_created, counters.packed_bytes, counters.failures) == (0, 0, 3)
    assert library.totals().kernels_alive == before.kernels_alive
