"""`bench`: how fast models run, timed side by side in one process."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from ort_optim.cli.argument_types import positive_float, positive_int, seed
from ort_optim.cli.model_argument import (
    ChosenInputs,
    ModelArgument,
    check_same_interface,
    choose_inputs,
    open_session,
    read_model,
    shared_pins,
    with_library,
)
from ort_optim.cli.shape_argument import add_shape_argument, parse_shapes
from ort_optim.cli.tables import cell, figure, make_console, make_table
from ort_optim.engine import Engine, EngineError
from ort_optim.errors import InputError
from ort_optim.hardware import NATIVE, load_target
from ort_optim.report.console import show
from ort_optim.verify.judge import Verdict, Verifier
from ort_optim.verify.speed import Ratio, compare_times

NAME = "bench"
HELP = "time models side by side, as ONNX Runtime runs them with and without our library"

DEFAULT_RUNS = 50
DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Result:
    """One model's timings in ms; against the first model its ratio, and whether outputs agree."""

    path: str
    times_ms: tuple[float, ...]
    ratio: Ratio | None = None
    verdict: Verdict | None = None

    def as_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": self.path,
            "median_ms": statistics.median(self.times_ms),
            "min_ms": min(self.times_ms),
            "max_ms": max(self.times_ms),
            "times_ms": list(self.times_ms),
            "against_first": (
                {**asdict(self.ratio), "verdict": self.ratio.verdict} if self.ratio else None
            ),
            "outputs_agree": self.verdict.passed if self.verdict else None,
            "outputs_reason": self.verdict.reason if self.verdict else "",
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--threads", type=positive_int, help="default: the usable cores")
    parser.add_argument(
        "--runs",
        type=positive_int,
        default=DEFAULT_RUNS,
        help=f"rounds, each of which runs every model (default: {DEFAULT_RUNS})",
    )
    parser.add_argument(
        "--seconds",
        type=positive_float,
        default=DEFAULT_SECONDS,
        help=f"stop after this time even with fewer rounds (default: {DEFAULT_SECONDS:g})",
    )
    add_shape_argument(parser)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="SAMPLES.npz|DIR",
        help="take the first sample as input (default: generated from types and shapes)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the generated input (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check that the outputs agree, then time all models interleaved, round by round."""
    pins = parse_shapes(args.shape)
    threads = args.threads or load_target(NATIVE).cores
    with tempfile.TemporaryDirectory() as scratch, Engine(threads=threads) as engine:
        engine.start()
        models = []
        for model in (read_model(path, Path(scratch)) for path in args.models):
            extended = with_library(model, threads)
            models += [model] if extended is None else [model, extended]
        sessions = [open_session(engine, model, optimize=True) for model in models]
        inputs = [engine.inputs(session) for session in sessions]
        for model, session, infos in zip(models, sessions, inputs, strict=True):
            check_same_interface(models[0], model, (inputs[0], infos), "inputs")
            outputs = engine.outputs(sessions[0]), engine.outputs(session)
            check_same_interface(models[0], model, outputs, "outputs")
        if args.data is None:
            pins = shared_pins(pins, inputs[0], inputs[1:])
        chosen = choose_inputs(
            engine, sessions[0], models[0], data=args.data, pins=pins, seed=args.seed, sets=1
        )
        verdicts = _check(engine, models, chosen)
        try:
            times_ms = engine.time(
                sessions, chosen.feeds[0], max_runs=args.runs, max_seconds=args.seconds
            )
        except EngineError as error:
            raise InputError(f"ONNX Runtime can't run the models on one input: {error}") from None
    results = [
        Result(
            model.label,
            tuple(times),
            compare_times(times_ms[0], times) if index else None,
            verdicts[index],
        )
        for index, (model, times) in enumerate(zip(models, times_ms, strict=True))
    ]
    if args.json:
        _print_json(results, chosen, threads)
    else:
        _print_table(results, chosen, threads)
    return 0


def _check(
    engine: Engine, models: list[ModelArgument], chosen: ChosenInputs
) -> list[Verdict | None]:
    """Whether each model's outputs agree with the first one's; timings are worth little else."""
    if len(models) == 1:
        return [None]
    first = models[0]
    try:
        verifier = Verifier(engine, first.source, chosen.feeds[:1], structure=first.structure)
    except EngineError as error:
        raise InputError(f"{first.path}: ONNX Runtime can't run it: {error}") from None
    return [None, *(verifier.check(model.source) for model in models[1:])]


def _print_json(results: list[Result], chosen: ChosenInputs, threads: int) -> None:
    plain = {
        "threads": threads,
        "rounds": len(results[0].times_ms),
        "notes": list(chosen.notes),
        "models": [result.as_plain() for result in results],
    }
    print(json.dumps(plain, indent=2, allow_nan=False))


def _print_table(results: list[Result], chosen: ChosenInputs, threads: int) -> None:
    console = make_console()
    headings = ["model", "median ms", "min ms", "max ms"]
    if len(results) > 1:
        headings += ["speed", "95% interval", "verdict", "outputs"]
    table = make_table(console, headings, left=("model", "verdict", "outputs"))
    for result in results:
        times = result.times_ms
        row: list[Text | str] = [
            cell(result.path),
            *(figure(value, ".4g") for value in (statistics.median(times), min(times), max(times))),
        ]
        if result.ratio is not None:
            row += [
                f"{result.ratio.ratio:.3f}x",
                f"{result.ratio.low:.3f} to {result.ratio.high:.3f}",
                cell(result.ratio.verdict),
                _agreement(result.verdict),
            ]
        table.add_row(*row)
    show(console, table)
    rounds = len(results[0].times_ms)
    show(console, cell(f"{rounds} interleaved rounds after a warm-up, {_threads(threads)}", "dim"))
    for note in chosen.notes:
        show(console, cell(note, "dim"))
    for result in results:
        if result.verdict is not None and result.verdict.reason:
            show(console, cell(f"{result.path}: {result.verdict.reason}", "bold red"))


def _agreement(verdict: Verdict | None) -> Text:
    if verdict is None or (verdict.passed and verdict.exercised):
        return cell("agree", "green")
    return cell("not compared", "yellow") if verdict.passed else cell("DIFFER", "bold red")


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count != 1 else "")
