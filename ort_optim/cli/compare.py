"""`compare`: do two models compute the same, and if not, where do they part?"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ort_optim.cli.argument_types import positive_int, seed, tolerance
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
from ort_optim.errors import InputError, VerificationError
from ort_optim.report.console import show
from ort_optim.verify.compare import OutputComparison, Tolerance
from ort_optim.verify.judge import Verdict, Verifier
from ort_optim.verify.layers import LayerReport, first_parting

NAME = "compare"
HELP = "compare the outputs of two models; exit code 3 when they differ"

COLUMNS = {
    "max abs": ("max_abs", ".3g"),
    "max rel": ("max_rel", ".3g"),
    "mean abs": ("mean_abs", ".3g"),
    "p50": ("p50", ".3g"),
    "p90": ("p90", ".3g"),
    "p99": ("p99", ".3g"),
    "cosine": ("cosine", ".8g"),
    "SNR dB": ("snr_db", ".1f"),
    "top-1": ("top1", ".1%"),
}
"""Heading: (field of ErrorFigures, format)."""

PLAIN, WITH_LIBRARY = "", " (with ort_optim)"
"""What is said behind an output of plain ONNX Runtime, and of our library in it."""

WIDE = 130
WIDE_ONLY = frozenset({"max rel", "mean abs", "p50", "p90", "cosine"})
"""Left out on terminals of fewer columns than WIDE; --json always has them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `compare`."""
    parser.add_argument("a", type=Path, metavar="A.onnx", help="the reference")
    parser.add_argument("b", type=Path, metavar="B.onnx", help="the model to judge")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="SAMPLES.npz|DIR",
        help="inputs to compare on (default: generated from types and shapes)",
    )
    parser.add_argument("--rtol", type=tolerance, help="relative tolerance (default: by type)")
    parser.add_argument("--atol", type=tolerance, help="absolute tolerance (default: by type)")
    parser.add_argument(
        "--layers", action="store_true", help="find the first layer at which the models part"
    )
    add_shape_argument(parser)
    parser.add_argument(
        "--sets", type=positive_int, default=3, help="generated input sets (default: 3)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of generated inputs (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compare with ONNX Runtime's optimizations off, and once more as our library runs B where it
    has something to run; 0 if all outputs agree, else 3."""
    limits = Tolerance(args.rtol, args.atol)
    pins = parse_shapes(args.shape)
    layers = None
    with tempfile.TemporaryDirectory() as scratch, Engine(threads=1) as engine:
        engine.start()
        a, b = (read_model(path, Path(scratch)) for path in (args.a, args.b))
        session_a, session_b = (open_session(engine, m, optimize=False) for m in (a, b))
        inputs = engine.inputs(session_a), engine.inputs(session_b)
        check_same_interface(a, b, inputs, "inputs")
        check_same_interface(
            a, b, (engine.outputs(session_a), engine.outputs(session_b)), "outputs"
        )
        engine.close(session_b)
        if args.data is None:
            pins = shared_pins(pins, inputs[0], [inputs[1]])
        chosen = choose_inputs(
            engine, session_a, a, data=args.data, pins=pins, seed=args.seed, sets=args.sets
        )
        engine.close(session_a)
        extended = with_library(b, engine.threads)
        candidates = [b] if extended is None else [b, extended]
        verdicts = _judge(engine, a, candidates, chosen, limits)
        for model, verdict in zip(candidates, verdicts, strict=True):
            if not verdict.outputs and not verdict.passed:
                raise VerificationError(f"{model.label}: {verdict.reason}")
        if args.layers:
            layers = _part(engine, a, b, chosen, verdicts[0], limits)
    if args.json:
        _print_json(verdicts, chosen, layers)
    else:
        _print_tables(verdicts, chosen, layers)
    return 0 if all(each.passed for each in verdicts) else VerificationError.exit_code


def _judge(
    engine: Engine,
    a: ModelArgument,
    candidates: Sequence[ModelArgument],
    chosen: ChosenInputs,
    limits: Tolerance,
) -> list[Verdict]:
    """What a Verifier says on all sets of each model. Raises InputError where `a` fails on them."""
    try:
        verifier = Verifier(engine, a.source, chosen.feeds, structure=a.structure, tolerance=limits)
    except EngineError as error:
        raise InputError(f"{a.path}: ONNX Runtime can't run it on these inputs: {error}") from None
    return [
        verifier.check(each.source, optimize=each.is_extended, all_sets=True) for each in candidates
    ]


def _part(
    engine: Engine,
    a: ModelArgument,
    b: ModelArgument,
    chosen: ChosenInputs,
    verdict: Verdict,
    limits: Tolerance,
) -> LayerReport:
    """The first layer that differs, on the input set with the worst output."""
    worst = max(verdict.outputs, key=lambda c: (not c.passed, c.max_abs), default=None)
    feeds = chosen.feeds[worst.set_index if worst else 0]
    return first_parting(engine, (a.structure, a.source), (b.structure, b.source), feeds, limits)


def _print_json(
    verdicts: Sequence[Verdict], chosen: ChosenInputs, layers: LayerReport | None
) -> None:
    first, *others = (_plain(verdict) for verdict in verdicts)
    plain = {
        **first,
        "equal": all(verdict.passed for verdict in verdicts),
        "notes": list(chosen.notes),
        "with_library": others[0] if others else None,
    }
    if layers is not None:
        plain["layers"] = layers.as_plain()
    print(json.dumps(plain, indent=2, allow_nan=False))


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "equal": verdict.passed,
        "reason": verdict.reason,
        "sets": verdict.sets,
        "exercised": verdict.exercised,
        "outputs": [comparison.as_plain() for comparison in verdict.outputs],
        "inner": [comparison.as_plain() for comparison in verdict.inner],
    }


def _print_tables(
    verdicts: Sequence[Verdict], chosen: ChosenInputs, layers: LayerReport | None
) -> None:
    console = make_console()
    narrow = console.is_terminal and console.width < WIDE
    columns = [c for c in COLUMNS if not (narrow and c in WIDE_ONLY)]
    headings = ["output", "type", *columns, "verdict"]
    table = make_table(console, headings, left=("output", "type", "verdict"))
    named = list(zip((PLAIN, WITH_LIBRARY), verdicts, strict=False))
    for suffix, verdict in named:
        for comparison in verdict.outputs:
            table.add_row(*_row(replace(comparison, name=comparison.name + suffix), columns))
        for comparison in verdict.inner:
            name = f"(inner) {comparison.name}{suffix}"
            table.add_row(*_row(replace(comparison, name=name), columns))
    show(console, table)
    for suffix, verdict in named:
        _show_conclusion(console, verdict, suffix)
    for note in chosen.notes:
        show(console, cell(note, "dim"))
    if layers is not None:
        for line in _layer_lines(layers):
            show(console, cell(line))


def _show_conclusion(console: Console, verdict: Verdict, suffix: str) -> None:
    sets = f"{verdict.sets} input set" + ("s" if verdict.sets != 1 else "") + suffix
    if not verdict.passed:
        show(console, cell(f"the outputs differ on {sets}: {verdict.reason}", "bold red"))
    elif verdict.exercised:
        show(console, cell(f"the outputs agree on {sets}", "green"))
    else:
        show(console, cell(f"nothing is proved on {sets}: {verdict.reason}", "yellow"))


def _row(comparison: OutputComparison, columns: Sequence[str]) -> list[Text | str]:
    shape = "x".join(map(str, comparison.shape)) or "scalar"
    verdict = f"{'ok' if comparison.passed else 'DIFFERS'} ({comparison.decided_by})"
    figures = comparison.figures
    numbers = [
        figure(getattr(figures, COLUMNS[column][0]), COLUMNS[column][1]) if figures else ""
        for column in columns
    ]
    return [
        cell(comparison.name),
        cell(f"{comparison.dtype} {shape}"),
        *numbers,
        cell(verdict, "" if comparison.passed else "bold red"),
    ]


def _layer_lines(layers: LayerReport) -> list[str]:
    searched = f"{layers.matched} tensors of the same name, {layers.runs} runs of each model"
    lines = []
    if layers.parting is None:
        lines.append(f"no layer differs ({searched})")
    else:
        found = layers.parting
        lines.append(f"first layer that differs: '{found.tensor}' ({searched})")
        lines.append(f"  in A made by {found.node_a}, in B by {found.node_b}")
        lines.append(f"  max abs error {found.comparison.max_abs:.3g}: {found.comparison.reason}")
    if layers.only_a or layers.only_b:
        lines.append(f"{layers.only_a} tensors are only in A, {layers.only_b} only in B")
    if layers.inner:
        lines.append(f"{layers.inner} nodes inside subgraphs were not looked into")
    if layers.unreadable:
        lines.append(f"{layers.unreadable} tensors could not be read")
    return lines
