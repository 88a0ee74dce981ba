"""Node counts and run time of `optimize` beside onnxslim and onnxsim.

    python scripts/bench_simplify.py rivals MODELS --peer-python VENV/bin/python --out rivals.json

runs both rivals, with the options a user gets by default, on every model below the folder MODELS
and verifies what they made (same random inputs, ONNX Runtime with graph optimizations off, floats
within rtol 1e-3 and atol 1e-4 of the output's range). VENV holds onnxslim, onnxsim, onnxruntime.

Counting rule: `_common.count_nodes`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from _common import ModelFile, Worker, count_nodes, list_models, load_shell, run_command

RIVALS = ("onnxslim", "onnxsim")
RIVAL_TIMEOUT_S = 60


def run_rival(
    rival: str, model: ModelFile, python: str, scratch: Path, worker: Worker
) -> dict[str, Any]:
    """Simplify with `rival` and verify. Status: ok, crash, timeout, unverified, unreadable."""
    target = scratch / f"{rival}.onnx"
    command = [python, "-m", rival, str(model.path), str(target)]
    outcome = run_command(command, RIVAL_TIMEOUT_S, cwd=scratch)
    record: dict[str, Any] = {"status": "ok", "seconds": round(outcome.seconds, 3), "detail": ""}
    if outcome.code is None:
        return record | {"status": "timeout"}
    if not target.exists():
        return record | {"status": "crash", "detail": f"{outcome.code}: {outcome.last_line}"}
    try:
        counted = count_nodes(load_shell(target))
    except Exception as error:
        return record | {"status": "unreadable", "detail": str(error)[:300]}
    record |= {"nodes": counted.total(), "ops": dict(sorted(counted.items()))}
    job = {"do": "compare", "a": str(model.path), "b": str(target), "shapes": model.shapes}
    answer = worker.ask(job)
    if answer["status"] != "same":
        record |= {"status": "unverified", "detail": f"{answer['status']}: {answer['detail']}"}
    return record


def measure_rivals(folder: Path, python: str, out: Path, keep: Path | None) -> None:
    """Write the rivals' counts for every model below `folder` to `out`.

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
            record |= {"nodes": counted.total(), "ops": dict(sorted(counted.items()))}
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
    out.write_text(json.dumps({"onnx": onnx.__version__, "models": records}, indent=1))


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    rivals = modes.add_parser("rivals", help="count what the rivals make of the models")
    rivals.add_argument("models", type=Path)
    rivals.add_argument("--peer-python", required=True)
    rivals.add_argument("--out", type=Path, required=True)
    rivals.add_argument("--keep", type=Path, help="folder for the rivals' own outputs")
    args = parser.parse_args()
    measure_rivals(args.models, args.peer_python, args.out, args.keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
