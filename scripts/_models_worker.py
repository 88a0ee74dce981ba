"""A process that runs whole models for `bench_models.py`, so a crash takes only it.

One JSON job a line on stdin, one JSON answer a line on stdout. Jobs (key `do`):

    pair        run `a` in plain ONNX Runtime and `b` with our library, compare, and time in turn
    rival       the same with another tool as `b`: `peer` is openvino, mnn or ncnn
    footprint   memory of a process with one session of `model`, and the time to create it

Every job names `threads` and input `shapes`. Peers are imported by `rival` alone, so this program
also runs in an environment that has onnxruntime and a peer but not our package.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from _feeds import SCHEMES, make_feeds

WARM_UP_RUNS = 3
FEWEST_PAIRS = 5
FOOTPRINT_RUNS = 3
PROVIDERS = ["CPUExecutionProvider"]
SESSION_MODULE = "ort_optim.runtime.session"

Run = Callable[[], list[np.ndarray]]


def options_for(threads: int) -> ort.SessionOptions:
    """Session options as users have them, with a number of threads. Those of a session stop
    spinning when its run ends: else they would take the core from the session that is next."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if threads > 1:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_plain(path: str, threads: int) -> ort.InferenceSession:
    """A session of ONNX Runtime as it comes."""
    return ort.InferenceSession(path, options_for(threads), PROVIDERS)


def open_unoptimized(path: str, threads: int) -> ort.InferenceSession:
    """A session of ONNX Runtime that optimizes nothing."""
    options = options_for(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, PROVIDERS)


def open_ours(path: str, threads: int) -> ort.InferenceSession:
    """A session with our library."""
    ours = importlib.import_module(SESSION_MODULE)
    options = ours.session_options(path, base=options_for(threads))
    return ort.InferenceSession(path, options, PROVIDERS)


def region_count(session: ort.InferenceSession) -> int:
    """How many regions our code runs in a session."""
    return len(importlib.import_module(SESSION_MODULE).stats(session).regions)


def feeds_for(session: ort.InferenceSession, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """The first random inputs on which the model's float outputs are finite."""
    for scheme in SCHEMES:
        try:
            feeds = make_feeds(session.get_inputs(), shapes, scheme, 0)
            outputs = session.run(None, feeds)
        except Exception:  # these inputs are not what the model takes: the next scheme
            continue
        floats = [v for v in outputs if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
        if all(np.isfinite(value).all() for value in floats):
            return feeds
    raise ValueError("the model runs on none of the random inputs")


def tensors(value: Any) -> list[np.ndarray]:
    """The tensors in outputs, those in sequences and maps included."""
    if isinstance(value, dict):
        return tensors([list(value), *value.values()])
    if isinstance(value, list):
        return [tensor for each in value for tensor in tensors(each)]
    return [np.asarray(value)]


def distance(want: list[Any], got: list[Any]) -> dict[str, float]:
    """Largest absolute difference, and the largest as a part of its tensor's largest value."""
    far, relative = 0.0, 0.0
    ones, others = tensors(want), tensors(got)
    if len(ones) != len(others):
        raise ValueError(f"{len(others)} tensors instead of {len(ones)}")
    for one, other in zip(ones, others, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"an output of shape {other.shape} instead of {one.shape}")
        if one.dtype.kind in "OSU" and not np.array_equal(one, other):
            raise ValueError("an output of text differs")
        if one.size == 0 or one.dtype.kind in "OSU":
            continue
        apart = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
        size = float(np.abs(one).max())
        far = max(far, apart)
        relative = max(relative, apart / size if size else apart)
    return {"max_abs": far, "max_rel": relative}


def in_turn(a: Run, b: Run, job: dict[str, Any]) -> dict[str, Any]:
    """Times of both in microseconds, a run of the one after a run of the other."""
    runs = {"a": a, "b": b}
    order = ("b", "a") if job.get("b_first") else ("a", "b")
    times: dict[str, list[float]] = {"a": [], "b": []}
    deadline = time.perf_counter() + job["seconds"]
    for number in range(WARM_UP_RUNS + job["pairs"]):
        for key in order if number % 2 else order[::-1]:
            start = time.perf_counter_ns()
            runs[key]()
            elapsed_us = (time.perf_counter_ns() - start) / 1000
            if number >= WARM_UP_RUNS:
                times[key].append(elapsed_us)
        if time.perf_counter() > deadline and len(times["a"]) >= FEWEST_PAIRS:
            break
    return times


def pair(job: dict[str, Any]) -> dict[str, Any]:
    """Compare and time `a` in plain ONNX Runtime and `b` with our library."""
    openers = {"a": open_plain, "b": open_ours}
    order = ("b", "a") if job.get("b_first") else ("a", "b")
    sessions = {key: openers[key](job[key], job["threads"]) for key in order}
    feeds = feeds_for(sessions["a"], job["shapes"])
    kept = {v.name: feeds[v.name] for v in sessions["b"].get_inputs()}
    a: Run = lambda: sessions["a"].run(None, feeds)  # noqa: E731
    b: Run = lambda: sessions["b"].run(None, kept)  # noqa: E731
    far = distance(a(), b())
    own = distance(a(), open_unoptimized(job["a"], job["threads"]).run(None, feeds))["max_rel"]
    regions = region_count(sessions["b"])
    return {"status": "timed", "regions": regions, "own_rel": own, **far, **in_turn(a, b, job)}


def rival(job: dict[str, Any]) -> dict[str, Any]:
    """Compare and time model `a` in plain ONNX Runtime and in another tool."""
    session = open_plain(job["a"], job["threads"])
    feeds = feeds_for(session, job["shapes"])
    names = [value.name for value in session.get_outputs()]
    b = PEERS[job["peer"]](job["a"], feeds, names, job["threads"], Path(job["scratch"]))
    a: Run = lambda: session.run(None, feeds)  # noqa: E731
    far = distance(a(), b())
    return {"status": "timed", **far, **in_turn(a, b, job)}


def openvino(path: str, feeds: dict[str, Any], names: list[str], threads: int, _: Path) -> Run:
    """Runs the model in OpenVINO, fp32, tuned for latency."""
    ov = importlib.import_module("openvino")
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({name: list(value.shape) for name, value in feeds.items()})
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # the caller has pinned the process, or wants it free
    }
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    outputs = [compiled.output(name) for name in names]

    def run() -> list[np.ndarray]:
        request.infer(feeds, share_inputs=True)
        return [np.array(request.get_tensor(output).data) for output in outputs]

    return run


def mnn(path: str, feeds: dict[str, Any], names: list[str], threads: int, scratch: Path) -> Run:
    """Converts the model and runs it in MNN, fp32."""
    library = importlib.import_module("MNN")
    target = scratch / (Path(path).stem + ".mnn")
    if not target.exists():
        converter = Path(sys.executable).with_name("mnnconvert")
        words = ["-f", "ONNX", "--modelFile", path, "--MNNModel", str(target), "--bizCode", "b"]
        subprocess.run([converter, *words], check=True, stdout=sys.stderr)
    nn, expr = library.nn, library.expr
    config = {"backend": "CPU", "precision": "high", "numThread": threads}
    manager = nn.create_runtime_manager((config,))
    net = nn.load_module_from_file(str(target), list(feeds), names, runtime_manager=manager)
    inputs = []
    for value in feeds.values():
        placed = expr.placeholder(list(value.shape), expr.NCHW)
        placed.write(value)
        inputs.append(placed)

    def run() -> list[np.ndarray]:
        outputs = net.forward(inputs)
        return [np.array(expr.convert(v, expr.NCHW).read()) for v in outputs]

    return run


PEERS = {"openvino": openvino, "mnn": mnn}


def footprint(job: dict[str, Any]) -> dict[str, Any]:
    """Memory that one session takes after some runs, and the time to create it.

    `private_bytes` leaves out pages that are backed by files and can be dropped by the system.
    """
    memory = importlib.import_module("psutil").Process().memory_info
    if job["ours"]:
        importlib.import_module(SESSION_MODULE)
    gc.collect()  # what imports left is not the session's to collect
    before = memory()
    start = time.perf_counter()
    session = (open_ours if job["ours"] else open_plain)(job["model"], job["threads"])
    seconds = time.perf_counter() - start
    feeds = make_feeds(session.get_inputs(), job["shapes"], SCHEMES[0], 0)
    for _ in range(FOOTPRINT_RUNS):
        session.run(None, feeds)
    after = memory()
    grown = after.rss - before.rss
    return {
        "status": "measured",
        "create_ms": seconds * 1000,
        "resident_bytes": grown,
        "private_bytes": grown - (after.shared - before.shared),
    }


JOBS = {"pair": pair, "rival": rival, "footprint": footprint}


def main() -> None:
    """Answer jobs until stdin closes."""
    # Native code may print on file descriptor 1: keep the real one for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = JOBS[job["do"]](job)
        except Exception as error:  # a value: the benchmark goes on with the next model
            detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            answer = {"status": "failed", "detail": detail}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
