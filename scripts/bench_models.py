"""Whole models: optimized and run with our library, beside ONNX Runtime as it comes.

    python scripts/bench_models.py --models FOLDER [--models FOLDER ...] [NAME|FILE.onnx ...]
                                   [--threads 1 ...] [--seconds S] [--regions-only] [--keep DIR]
                                   [--peer-python PYTHON] [--peers openvino mnn] [--peers-only]
                                   [--json OUT.json] [--markdown OUT.md]

Models are files, or names that some `.onnx` file below a FOLDER begins with; `MODELS` by default.
A FOLDER's `INDEX.csv` may give input shapes (see README.md). Each is optimized by the command line
(`--regions-only`: without the rewrite passes), then:

    time      original in plain ONNX Runtime and result with our library, in one process, in turn;
              the sessions made `SESSION_PAIRS` times, in alternating order
    error     largest difference of an output from ONNX Runtime's, absolute, and as a part of the
              output's largest value; past `MOST_ERROR`, and past twice what ONNX Runtime's own
              optimizations change, the model counts as wrong, without a time
    memory    what a process with one session grows by, after three runs, in a process of each;
              private memory leaves out what is backed by files; once more without Winograd, whose
              packed weights are 1.8 or 4 times as large
    creation  time to create the session, imports done: plain ONNX Runtime, ours with an empty and
              with a filled code cache; medians of `PROCESSES` processes (cold: one)
    peers     another tool beside ONNX Runtime in one process, in the environment of --peer-python,
              which needs onnxruntime, onnx, ml_dtypes and the tools (openvino, MNN)

Statistic of times: the median over pairs of runs of original / ours, with a 95% interval from a
paired bootstrap (`ort_optim.verify.speed`), after 3 runs of warm-up. For one thread, pin the
process to a core (`taskset -c 1`). Exit code 3 if a result is wrong or fails, 4 if one does not
reach its bound in `WANTED` (others: `NOT_SLOWER`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import HERE, ModelFile, Worker, list_models, run_command

from ort_optim.verify.speed import Ratio, compare_times

MODELS = (
    *("vgg19", "waifu2x_upconv7", "tbefn", "resnet18", "resnet34", "unet", "resnet50"),
    *("densenet121", "inception_v1", "inception_v2", "squeezenet", "shufflenet", "mobilenet_v2"),
    *("yolox_nano_416", "ppocr_v3_det", "ultraface_rfb_640", "fns_candy", "xfeat"),
)
WANTED = {  # ratio for one thread
    "vgg19": 2.2,
    "waifu2x_upconv7": 1.8,
    "tbefn": 1.8,
    "resnet18": 1.8,
    "resnet34": 1.8,
    "unet": 1.8,
    "resnet50": 1.2,
}
NOT_SLOWER = 0.97
MOST_ERROR = 1e-3
PEERS = ("openvino", "mnn")
SESSION_PAIRS = 4
PAIRS_PER_SESSION = 200
PROCESSES = 3
TIMEOUT_S = 600
MIB = 1 << 20


def find_models(names: list[str], folders: list[Path]) -> list[tuple[str, ModelFile]]:
    """(name, model) for each name or path. Of several files that begin with a name, that with the
    shortest file name. Raises SystemExit where there is none."""
    every = [model for folder in folders for model in list_models(folder)]
    found = []
    for name in names:
        path = Path(name)
        if path.suffix == ".onnx":
            shapes = next((m.shapes for m in every if m.path.resolve() == path.resolve()), {})
            found.append((path.stem, ModelFile(path, path.name, shapes)))
            continue
        fitting = [model for model in every if model.path.name.startswith(name)]
        if not fitting:
            raise SystemExit(f"no {name}*.onnx below {', '.join(map(str, folders)) or 'nothing'}")
        found.append((name, min(fitting, key=lambda model: len(model.path.name))))
    return found


def optimize(model: ModelFile, out: Path, threads: int, regions_only: bool) -> str:
    """Make `out` with the command line; "" or what went wrong."""
    words = ["optimize", str(model.path), str(out), "--quiet", "--threads", str(threads)]
    shapes = [f"{name}:{'x'.join(map(str, s))}" for name, s in model.shapes.items() if s]
    words += [word for shape in shapes for word in ("--shape", shape)]
    if regions_only:
        from ort_optim.passes import PASSES  # the package is loaded only where it is asked for

        words += [word for one in PASSES for word in ("--disable", one.name)]
    outcome = run_command([sys.executable, "-m", "ort_optim", *words], TIMEOUT_S)
    return "" if outcome.code == 0 else f"optimize: exit code {outcome.code}, {outcome.last_line}"


def time_pairs(worker: Worker, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Ratio and errors over all pairs of sessions, or `failure`."""
    a_ms: list[float] = []
    b_ms: list[float] = []
    answer: dict[str, Any] = {}
    for number in range(SESSION_PAIRS):
        turn = {
            "pairs": PAIRS_PER_SESSION,
            "seconds": seconds / SESSION_PAIRS,
            "b_first": bool(number % 2),
        }
        answer = worker.ask(job | turn)
        if answer["status"] != "timed":
            return {"failure": f"{answer['status']}: {answer['detail']}"}
        if not answer["max_rel"] <= max(MOST_ERROR, 2 * answer.get("own_rel", 0.0)):
            return {"failure": f"wrong: off by {answer['max_rel']:.1e} of the largest value"}
        a_ms += [us / 1000 for us in answer["a"]]
        b_ms += [us / 1000 for us in answer["b"]]
    ratio: Ratio = compare_times(a_ms, b_ms)
    return {
        "ort_ms": round(ratio.median_a_ms, 4),
        "ms": round(ratio.median_b_ms, 4),
        "ratio": round(ratio.ratio, 4),
        "low": round(ratio.low, 4),
        "high": round(ratio.high, 4),
        "pairs": ratio.rounds,
        "max_abs": answer["max_abs"],
        "max_rel": answer["max_rel"],
        "regions": answer.get("regions"),
    }


def without_winograd(result: Path, out: Path) -> Path:
    """`result` tiled anew, with templates only that sum plainly, as `out`."""
    from ort_optim.graph import load_model  # the package is loaded only where it is asked for
    from ort_optim.graph.functions import inline_functions
    from ort_optim.graph.regions import weights_apart
    from ort_optim.graph.save import save_model
    from ort_optim.hardware import detect, with_cached_figures
    from ort_optim.tiling import tile

    loaded = load_model(result)
    target = with_cached_figures(detect())
    model = tile(inline_functions(loaded.model), target, worst_error_class=0).model
    external = bool(loaded.data_files)
    save_model(model, loaded.folder, out, external=external, apart=weights_apart(model))
    return out


def measure_footprint(
    model: ModelFile, result: Path, threads: int, cache_home: Path
) -> dict[str, Any]:
    """Memory and creation times of plain ONNX Runtime and of ours, each in fresh processes."""

    def fresh(path: Path, ours: bool) -> dict[str, Any]:
        with Worker(HERE / "_models_worker.py", timeout_s=TIMEOUT_S) as worker:
            job = {"do": "footprint", "model": str(path), "ours": ours, "threads": threads}
            return worker.ask(job | {"shapes": model.shapes})

    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(cache_home)  # an empty one, so the first session is cold
    try:
        cold = fresh(result, ours=True)
        pairs = [(fresh(model.path, ours=False), fresh(result, True)) for _ in range(PROCESSES)]
        plain = without_winograd(result, result.with_name(f"plain_sums_{result.name}"))
        fresh(plain, ours=True)  # fills the cache
        direct = fresh(plain, ours=True)
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
    for answer in (cold, direct, *(one for both in pairs for one in both)):
        if answer["status"] != "measured":
            return {"failure": f"{answer['status']}: {answer['detail']}"}
    figures: dict[str, Any] = {
        "cold_ms": round(cold["create_ms"], 1),
        "direct_private_bytes": direct["private_bytes"],
    }
    for name, answers in (("ort", [a for a, _ in pairs]), ("ours", [b for _, b in pairs])):
        for key in ("create_ms", "resident_bytes", "private_bytes"):
            figures[f"{name}_{key}"] = statistics.median(a[key] for a in answers)
    return figures


def measure(
    name: str, model: ModelFile, threads: int, args: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """The record of one model with a number of threads."""
    record: dict[str, Any] = {"model": name, "threads": threads, "peers": {}}
    base = {"a": str(model.path.resolve()), "threads": threads, "shapes": model.shapes}
    if not args.peers_only:
        folder = args.keep / f"{threads}" if args.keep else scratch
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / model.path.name
        failure = optimize(model, result, threads, args.regions_only)
        if failure:
            record["failure"] = failure
        else:
            with Worker(HERE / "_models_worker.py", timeout_s=TIMEOUT_S) as worker:
                record |= time_pairs(worker, base | {"do": "pair", "b": str(result)}, args.seconds)
            record["footprint"] = measure_footprint(model, result, threads, scratch / "cache")
    for peer in args.peers if args.peer_python else ():
        job = base | {"do": "rival", "peer": peer, "scratch": str(scratch)}
        with Worker(
            HERE / "_models_worker.py", timeout_s=TIMEOUT_S, python=args.peer_python
        ) as worker:
            record["peers"][peer] = time_pairs(worker, job, args.seconds)
    return record


def wanted(record: dict[str, Any]) -> float:
    """The ratio that a model is to reach."""
    return WANTED.get(record["model"], NOT_SLOWER) if record["threads"] == 1 else NOT_SLOWER


def below_bound(record: dict[str, Any]) -> bool:
    """Whether a timed model misses its bound: one of `WANTED` by its ratio, others as in the main
    program, where the whole interval has to be below."""
    if "ratio" not in record:
        return False
    bound = wanted(record)
    return bool(record["high" if bound == NOT_SLOWER else "ratio"] < bound)


def to_markdown(records: list[dict[str, Any]], peers: list[str]) -> str:
    """Times and errors, then memory and creation times."""
    heads = [
        "model",
        "threads",
        "regions",
        "ORT (ms)",
        "ours (ms)",
        "ratio (95% interval)",
        "wanted",
    ]
    heads += ["max error", *(f"{peer} (ms)" for peer in peers)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for r in records:
        if "ratio" in r:
            cells = [str(r["regions"]), f"{r['ort_ms']:.2f}", f"{r['ms']:.2f}"]
            cells += [f"{r['ratio']:.2f} ({r['low']:.2f} to {r['high']:.2f})", str(wanted(r))]
            cells += [f"{r['max_abs']:.1e}"]
        else:
            plain = next((p["ort_ms"] for p in r["peers"].values() if "ort_ms" in p), None)
            cells = ["", f"{plain:.2f}" if plain else "", "", r.get("failure", ""), "", ""]
        for peer in peers:
            figures = r["peers"].get(peer, {})
            shown = f"{figures['ms']:.2f} (x{figures['ratio']:.2f})" if "ms" in figures else ""
            cells.append(shown or figures.get("failure", ""))
        lines.append(f"| {r['model']} | {r['threads']} | {' | '.join(cells)} |")
    measured = [r for r in records if "cold_ms" in r.get("footprint", {})]
    if measured:
        lines += [
            "",
            "| model | threads | ORT (MiB) | ours | ORT, private (MiB) | ours | no Winograd | "
            "ORT, creation (ms) | ours, warm | ours, cold |",
            f"|{'---|' * 10}",
        ]
    for r in measured:
        f = r["footprint"]
        sizes = [f[f"{who}_{what}_bytes"] for what in ("resident", "private") for who in WHO]
        sizes.append(f["direct_private_bytes"])
        cells = [f"{size / MIB:.0f}" for size in sizes]
        cells += [f"{f[key]:.0f}" for key in ("ort_create_ms", "ours_create_ms", "cold_ms")]
        lines.append(f"| {r['model']} | {r['threads']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


WHO = ("ort", "ours")


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME|FILE.onnx")
    parser.add_argument("--models", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing for each model")
    parser.add_argument("--regions-only", action="store_true", help="without the rewrite passes")
    parser.add_argument("--keep", type=Path, help="folder for the optimized models")
    parser.add_argument("--peer-python", help="Python of an environment that has the peers")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--peers-only", action="store_true", help="leave our side out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    peers = args.peers if args.peer_python else []
    records = []
    for name, model in find_models(args.names, args.models):
        with tempfile.TemporaryDirectory() as scratch:
            for threads in args.threads:
                records.append(measure(name, model, threads, args, Path(scratch)))
                print(json.dumps(records[-1]), flush=True)
    table = to_markdown(records, peers)
    print(table)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1))
    if args.markdown:
        args.markdown.write_text(table)
    if any("failure" in record for record in records):
        return 3
    return 4 if any(map(below_bound, records)) else 0


if __name__ == "__main__":
    sys.exit(main())
