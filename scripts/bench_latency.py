"""Are optimized models faster than the originals in ONNX Runtime as it comes?

    python scripts/bench_latency.py FOLDER [--json OUT.json] [--markdown OUT.md]
                                    [--only TEXT] [--seconds S] [--null] [--keep DIR]

For every `.onnx` file below FOLDER that ONNX Runtime can run: optimize it (the command line, with
its defaults), verify the outputs, then run both in one process in turn, one thread, default session
options, `--seconds` for each look. Sessions of one and the same model differ by some percent, so a
look makes the two sessions `SESSION_PAIRS` times, in alternating order.

Statistic: the ratio of medians, original / optimized, with a 95% interval from a paired bootstrap
(pairs drawn within each pair of sessions, sessions drawn too). Verdicts:

    faster      the interval lies above 1
    slower      its upper bound is below 0.97
    not slower  neither
    unchanged   the result is the original, byte for byte

Where the lower bound is below 0.97, a second look with fresh sessions, twice as long, decides.
A model whose original runs under 100 us is "slower" only if it also lost over 2 us, the resolution
of such timings. `--null` times each original against itself: what the verdicts are on no change.
Exit code 4 if a model is slower, 3 if one fails.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _common import ModelFile, Worker, list_models, run_command

OPTIMIZE_TIMEOUT_S = 600
OPTIMIZE_OPTIONS = ["--quiet", "--threads", "1"]  # the threads of the timing below
SESSION_PAIRS = 4
PAIRS_PER_SESSION = 200
NOT_SLOWER_RATIO = 0.97
SHORT_MODEL_US = 100.0
RESOLUTION_US = 2.0
BOOTSTRAP_DRAWS = 2000


def look(
    worker: Worker, model: ModelFile, optimized: Path, scheme: str, seconds: float
) -> tuple[np.ndarray, np.ndarray] | str:
    """Times in us of original and optimized, (sessions, pairs) each; or what went wrong."""
    rounds = []
    for number in range(SESSION_PAIRS):
        job = {
            "do": "latency",
            "a": str(model.path),
            "b": str(optimized),
            "shapes": model.shapes,
            "scheme": scheme,
            "pairs": PAIRS_PER_SESSION,
            "seconds": seconds / SESSION_PAIRS,
            "b_first": bool(number % 2),
        }
        answer = worker.ask(job)
        if answer["status"] != "timed":
            return f"{answer['status']}: {answer['detail']}"
        rounds.append((answer["a"], answer["b"]))
    fewest = min(len(times) for times, _ in rounds)
    first = np.array([times[:fewest] for times, _ in rounds])
    second = np.array([times[:fewest] for _, times in rounds])
    return first, second


def ratio_interval(original: np.ndarray, optimized: np.ndarray) -> tuple[float, float, float]:
    """Ratio of medians and its 95% interval; arrays are (sessions, pairs) of times.

    The bootstrap draws sessions with replacement and, within each, pairs.
    """
    rng = np.random.default_rng(0)
    sessions, pairs = original.shape
    drawn = rng.integers(sessions, size=(BOOTSTRAP_DRAWS, sessions, 1))
    index = rng.integers(pairs, size=(BOOTSTRAP_DRAWS, sessions, pairs))
    above = np.median(original[drawn, index], axis=(1, 2))
    below = np.median(optimized[drawn, index], axis=(1, 2))
    low, high = np.percentile(above / below, (2.5, 97.5))
    return float(np.median(original) / np.median(optimized)), float(low), float(high)


def judge(original: np.ndarray, optimized: np.ndarray) -> dict[str, Any]:
    """Verdict of one look, with its figures."""
    ratio, low, high = ratio_interval(original, optimized)
    before, after = float(np.median(original)), float(np.median(optimized))
    slower = high < NOT_SLOWER_RATIO
    if before < SHORT_MODEL_US:
        slower = slower and after - before > RESOLUTION_US
    verdict = "slower" if slower else "faster" if low > 1 else "not slower"
    figures = {"before_us": before, "after_us": after, "ratio": ratio, "low": low, "high": high}
    return {"verdict": verdict, **{key: round(value, 4) for key, value in figures.items()}}


def measure(model: ModelFile, worker: Worker, args: argparse.Namespace) -> dict[str, Any] | None:
    """The record of one model; None if ONNX Runtime does not run the original."""
    path = str(model.path)
    compare = {"do": "compare", "a": path, "b": path, "shapes": model.shapes}
    before = worker.ask(compare)
    if before["status"] != "same":
        return None
    record: dict[str, Any] = {"file": model.name}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / model.path.name
        if args.null:
            shutil.copytree(model.path.parent, scratch, dirs_exist_ok=True)
        else:
            command = [sys.executable, "-m", "ort_optim", "optimize", path, str(out)]
            shapes = [f"{name}:{'x'.join(map(str, s))}" for name, s in model.shapes.items() if s]
            pin = [part for shape in shapes for part in ("--shape", shape)] if args.pin else []
            outcome = run_command([*command, *OPTIMIZE_OPTIONS, *pin], OPTIMIZE_TIMEOUT_S)
            record["optimize_s"] = round(outcome.seconds, 3)
            if outcome.code != 0:
                detail = f"optimize: exit code {outcome.code}, {outcome.last_line}"
                return record | {"verdict": "failed", "detail": detail}
            if out.read_bytes() == model.path.read_bytes():
                return record | {"verdict": "unchanged", "ratio": 1.0}
        if args.keep:
            shutil.copytree(scratch, args.keep / Path(model.name).parent, dirs_exist_ok=True)
        after = worker.ask(compare | {"b": str(out)})
        if after["status"] != "same":
            detail = f"outputs: {after['status']} {after['detail']}"
            return record | {"verdict": "failed", "detail": detail}
        looks: list[dict[str, Any]] = []
        while not looks or (len(looks) == 1 and looks[0]["low"] < NOT_SLOWER_RATIO):
            seconds = args.seconds * (1 + len(looks))
            times = look(worker, model, out, before["scheme"], seconds)
            if isinstance(times, str):
                return record | {"verdict": "failed", "detail": times}
            looks.append(judge(*times))
            worker.close()  # the next look, or model, gets a fresh process
    return record | looks[-1] | {"looks": len(looks)}


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of the verdicts, and the geometric mean of the ratios."""
    ratios = [record["ratio"] for record in records if "ratio" in record]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
    return {
        "models": len(records),
        "verdicts": dict(Counter(record["verdict"] for record in records).most_common()),
        "geometric_mean": round(mean, 4),
    }


def to_markdown(records: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """One line with the summary, then a row for each model, fastest gain first."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items())
    lines = [
        f"{summary['models']} models: {counts}; geometric mean of the ratio "
        f"{summary['geometric_mean']:.3f}.",
        "",
        "| model | original (ms) | optimized (ms) | ratio (95% interval) | verdict |",
        "|---|---|---|---|---|",
    ]
    for record in sorted(records, key=lambda r: -r.get("ratio", 0.0)):
        if "before_us" in record:
            figures = (
                f"{record['before_us'] / 1000:.3f} | {record['after_us'] / 1000:.3f} | "
                f"{record['ratio']:.3f} ({record['low']:.3f} to {record['high']:.3f})"
            )
        else:
            figures = "| |"
        detail = record.get("detail", "").replace("|", "\\|")
        lines.append(f"| {record['file']} | {figures} | {record['verdict']} {detail} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--only", default="", help="models whose path contains this")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing in a look")
    parser.add_argument("--pin", action="store_true", help="pass input shapes of INDEX.csv on")
    parser.add_argument("--null", action="store_true", help="time originals against themselves")
    parser.add_argument("--keep", type=Path, help="folder for the optimized models")
    args = parser.parse_args()
    records = []
    with Worker(timeout_s=120) as worker:
        for model in list_models(args.folder):
            if args.only in model.name and (record := measure(model, worker, args)) is not None:
                records.append(record)
                shown = [f"{key} {value}" for key, value in record.items() if key != "file"]
                print(record["file"], *shown, sep="  ", flush=True)
    summary = summarize(records)
    table = to_markdown(records, summary)
    print(table)
    if args.json:
        args.json.write_text(json.dumps({**summary, "records": records}, indent=1))
    if args.markdown:
        args.markdown.write_text(table)
    verdicts = summary["verdicts"]
    return 3 if "failed" in verdicts else 4 if "slower" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
