"""Makes the project's own models, and large graphs for benchmarks.

    make_models.py                                   train, export and measure every network in models/
    make_models.py --only digits_resnet tones_kws    only these
    make_models.py --architectures DIR               full-size architectures, seeded random weights
    make_models.py --nodes 5000 --output g.onnx      a graph of so many nodes
    make_models.py --gigabytes 3 --external --output big.onnx    a model with so many weights

Training needs torch, scikit-learn, scikit-image, scipy and onnxruntime; the rest needs onnx and numpy.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "models"


def main() -> int:
    """Parses the command line and does the one thing asked for."""
    args = _parser().parse_args()
    train(args.only, args.output or MODELS, args.seed, args.threads)
    return 0


def train(only: list[str] | None, folder: Path, seed: int, threads: int) -> None:
    """Makes the named networks (default: all) and brings the manifest up to date."""
    from models_lib import recording, zoo

    folder.mkdir(parents=True, exist_ok=True)
    for name in only or zoo.NAMES:
        start = time.perf_counter()
        print(name, file=sys.stderr)
        entry = recording.record(name, zoo.maker(name)(seed, threads), seed, folder)
        entries = recording.read_manifest(folder) | {name: entry}
        recording.write_manifest(folder, {n: entries[n] for n in zoo.NAMES if n in entries})
        metric, seconds = entry["metric"], time.perf_counter() - start
        kilobytes = entry["size_bytes"] / 1e3
        print(f"{name}: {metric['name']} {metric['value']}, {kilobytes:.0f} kB, {seconds:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
