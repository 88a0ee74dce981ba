"""`optimize IN OUT`: the main job."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ort_optim.cli.argument_types import positive_int, tolerance
from ort_optim.cli.shape_argument import add_shape_argument, parse_shapes
from ort_optim.errors import InputError, OrtOptimError
from ort_optim.pipeline import STAGES, optimize
from ort_optim.reduction import has_failures, reduce_failure
from ort_optim.report import print_report

NAME = "optimize"
HELP = "optimize a model, verify that its outputs agree, and report what was done"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="IN.onnx")
    parser.add_argument("output", type=Path, metavar="OUT.onnx", help="may be the same file")
    parser.add_argument(
        "--target",
        default="native",
        metavar="NAME|FACTS.json",
        help="the machine to optimize for: native, a shipped name, or a file from `probe --json`",
    )
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="intra-op threads for timing"
    )
    add_shape_argument(parser)
    parser.add_argument(
        "--data", type=Path, metavar="SAMPLES.npz|DIR", help="your inputs, to compare outputs on"
    )
    parser.add_argument("--rtol", type=tolerance, metavar="R", help="relative tolerance of outputs")
    parser.add_argument("--atol", type=tolerance, metavar="A", help="absolute tolerance of outputs")
    parser.add_argument(
        "--disable", action="append", default=[], metavar="PASS", help="leave a pass out"
    )
    parser.add_argument(
        "--keep-initializer-inputs",
        action="store_true",
        help="leave weights among the graph inputs, for callers that override them",
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--unverified", action="store_true", help="rewrite a model that can't be run, too"
    )
    trust.add_argument(
        "--require-verify", action="store_true", help="exit with 3 if outputs can't be compared"
    )
    parser.add_argument("--no-timing", action="store_true", help="don't time the result")
    parser.add_argument(
        "--report",
        action="append",
        default=[],
        type=Path,
        metavar="PATH.json|.md|.html",
        help="write the report to a file; may be given several times",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="keep each finished step in DIR, and go on after the last one that is still valid",
    )
    parser.add_argument(
        "--reduce",
        action="store_true",
        help="with --work: where a pass or a region failed, write the smallest part of the model "
        "on which it still fails to DIR/smallest.onnx",
    )
    parser.add_argument("--explain", action="store_true", help="what fired and what was refused")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    if args.reduce and args.work is None:
        raise InputError("--reduce needs --work DIR, where the smallest failing part is written")
    if args.reduce and args.input.resolve() == args.output.resolve():
        raise InputError("--reduce needs IN as it was: name another OUT")
    with _Stages(quiet=args.quiet) as stages:
        report = optimize(
            args.input,
            args.output,
            report=args.report,
            work=args.work,
            observer=stages.begin,
            target=args.target,
            threads=args.threads,
            shapes=parse_shapes(args.shape),
            data=args.data,
            rtol=args.rtol,
            atol=args.atol,
            disable=frozenset(args.disable),
            keep_initializer_inputs=args.keep_initializer_inputs,
            unverified=args.unverified,
            require_verify=args.require_verify,
            timing=not args.no_timing,
        )
    if not args.quiet:
        print_report(report, explain=args.explain)
    if args.reduce:
        _reduce(args.work, quiet=args.quiet)
    return 0


def _reduce(work: Path, *, quiet: bool) -> None:
    """What comes of it is told; it says nothing against OUT, which is written."""
    try:
        if not has_failures(work):
            return
        smallest = reduce_failure(work)
    except OrtOptimError as error:
        print(f"ort_optim: OUT is written, but --reduce failed: {error}", file=sys.stderr)
        return
    if not quiet:
        print(f"{smallest}: {smallest.with_suffix('.txt').read_text().strip()}")


class _Stages:
    """A progress bar over the stages; nothing at all where stderr is no terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=len(STAGES))

    def __enter__(self) -> _Stages:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, stage: str) -> None:
        """A stage begins: those before it are done. Drawn at once, however short it is."""
        done = STAGES.index(stage)
        self._bar.update(self._task, description=stage, completed=done, refresh=True)
