"""Node counts and run time of `optimize` beside onnxslim and onnxsim.

    python scripts/bench_simplify.py rivals MODELS --peer-python VENV/bin/python --out rivals.json
    python scripts/bench_simplify.py ours MODELS --rivals rivals.json --out ours.json
                                     [--exceptions E.csv] [--markdown TABLE.md]
    python scripts/bench_simplify.py time MODELS --peer-python VENV/bin/python --out time.json

`rivals` runs both rivals, with the options a user gets by default, on every model below the folder
MODELS and verifies what they made (same random inputs, ONNX Runtime with graph optimizations off,
floats within rtol 1e-3 and atol 1e-4 of the output's range, or twice what ORT's own optimizations
do). VENV holds onnxslim, onnxsim and onnxruntime.

`ours` does the same with `ort_optim.optimize` and compares: each model counts as at or below the
better rival that verifies, or, where none does, the original. E.csv (columns file, reason) explains
the others. Exit code 4 below 95%, or when an exception has no reason; 3 when an output is wrong.

`time` calls `optimize` with one input set for verification, and onnxslim with its model check, in
turn in two running processes (imports done), three times on each of the ten largest models that
both process. Exit code 4 when ours takes longer for the ten together.

Counting rule: `_common.count_nodes`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from _common import HERE, ModelFile, Worker, count_nodes, list_models, load_shell, run_command

RIVALS = ("onnxslim", "onnxsim")
RIVAL_TIMEOUT_S = 60
OURS_TIMEOUT_S = 300
WANTED_SHARE = 0.95
# What `optimize` is called with. For counts: the whole result, whatever it does to the speed.
COUNT_OPTIONS: dict[str, Any] = {"timing": False, "sets": 1}
# For times: the passes and one set of inputs, which is what onnxslim's check does.
TIME_OPTIONS: dict[str, Any] = {"timing": False, "sets": 1}
TIMED_MODELS = 10
TIMED_REPEATS = 3


def run_rival(
    rival: str, model: ModelFile, python: str, scratch: Path, worker: Worker
) -> dict[str, Any]:
    """Simplify with `rival` and verify. Status: ok, crash, timeout, unverified, unreadable."""
    target = scratch / f"{rival}.onnx"
    command = [python, "-m", rival, str(model.path), str(target)]
    outcome = run_command(command, RIVAL_TIMEOUT_S, cwd=scratch)
    record: dict[str, Any] = {"seconds": round(outcome.seconds, 3)}
    if outcome.code is None:
        return record | {"status": "timeout", "detail": f"no end after {RIVAL_TIMEOUT_S} s"}
    if not target.exists():
        return record | {"status": "crash", "detail": f"{outcome.code}: {outcome.last_line}"}
    return record | count_and_verify(model, target, worker)


def count_and_verify(model: ModelFile, target: Path, worker: Worker) -> dict[str, Any]:
    """Node counts of `target`, and whether it computes what `model` does."""
    try:
        counted = count_nodes(load_shell(target))
    except Exception as error:
        return {"status": "unreadable", "detail": str(error)[:300]}
    record = {"status": "ok", "detail": "", "nodes": counted.total(), "ops": dict(counted)}
    job = {"do": "compare", "a": str(model.path), "b": str(target), "shapes": model.shapes}
    answer = worker.ask(job)
    if answer["status"] != "same":
        record |= {"status": "unverified", "detail": f"{answer['status']}: {answer['detail']}"}
    return record


def measure_rivals(folder: Path, python: str, keep: Path | None) -> list[dict[str, Any]]:
    """The rivals' counts for every model below `folder`, a record each.

    Their models are kept below `keep`, as `RIVAL/NAME`, if it is given.
    """
    records = []
    with Worker() as worker:
        for model in list_models(folder):
            record: dict[str, Any] = {"file": model.name}
            records.append(record)
            try:
                counted = count_nodes(load_shell(model.path))
            except Exception as error:
                record |= {"runs": False, "detail": f"unreadable: {error}"[:200]}
                continue
            record |= {"nodes": counted.total(), "ops": dict(counted)}
            path = str(model.path)
            job = {"do": "compare", "a": path, "b": path, "shapes": model.shapes}
            answer = worker.ask(job)
            record |= {"runs": answer["status"] == "same", "detail": answer["detail"]}
            for rival in RIVALS:
                with tempfile.TemporaryDirectory() as scratch:
                    record[rival] = run_rival(rival, model, python, Path(scratch), worker)
                    made = Path(scratch) / f"{rival}.onnx"
                    if keep is not None and made.exists():
                        kept = keep / rival / model.name
                        kept.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(made, kept)
            good = [record[r]["nodes"] for r in RIVALS if record[r]["status"] == "ok"]
            record["best"] = min(good, default=None)
            shown = [f"{r} {record[r].get('nodes', '-')} {record[r]['status']}" for r in RIVALS]
            print(model.name, record["nodes"], *shown, sep="  ", flush=True)
    return records


def measure_ours(folder: Path, rivals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our counts beside the rivals', for each model that ONNX Runtime runs."""
    known = {record["file"]: record for record in rivals if record["runs"]}
    records = []
    tool_script = HERE / "_tool_worker.py"
    with Worker() as worker, Worker(tool_script, timeout_s=OURS_TIMEOUT_S) as tool:
        for model in list_models(folder):
            if model.name not in known:
                continue
            rival = known[model.name]
            bound = rival["nodes"] if rival["best"] is None else rival["best"]
            with tempfile.TemporaryDirectory() as scratch:
                target = Path(scratch) / "ours.onnx"
                job = {"do": "ours", "source": str(model.path), "target": str(target)}
                answer = tool.ask(job | {"options": COUNT_OPTIONS})
                if answer["status"] == "ok":
                    ours = count_and_verify(model, target, worker)
                else:
                    ours = {"status": "fails", "detail": f"{answer['status']}: {answer['detail']}"}
            ours["seconds"] = round(answer.get("seconds", OURS_TIMEOUT_S), 3)
            ours["reaches"] = ours["status"] == "ok" and ours["nodes"] <= bound
            records.append({**rival, "bound": bound, "ours": ours})
            mark = "" if ours["reaches"] else f"  ABOVE {ours['detail']}"
            counts = f"{rival['nodes']} -> {ours.get('nodes')}, bound {bound}{mark}"
            print(f"{model.name}  {counts}  {ours['seconds']} s", flush=True)
    return records


def share_reached(records: list[dict[str, Any]]) -> float:
    """Which part of the models is at or below its bound."""
    reached = sum(bool(record["ours"]["reaches"]) for record in records)
    return reached / max(1, len(records))


PAGE_HEAD = f"""# Node counts beside other simplifiers

Made by `scripts/bench_simplify.py`; that docstring says how to make it again. Nodes of the model
that each tool writes with its default options, of every model that ONNX Runtime runs. Constant
nodes are not counted, nodes of subgraphs are, and a call of a model-local function counts as its
body. All results were verified: same random inputs, ONNX Runtime {version("onnxruntime")} with
graph optimizations off, floats within rtol 1e-3 and atol 1e-4 of the output's range or twice what
ONNX Runtime's own optimizations change. "error": the tool stopped or wrote nothing; "wrong result":
what it wrote does not load, or computes something else. The last column explains each model on
which our result has more nodes than the better verified rival.
"""


def to_markdown(records: list[dict[str, Any]], reasons: dict[str, str]) -> str:
    """The page: summary lines, then a row for each model, most nodes first."""
    reached = sum(record["ours"]["reaches"] for record in records)
    below = sum(r["ours"]["reaches"] and r["ours"]["nodes"] < r["bound"] for r in records)
    totals = {
        name: sum(r[name]["nodes"] if r[name]["status"] == "ok" else r["nodes"] for r in records)
        for name in (*RIVALS, "ours")
    }
    lines = [
        PAGE_HEAD,
        f"At or below the better rival: {reached} of {len(records)} models "
        f"({100 * share_reached(records):.1f}%), below it: {below}.",
        "",
        f"All models together, nodes: original {sum(r['nodes'] for r in records)}, onnxslim "
        f"{totals['onnxslim']}, onnxsim {totals['onnxsim']}, ours {totals['ours']} (a model on "
        "which a tool fails counts as the original).",
        "",
        "| model | original | onnxslim | onnxsim | ours | |",
        "|---|---|---|---|---|---|",
    ]
    for record in sorted(records, key=lambda r: (-r["nodes"], r["file"])):
        cells = [shown_count(record[name]) for name in (*RIVALS, "ours")]
        remark = "" if record["ours"]["reaches"] else reasons.get(record["file"], "**above**")
        lines.append(f"| {record['file']} | {record['nodes']} | {' | '.join(cells)} | {remark} |")
    return "\n".join(lines) + "\n"


def shown_count(record: dict[str, Any]) -> str:
    """A table cell: the count, or how the tool failed."""
    words = {"crash": "error", "unverified": "wrong result", "fails": "error"}
    status = record["status"]
    return str(record["nodes"]) if status == "ok" else words.get(status, status)


def read_reasons(path: Path | None) -> dict[str, str]:
    """Reason by model name, from a CSV file with columns file and reason."""
    if path is None:
        return {}
    with path.open(newline="") as lines:
        return {row["file"]: row["reason"] for row in csv.DictReader(lines)}


def measure_times(folder: Path, python: str) -> list[dict[str, Any]]:
    """Seconds of both tools on the ten largest models that both process, largest first."""
    models = sorted(list_models(folder), key=lambda m: m.path.stat().st_size, reverse=True)
    script = HERE / "_tool_worker.py"
    records: list[dict[str, Any]] = []
    with (
        Worker(script, timeout_s=OURS_TIMEOUT_S) as ours,
        Worker(script, timeout_s=OURS_TIMEOUT_S, python=python) as slim,
        tempfile.TemporaryDirectory() as scratch,
    ):
        calls = {
            "ours": (ours, {"do": "ours", "options": TIME_OPTIONS}),
            "onnxslim": (slim, {"do": "onnxslim", "options": {"model_check": True}}),
        }
        for name, (worker, _) in calls.items():
            if (answer := worker.ask({"do": f"import_{name}"}))["status"] != "ok":
                raise SystemExit(f"cannot import {name}: {answer['detail']}")
        for model in models:
            times: dict[str, list[float]] = {name: [] for name in calls}
            problem = ""
            for _ in range(TIMED_REPEATS):
                for name, (worker, job) in calls.items():
                    target = Path(scratch) / f"{name}.onnx"
                    target.unlink(missing_ok=True)
                    paths = {"source": str(model.path), "target": str(target)}
                    answer = worker.ask(job | paths)
                    if answer["status"] != "ok":
                        problem = problem or f"{name}: {answer['detail']}"
                    times[name].append(answer.get("seconds", 0.0))
                if problem:
                    break
            if problem:
                print(f"{model.name}  left out, {problem}", flush=True)
                continue
            medians = {name: round(statistics.median(taken), 4) for name, taken in times.items()}
            records.append({"file": model.name, "bytes": model.path.stat().st_size, **medians})
            print(model.name, medians, flush=True)
            if len(records) == TIMED_MODELS:
                break
    return records


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    rivals = modes.add_parser("rivals", help="count what the rivals make of the models")
    rivals.add_argument("--keep", type=Path, help="folder for the rivals' own outputs")
    ours = modes.add_parser("ours", help="count what we make of them, and compare")
    ours.add_argument("--rivals", type=Path, required=True)
    ours.add_argument("--exceptions", type=Path)
    ours.add_argument("--markdown", type=Path)
    timed = modes.add_parser("time", help="time us and onnxslim side by side")
    for mode in (rivals, timed):
        mode.add_argument("--peer-python", required=True)
    for mode in (rivals, ours, timed):
        mode.add_argument("models", type=Path)
        mode.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    code = 0
    if args.mode == "rivals":
        records = measure_rivals(args.models, args.peer_python, args.keep)
    elif args.mode == "time":
        records = measure_times(args.models, args.peer_python)
        total = {name: sum(r[name] for r in records) for name in ("ours", "onnxslim")}
        print(f"{len(records)} models: {total['ours']:.2f} s, onnxslim {total['onnxslim']:.2f} s")
        code = 4 if len(records) < TIMED_MODELS or total["ours"] > total["onnxslim"] else 0
    else:
        records = measure_ours(args.models, json.loads(args.rivals.read_text())["models"])
        reasons = read_reasons(args.exceptions)
        table = to_markdown(records, reasons)
        print(table)
        if args.markdown:
            args.markdown.write_text(table)
        above = [r for r in records if not r["ours"]["reaches"]]
        unexplained = [r["file"] for r in above if r["file"] not in reasons]
        wrong = [r["file"] for r in above if r["ours"]["status"] != "ok"]
        if share_reached(records) < WANTED_SHARE or unexplained:
            code = 4
        if wrong:
            code = 3
            print("wrong or failed:", *wrong)
    args.out.write_text(json.dumps({"onnx": onnx.__version__, "models": records}, indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
