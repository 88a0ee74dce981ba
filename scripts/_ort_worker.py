"""A process that runs models in ONNX Runtime for the other scripts, so a crash takes only it.

One JSON job a line on stdin, one JSON answer a line on stdout. Jobs (key `do`):

    compare      run `a` and `b` on the same random inputs, graph optimizations off, and compare
    latency      time `a` and `b` in turn on one input, ORT as it comes but one thread
    suite_run    run `model` on the data sets of folder `sets`; keep inputs and outputs in `save`
    suite_check  optimize `source` into `model`, run that on the kept inputs and compare

Not meant to be called by hand; `_common.Worker` starts it and sets the time limits.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from _feeds import SCHEMES, make_feeds
from _values import Value, first_difference, run_once, unusable
from onnx import numpy_helper

WARM_UP_RUNS = 3
FEWEST_PAIRS = 10


def open_session(path: str, optimize: bool = False) -> ort.InferenceSession:
    """A one-thread CPU session of the model at `path`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Run `a` and `b` on random inputs. Status: same, differs, original_fails, candidate_fails."""
    try:
        original = open_session(job["a"])
    except Exception as error:
        return {"status": "original_fails", "detail": one_line(error)}
    want: list[Value] = []
    detail = "no inputs tried"
    fallback = None
    for scheme in SCHEMES:
        try:
            inputs = original.get_inputs()
            feeds = make_feeds(inputs, job.get("shapes", {}), scheme, job.get("seed", 0))
            want = original.run(None, feeds)
        except Exception as error:
            detail = one_line(error)
            continue
        if not any(unusable(value) for value in want):
            break
        fallback, want = (feeds, want), []
    else:
        if fallback is None:
            return {"status": "original_fails", "detail": detail}
        feeds, want = fallback
    names = [output.name for output in original.get_outputs()]
    if job["a"] == job["b"]:
        return {"status": "same", "detail": "", "scheme": scheme.name}
    random = first_difference(names, want, original.run(None, feeds))
    del original
    try:
        candidate = open_session(job["b"])
        if [output.name for output in candidate.get_outputs()] != names:
            return {"status": "differs", "detail": "other output names"}
        wanted = {value.name for value in candidate.get_inputs()}
        if missing := wanted - set(feeds):
            return {"status": "differs", "detail": f"new inputs {sorted(missing)}"}
        got = candidate.run(None, {name: feeds[name] for name in wanted})
    except Exception as error:
        return {"status": "candidate_fails", "detail": one_line(error)}
    if random:  # a model with random ops: only shapes and types can agree
        want = [np.asarray(v).dtype.str + str(np.shape(v)) for v in want]
        got = [np.asarray(v).dtype.str + str(np.shape(v)) for v in got]
    detail = first_difference(names, want, got)
    if detail and not random:
        # Where ORT's own optimizations move the outputs by more than the tolerance, a rewrite may
        # move them as far (the model is ill-conditioned on this input).
        slack = open_session(job["a"], optimize=True).run(None, feeds)
        detail = first_difference(names, want, got, slack)
    return {"status": "differs" if detail else "same", "detail": detail, "scheme": scheme.name}


def latency(job: dict[str, Any]) -> dict[str, Any]:
    """Times of `pairs` runs (fewer when `seconds` are over) of each model, in microseconds.

    The runs alternate and so does their order; `b_first` says which session is made first. The
    inputs are those of the scheme that `compare` named.
    """
    paths = {"a": job["a"], "b": job["b"]}
    order = ("b", "a") if job.get("b_first") else ("a", "b")
    sessions = {key: open_session(paths[key], optimize=True) for key in order}
    scheme = next(s for s in SCHEMES if s.name == job["scheme"])
    every = make_feeds(sessions["a"].get_inputs(), job["shapes"], scheme, job.get("seed", 0))
    feeds = {
        key: {value.name: every[value.name] for value in session.get_inputs()}
        for key, session in sessions.items()
    }
    times: dict[str, list[float]] = {"a": [], "b": []}
    deadline = time.perf_counter() + job["seconds"]
    for number in range(WARM_UP_RUNS + job["pairs"]):
        for key in order if number % 2 else order[::-1]:
            start = time.perf_counter_ns()
            sessions[key].run(None, feeds[key])
            elapsed_us = (time.perf_counter_ns() - start) / 1000
            if number >= WARM_UP_RUNS:
                times[key].append(elapsed_us)
        if time.perf_counter() > deadline and len(times["a"]) >= FEWEST_PAIRS:
            break
    return {"status": "timed", "detail": "", **times}


def load_sets(folder: str, model: onnx.ModelProto) -> list[dict[str, Value]]:
    """The inputs of every `test_data_set_*` below `folder`, by input name."""
    inits = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in inits]
    # An old test model lists its weights as inputs and still brings input files for all of them.
    every = list(model.graph.input)
    sets = []
    for data in sorted(Path(folder).glob("test_data_set_*")):
        files = sorted(data.glob("input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        values = every if len(files) == len(every) else inputs
        sets.append({v.name: read_value(f, v.type) for f, v in zip(files, values, strict=False)})
    return sets


def read_value(path: Path, kind: onnx.TypeProto) -> Value:
    """The value in a `.pb` file of the ONNX test suite, read as `kind`."""
    raw = path.read_bytes()
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(raw))
    if which == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(raw))
    return numpy_helper.to_array(onnx.TensorProto.FromString(raw))


def run_sets(path: str, sets: list[dict[str, Value]]) -> tuple[list[str], list[list[Value]]]:
    """Output names, and the outputs for each set."""
    session = open_session(path)
    known = {value.name for value in session.get_inputs()}
    known |= {value.name for value in session.get_overridable_initializers()}
    outputs = [run_once(session, {k: v for k, v in s.items() if k in known}) for s in sets]
    return [output.name for output in session.get_outputs()], outputs


def suite_run(job: dict[str, Any]) -> dict[str, Any]:
    """Run the model on its sets twice; keep inputs and outputs. Status: runs, fails."""
    try:
        model = onnx.load(job["model"], load_external_data=False)
        sets = load_sets(job["sets"], model)
        if not sets:
            return {"status": "no_data", "detail": "no test_data_set folder"}
        names, outputs = run_sets(job["model"], sets)
        _, again = run_sets(job["model"], sets)
    except Exception as error:
        return {"status": "fails", "detail": one_line(error)}
    random = any(first_difference(names, a, b) for a, b in zip(outputs, again, strict=True))
    kept = {"names": names, "sets": sets, "outputs": outputs, "random": random}
    Path(job["save"]).write_bytes(pickle.dumps(kept))
    return {"status": "runs", "detail": "random" if random else ""}


def suite_check(job: dict[str, Any]) -> dict[str, Any]:
    """Optimize, run on the kept inputs. Status: same, differs, candidate_fails, optimize_fails."""
    import ort_optim  # only this job needs the package

    kept = pickle.loads(Path(job["save"]).read_bytes())
    try:
        ort_optim.optimize(job["source"], job["model"], **job["options"])
    except Exception as error:
        return {"status": "optimize_fails", "detail": one_line(error)}
    changed = Path(job["source"]).read_bytes() != Path(job["model"]).read_bytes()
    answer = suite_diff(job["model"], kept)
    return answer | {"changed": changed}


def suite_diff(path: str, kept: dict[str, Any]) -> dict[str, Any]:
    """Run the model at `path` on the kept inputs and compare with the kept outputs."""
    try:
        names, outputs = run_sets(path, kept["sets"])
    except Exception as error:
        return {"status": "candidate_fails", "detail": one_line(error)}
    if names != kept["names"]:
        return {"status": "differs", "detail": "other output names"}
    for want, got in zip(kept["outputs"], outputs, strict=True):
        if kept["random"]:
            want = [str(np.shape(v)) for v in want]
            got = [str(np.shape(v)) for v in got]
        if detail := first_difference(names, want, got):
            return {"status": "differs", "detail": detail}
    return {"status": "same", "detail": ""}


def one_line(error: Exception) -> str:
    """The error's class and the beginning of its text, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


JOBS = {"compare": compare, "latency": latency, "suite_run": suite_run, "suite_check": suite_check}


def main() -> None:
    """Answer jobs until stdin closes."""
    # Native code may print on file descriptor 1: keep the real one for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        answers.write(json.dumps(JOBS[job["do"]](job)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
