"""Makes the project's own models, and large graphs for benchmarks.

    make_models.py                              train, export and measure all networks in models/
    make_models.py --only digits_resnet ...     only these
    make_models.py --architectures DIR          full-size architectures, seeded random weights
    make_models.py --nodes 5000 --output G.onnx                   a graph of so many nodes
    make_models.py --gigabytes 3 --external --output BIG.onnx     a model of that many weights
    make_models.py --list                       the names that --only takes

Training needs torch, onnxscript, scikit-learn, scikit-image, scipy, pillow and onnxruntime; the
rest needs onnx and numpy only.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "models"


def main() -> int:
    """Parses the command line and does the one thing asked for."""
    parser = _parser()
    args = parser.parse_args()
    if args.external and args.gigabytes is None:
        parser.error("--external goes with --gigabytes")
    try:
        if args.list:
            list_names()
        elif args.architectures is not None:
            write_architectures(args.only, args.architectures, args.seed)
        elif args.nodes is not None or args.gigabytes is not None:
            if args.output is None:
                parser.error("--nodes and --gigabytes need --output FILE.onnx")
            write_scale(args.nodes, args.gigabytes, args.external, args.output, args.seed)
        else:
            train(args.only, args.output or MODELS, args.seed, args.threads)
    except ValueError as error:
        print(f"make_models.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def list_names() -> None:
    """Prints what `--only` takes."""
    from models_lib import fullsize, light, zoo

    print("networks:", *zoo.NAMES)
    print("architectures:", *light.NAMES, *fullsize.ARCHITECTURES)


def train(only: list[str] | None, folder: Path, seed: int, threads: int) -> None:
    """Makes the named networks (default: all) and brings the manifest up to date."""
    from models_lib import recording, zoo

    folder.mkdir(parents=True, exist_ok=True)
    for name in _chosen(only, zoo.NAMES):
        start = time.perf_counter()
        print(name, file=sys.stderr)
        entry = recording.record(name, zoo.maker(name)(seed, threads), seed, folder)
        entries = recording.read_manifest(folder) | {name: entry}
        recording.write_manifest(folder, {n: entries[n] for n in zoo.NAMES if n in entries})
        metric, seconds = entry["metric"], time.perf_counter() - start
        kilobytes = entry["size_bytes"] / 1e3
        print(f"{name}: {metric['name']} {metric['value']}, {kilobytes:.0f} kB, {seconds:.0f} s")


def write_architectures(only: list[str] | None, folder: Path, seed: int) -> None:
    """Writes the named full-size architectures (default: all) as `folder`/NAME.onnx."""
    import onnx
    from models_lib import fullsize, light

    folder.mkdir(parents=True, exist_ok=True)
    for name in _chosen(only, (*light.NAMES, *fullsize.ARCHITECTURES)):
        builder = fullsize.ARCHITECTURES.get(name)
        model = builder(seed) if builder else light.make(name, seed)
        onnx.save(model, folder / f"{name}.onnx")
        megabytes = model.ByteSize() / 1e6
        print(f"{name}.onnx: {len(model.graph.node)} nodes, {megabytes:.0f} MB")


def write_scale(
    nodes: int | None, gigabytes: float | None, external: bool, output: Path, seed: int
) -> None:
    """Writes the graph of `nodes` nodes, or of `gigabytes` of weights, to `output`."""
    import onnx
    from models_lib import scale

    if nodes is not None:
        onnx.save(scale.make_nodes(nodes, seed), output)
    elif gigabytes is not None:
        scale.write_gigabytes(output, gigabytes, seed, external=external)


def _chosen(only: list[str] | None, names: tuple[str, ...]) -> list[str]:
    """`only`, or all names; ValueError on a name that is not there."""
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise ValueError(f"no {', '.join(unknown)}; there are {', '.join(names)}")
    return only or list(names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print the names and stop")
    what.add_argument(
        "--architectures", type=Path, metavar="DIR", help="write full-size architectures to DIR"
    )
    what.add_argument(
        "--nodes", type=int, metavar="N", help="write a graph of N nodes (20 or more)"
    )
    what.add_argument(
        "--gigabytes", type=float, metavar="GB", help="write a model of GB 10^9 bytes of weights"
    )
    parser.add_argument(
        "--external", action="store_true", help="with --gigabytes: weights in OUTPUT.data"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these; see --list")
    parser.add_argument(
        "--output",
        type=Path,
        help="the file of --nodes and --gigabytes; when training, a folder instead of models/",
    )
    parser.add_argument("--seed", type=int, default=7, help="default %(default)s")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch while training; default %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
