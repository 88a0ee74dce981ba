"""Does the time of `optimize` grow no faster than the model?

    python scripts/bench_growth.py [--nodes 625 1250 2500 5000] [--gigabytes 0.25 0.5 1]
                                   [--peer-python VENV/bin/python] [--json OUT.json]

Makes graphs of so many nodes, and chains of so many gigabytes of weights, with the generators of
`make_models.py`, and calls `optimize` three times on each: the passes and verification on one input
set, as `bench_simplify.py time` does. With `--peer-python`, onnxslim with its check in turn.

Every step from one size to the next is judged by the marginal cost: seconds per added node (or GB)
may not exceed that of the step before by over a quarter. Exit code 4 if it does, 3 if a call fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from _common import HERE, Worker
from bench_simplify import OURS_TIMEOUT_S, TIME_OPTIONS
from models_lib.scale import make_nodes, write_gigabytes

REPEATS = 3
ALLOWED_GROWTH = 1.25
NOISE_S = 0.2  # of a median of three
SEED = 0


def time_calls(path: Path, workers: dict[str, Worker]) -> dict[str, Any]:
    """Median seconds and peak bytes of each tool on the model at `path`, called in turn."""
    jobs = {
        "ours": {"do": "ours", "options": TIME_OPTIONS},
        "onnxslim": {"do": "onnxslim", "options": {"model_check": True}},
    }
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    record: dict[str, Any] = {}
    for _ in range(REPEATS):
        for name, worker in workers.items():
            target = path.with_name(f"{name}.onnx")
            answer = worker.ask(jobs[name] | {"source": str(path), "target": str(target)})
            for left in path.parent.glob(f"{name}.onnx*"):
                left.unlink()
            if answer["status"] != "ok":
                return {"problem": f"{name}: {answer['status']} {answer['detail']}"}
            seconds[name].append(answer["seconds"])
            record[f"{name}_peak_bytes"] = answer["peak_bytes"]
    return record | {name: round(statistics.median(taken), 3) for name, taken in seconds.items()}


def grows_too_fast(sizes: list[float], seconds: list[float]) -> str:
    """Empty, or which step costs too much more per unit than the step before."""
    points = itertools.pairwise(zip(sizes, seconds, strict=True))
    steps = [(high - low, after - before, high) for (low, before), (high, after) in points]
    for (units, before_s, _), (more_units, after_s, size) in itertools.pairwise(steps):
        expected_s = before_s / units * more_units
        if after_s > max(ALLOWED_GROWTH * expected_s, expected_s + NOISE_S):
            return f"the step to {size:g} took {after_s:.2f} s more, {expected_s:.2f} s expected"
    return ""


def measure(kind: str, sizes: list[float], workers: dict[str, Worker]) -> list[dict[str, Any]]:
    """A record for each size; `kind` is nodes or gigabytes."""
    records = []
    for size in sorted(sizes):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            if kind == "nodes":
                onnx.save(make_nodes(int(size), SEED), path)
            else:
                write_gigabytes(path, size, SEED, external=False)
            records.append({kind: size, **time_calls(path, workers)})
        print(records[-1], flush=True)
    return records


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=float, nargs="*", default=[625, 1250, 2500, 5000])
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[0.25, 0.5, 1.0])
    parser.add_argument("--peer-python", help="Python of an environment with onnxslim")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    script = HERE / "_tool_worker.py"
    workers = {"ours": Worker(script, timeout_s=OURS_TIMEOUT_S)}
    if args.peer_python:
        workers["onnxslim"] = Worker(script, timeout_s=OURS_TIMEOUT_S, python=args.peer_python)
    found: dict[str, Any] = {}
    code = 0
    for name, worker in workers.items():
        if (answer := worker.ask({"do": f"import_{name}"}))["status"] != "ok":
            parser.error(f"cannot import {name}: {answer['detail']}")
    for kind, sizes in (("nodes", args.nodes), ("gigabytes", args.gigabytes)):
        records = found[kind] = measure(kind, sizes, workers)
        if problems := [record["problem"] for record in records if "problem" in record]:
            print(*problems, sep="\n")
            code = 3
        elif fault := grows_too_fast([r[kind] for r in records], [r["ours"] for r in records]):
            print(f"{kind}: {fault}")
            code = code or 4
    for worker in workers.values():
        worker.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
