"""`inspect`: what is in a model file. Reads the file only; nothing is run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ort_optim.cli.shape_argument import add_shape_argument, parse_shapes
from ort_optim.cli.tables import cell, make_console, make_table
from ort_optim.graph.inspection import Inspection, Value, as_plain, inspect_model
from ort_optim.graph.macs import UNKNOWN, Macs, Shape
from ort_optim.graph.stats import Layer
from ort_optim.report.console import show
from ort_optim.report.units import count_text, plural, printable, size_text

NAME = "inspect"
HELP = "print what is in a model: inputs, layers, shapes, multiply-accumulates, weights"

LAYERS_SHOWN = 20
OPS_SHOWN = 20
ANNOTATIONS_SHOWN = 20
WIDE_ENOUGH_FOR_INPUTS = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `inspect`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="the .onnx file")
    parser.add_argument("--json", action="store_true", help="print all facts as JSON")
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"list every layer and op, in the file's order, not the {LAYERS_SHOWN} largest",
    )
    add_shape_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the facts of a model. Raises InputError for a file that is no model."""
    found = inspect_model(args.model, parse_shapes(args.shape))
    if args.json:
        print(json.dumps(as_plain(found), indent=2))
    else:
        console = make_console()
        show(console, Group(*_sections(found, console, everything=args.all)))
    return 0


def _sections(found: Inspection, console: Console, *, everything: bool) -> Iterator[RenderableType]:
    yield Text(printable(str(found.path)), style="bold")
    yield _facts(found)
    for title, values in (("inputs", found.inputs), ("outputs", found.outputs)):
        yield from _section(f"{title} ({len(values)})", _value_table(values))
    ops = list(found.op_histogram.items())
    shown_ops = ops if everything else ops[:OPS_SHOWN]
    yield from _section(
        f"ops ({sum(found.op_histogram.values())})",
        _pairs([(op, str(count)) for op, count in shown_ops], len(ops) - len(shown_ops)),
    )
    yield from _layer_section(found, console, everything)
    if found.functions:
        pairs = [(name, plural(count, "node")) for name, count in found.functions.items()]
        yield from _section(f"functions ({len(pairs)})", _pairs(pairs))
    if found.annotations:
        shown = found.annotations if everything else found.annotations[:ANNOTATIONS_SHOWN]
        pairs = [
            (annotation.where or "(model)", f"{key} = {value}")
            for annotation in shown
            for key, value in annotation.entries.items()
        ]
        hidden = len(found.annotations) - len(shown)
        yield from _section(f"annotations ({len(found.annotations)})", _pairs(pairs, hidden))
    if found.repairs:
        title = "to be repaired (optimize does so while loading)"
        yield from _section(title, _pairs([(each, "") for each in found.repairs]))


def _section(title: str, content: RenderableType) -> Iterator[RenderableType]:
    yield Text()
    yield Text(title, style="bold")
    yield content


def _facts(found: Inspection) -> Table:
    opset = ", ".join(f"{name or 'ai.onnx'} {version}" for name, version in found.opset.items())
    pairs = [
        ("size", size_text(found.size_bytes)),
        ("format", f"IR {found.ir_version}, opset {opset or 'not stated'}"),
        ("producer", found.producer or "-"),
        ("nodes", f"{sum(found.op_histogram.values())}, Constants not counted"),
        ("parameters", f"{count_text(found.weights.parameter_count)}"),
        ("weights", size_text(found.weights.size_bytes)),
        ("MACs", _macs_text(found.macs) + _symbol_hint(found.macs)),
        ("FLOPs", _macs_text(Macs.total((found.macs, found.macs)))),
    ]
    pairs += [("external data", str(path)) for path in found.data_files]
    return _pairs(pairs)


def _symbol_hint(macs: Macs) -> str:
    return "  (sizes not known; pin inputs with --shape)" if UNKNOWN in macs.symbols else ""


def _pairs(pairs: Iterable[tuple[str, str]], hidden: int = 0) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(Text("  " + printable(label), style="dim"), Text(printable(text)))
    if hidden > 0:
        grid.add_row(Text(f"  and {hidden} more (--all)", style="dim"), "")
    return grid


def _value_table(values: Sequence[Value]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(overflow="fold")
    for value in values:
        name = Text("  " + printable(value.name), style="dim")
        grid.add_row(name, Text(value.type), cell(_shape_text(value.shape)))
    return grid


def _layer_section(
    found: Inspection, console: Console, everything: bool
) -> Iterator[RenderableType]:
    total = found.macs.at_one
    # Sorting is stable: without any known MACs these are the first ones.
    largest = sorted(found.layers, key=lambda layer: -(layer.macs.at_one if layer.macs else 0))
    shown = found.layers if everything else largest[:LAYERS_SHOWN]
    title = f"layers ({len(found.layers)})"
    if len(shown) < len(found.layers):
        which = "with the most MACs" if total else "first"
        title += f", the {len(shown)} {which}; --all lists every one"
    yield from _section(title, _layer_table(shown, total, console))


def _layer_table(shown: Iterable[Layer], total: int, console: Console) -> Table:
    """One line a layer. The name comes last, as exporters make names of any length."""
    with_inputs = console.width >= WIDE_ENOUGH_FOR_INPUTS
    shapes = ["input", "output"] if with_inputs else ["output"]
    headings = ["op", *shapes, "MACs", "share", "params", "name"]
    table = make_table(console, headings, left=("op", "name"))
    if console.is_terminal:  # the name gets the width that is left, on one line
        name = table.columns[-1]
        table.expand, name.ratio, name.no_wrap, name.overflow = True, 1, True, "ellipsis"
    for layer in shown:
        where = f"{layer.graph}: " if layer.graph else ""
        share = f"{100 * layer.macs.at_one / total:.1f}%" if layer.macs and total else "-"
        sides = [layer.inputs, layer.outputs] if with_inputs else [layer.outputs]
        table.add_row(
            cell(layer.op),
            *(cell(_shape_text(next(iter(side), None))) for side in sides),
            cell("-" if layer.macs is None else _macs_text(layer.macs)),
            cell(share),
            cell(count_text(layer.parameter_count) if layer.parameter_count else "-"),
            cell(where + layer.name, "dim"),
        )
    return table


def _shape_text(shape: Shape | None) -> str:
    """ "1x3x224x224"; with symbols "[N, 3, H, W]"; "-" where unknown."""
    if shape is None:
        return "-"
    if all(isinstance(dim, int) for dim in shape):
        return "x".join(map(str, shape)) or "scalar"
    return f"[{', '.join(str(UNKNOWN if dim is None else dim) for dim in shape)}]"


def _macs_text(macs: Macs) -> str:
    """ "118 M", "118 M x N", terms joined by plus; unknown sizes stand last."""
    terms = (
        " x ".join((count_text(count), *sorted(symbols, key=lambda s: (s == UNKNOWN, s))))
        for symbols, count in macs.terms
    )
    return " + ".join(terms) or "0"
