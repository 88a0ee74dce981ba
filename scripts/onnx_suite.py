"""The ONNX backend suite: does every model compute the same after `optimize`?

    python scripts/onnx_suite.py generate DIR        write models and data to DIR
    python scripts/onnx_suite.py baseline DIR        which of them run, and their outputs
    python scripts/onnx_suite.py run DIR [--slice K/N] [--json OUT.json] [--markdown OUT.md]

The suite is what `python -m onnx.backend.test.cmd_tools generate-data` writes, the node tests of
`onnx.backend.test.case.node` (which that command leaves out since they are made in memory), and the
folders `simple`, `pytorch-converted` and `pytorch-operator` inside the installed onnx package.

A model counts when ONNX Runtime runs it on the suite's own inputs, graph optimizations off. It
passes when the optimized model gives the same outputs on them: integers, bools and strings exactly,
floats within rtol 1e-3 and atol 1e-4 of the output's range. `run` does what is missing of the
first two steps; `--slice 0/20` takes a twentieth of the models. Exit code 3 if a model fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _common import Worker
from onnx import numpy_helper

# What `optimize` is called with: no timing, since these models are judged for correctness alone.
OPTIMIZE_OPTIONS: dict[str, Any] = {"timing": False}
WHEEL_FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
TIMEOUT_S = 60


def generate(folder: Path) -> None:
    """Write all generated models with their data sets below `folder`."""
    tool = [sys.executable, "-m", "onnx.backend.test.cmd_tools", "generate-data", "-o", str(folder)]
    subprocess.run(tool, check=True, stdout=subprocess.DEVNULL)
    # Importing the node tests computes their data, so only this mode pays for it.
    from onnx.backend.test.case import node

    with np.errstate(all="ignore"):
        cases = node.collect_testcases()
    for case in cases:
        if case.model is None:  # a real network, to be downloaded
            continue
        home = folder / "node" / case.name
        home.mkdir(parents=True, exist_ok=True)
        (home / "model.onnx").write_bytes(case.model.SerializeToString())
        for number, (inputs, _) in enumerate(case.data_sets or []):
            data = home / f"test_data_set_{number}"
            data.mkdir(exist_ok=True)
            for position, (value, spec) in enumerate(
                zip(inputs, case.model.graph.input, strict=False)
            ):
                encoded = encode(value, spec).SerializeToString()
                (data / f"input_{position}.pb").write_bytes(encoded)


def encode(value: Any, spec: onnx.ValueInfoProto) -> Any:
    """The protobuf message for `value`, an input declared as `spec`."""
    if isinstance(value, onnx.TensorProto):
        return value
    which = spec.type.WhichOneof("value")
    if which == "sequence_type":
        return numpy_helper.from_list(value, spec.name)
    if which == "optional_type":
        return numpy_helper.from_optional(value, spec.name)
    return numpy_helper.from_array(np.asarray(value), spec.name)


def list_cases(folder: Path) -> dict[str, Path]:
    """Suite models by name, each a folder with `model.onnx` and its data sets."""
    inside = Path(onnx.__file__).parent / "backend" / "test" / "data"
    cases = {}
    for top in [*(inside / name for name in WHEEL_FOLDERS), folder / "node", folder / "simple"]:
        for model in sorted(top.glob("*/model.onnx")):
            cases[f"{top.name}/{model.parent.name}"] = model.parent
    return dict(sorted(cases.items()))


def in_slice(names: list[str], part: str) -> list[str]:
    """The names of slice `K/N`, by a hash, so that a new model moves no other."""
    index, count = (int(number) for number in part.split("/"))
    if not 0 <= index < count:
        raise SystemExit(f"--slice {part}: need 0 <= K < N")
    return [n for n in names if int(hashlib.sha256(n.encode()).hexdigest(), 16) % count == index]


def baseline(folder: Path, cases: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Run each case as it is; keep outputs in `folder`/baseline. Answers by name."""
    kept = folder / "baseline"
    kept.mkdir(parents=True, exist_ok=True)
    record = folder / "baseline.json"
    version = f"onnxruntime {ort_version()}, onnx {onnx.__version__}"
    known = json.loads(record.read_text()) if record.exists() else {}
    answers = known.get("answers", {}) if known.get("version") == version else {}
    with Worker(timeout_s=TIMEOUT_S) as worker:
        for name, home in cases.items():
            if name not in answers:
                job = {"do": "suite_run", "model": str(home / "model.onnx"), "sets": str(home)}
                answers[name] = worker.ask(job | {"save": str(kept_outputs(folder, name))})
    record.write_text(json.dumps({"version": version, "answers": answers}, indent=1))
    return {name: answers[name] for name in cases}


def kept_outputs(folder: Path, name: str) -> Path:
    """Where the inputs and outputs of a case are kept."""
    return folder / "baseline" / (name.replace("/", "__") + ".pickle")


def ort_version() -> str:
    """The installed ONNX Runtime's version."""
    from importlib.metadata import version

    return version("onnxruntime")


def check_all(folder: Path, cases: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Optimize each case and compare its outputs with the kept ones. Answers by name."""
    answers = {}
    with tempfile.TemporaryDirectory() as scratch, Worker(timeout_s=TIMEOUT_S) as worker:
        for name, home in cases.items():
            out = Path(scratch) / "optimized.onnx"
            out.unlink(missing_ok=True)
            job = {
                "do": "suite_check",
                "source": str(home / "model.onnx"),
                "model": str(out),
                "save": str(kept_outputs(folder, name)),
                "options": OPTIMIZE_OPTIONS,
            }
            answers[name] = worker.ask(job)
            if answers[name]["status"] != "same":
                print(name, answers[name]["status"], answers[name]["detail"], flush=True)
    return answers


def to_markdown(total: int, answers: dict[str, dict[str, Any]], seconds: float) -> str:
    """The summary table, then one row for each failure."""
    status = Counter(answer["status"] for answer in answers.values())
    changed = sum(bool(answer.get("changed")) for answer in answers.values())
    lines = [
        "| models in the suite | run by ORT | same after optimize | failed | rewritten | time |",
        "|---|---|---|---|---|---|",
        f"| {total} | {len(answers)} | {status['same']} | {len(answers) - status['same']} "
        f"| {changed} | {seconds:.0f} s |",
    ]
    failures = {name: a for name, a in answers.items() if a["status"] != "same"}
    if failures:
        lines += ["", "| model | what | cause |", "|---|---|---|"]
        for name, answer in failures.items():
            detail = answer["detail"].replace("|", "\\|")
            lines.append(f"| {name} | {answer['status']} | {detail} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["generate", "baseline", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slice", default="0/1", help="K/N: every N-th model, from the K-th")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    if args.mode == "generate" or not (args.folder / "node").exists():
        generate(args.folder)
    every = list_cases(args.folder)
    cases = {name: every[name] for name in in_slice(list(every), args.slice)}
    if args.mode == "generate":
        print(f"{len(every)} models")
        return 0
    before = baseline(args.folder, cases)
    running = {name: cases[name] for name, answer in before.items() if answer["status"] == "runs"}
    print(f"{len(cases)} models, {len(running)} run in ONNX Runtime", flush=True)
    if args.mode == "baseline":
        return 0
    start = time.perf_counter()
    answers = check_all(args.folder, running)
    table = to_markdown(len(cases), answers, time.perf_counter() - start)
    print(table)
    if args.json:
        args.json.write_text(json.dumps({"baseline": before, "optimized": answers}, indent=1))
    if args.markdown:
        args.markdown.write_text(table)
    return 0 if all(answer["status"] == "same" for answer in answers.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
