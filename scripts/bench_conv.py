"""Our convolution templates beside ONNX Runtime's own kernels, layer by layer.

    python scripts/bench_conv.py [--layers FILTER ...] [--threads 1 ...] [--target x86-64-v3]
                                 [--alone] [--chain] [--templates NAME ...] [--ort-only]
                                 [--seconds S] [--json OUT.json] [--markdown OUT.md]

For each row of `conv_layers.csv` a model of Conv + bias + ReLU with random weights, alone and as a
chain of four (`_layers.chain_of` says of what; layers that are strided, transposed or read an image
have no chain). In one process, in turn: ONNX Runtime as users run it, each template forced, and
what the rule chooses. Where that is to leave the layer to ONNX Runtime, its time is ONNX Runtime's.
Each answer is compared with ONNX Runtime's before it is timed; one that is off by more than
`MOST_ERROR` of the largest value is reported as wrong, without a time.

Statistic: medians, after 3 runs of warm-up, of at least 7 rounds and `--seconds` for each variant.
Of hundreds of layers, some are hit by the machine's noise, so one that comes out slower than ONNX
Runtime by more than the bound is measured twice more, each time in a new process, at the end: the
measurement with the median speedup counts.
For one thread, pin the process to a core (`taskset -c 1`); on a busy machine take `--cpu-time`,
the time that the process had the core. `--target` makes our code for another
machine whose instructions this one has too; ONNX Runtime's kernels stay this machine's.

`--layers` keeps layers in whose class, text or models FILTER is found ("3x3s1", "@56x56", "unet").
Exit code 3 if an answer is wrong, 4 if the rule breaks a bound of `BOUNDS`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from _common import HERE, Worker
from _layers import CLASSES, Layer, chain_of, layer_class, read_layers, to_row

from ort_optim.kernels.templates import TEMPLATES

ORT = "ort"
RULE = "rule"
MOST_ERROR = 1e-3  # of the largest value; F(4x4) is within 1e-4 on all layers here
TIMEOUT_S = 300
FLOATS_F43 = 36  # a 3x3 kernel transformed for F(4x4,3x3)
LAST_LEVEL_BYTES = 32 << 20


@dataclass(frozen=True)
class Record:
    """What was measured of a layer, alone or as a chain.

    `us` has the median for ORT ("ort"), each template that takes the layer, and "rule"; `errors`
    (max abs, max rel) against ORT; `chosen` are the templates that the rule took, [] for ORT.
    """

    layer: Layer
    kind: str
    threads: int
    macs: int
    us: dict[str, float]
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def best(self) -> str:
        """The fastest of ORT and the templates."""
        return min((name for name in self.us if name != RULE), key=self.us.__getitem__)

    def gflops(self, variant: str) -> float:
        """GFLOP/s by the definition's count of multiplications, whatever the template does."""
        return 2e-3 * self.macs / self.us[variant]

    def speedup(self, variant: str) -> float:
        """ORT's time over the variant's."""
        return self.us[ORT] / self.us[variant]

    @property
    def rule_over_best(self) -> float:
        """The time of the rule's choice over the best one's."""
        return self.us[RULE] / self.us[self.best]


@dataclass(frozen=True)
class Bound:
    """Layers that go together in the summary, and the speedup asked of the rule there."""

    title: str
    of: Callable[[Record], bool]
    alone: float | None = None
    chain: dict[int, float] = field(default_factory=dict)  # by threads

    def wanted(self, record: Record) -> float | None:
        """The least geometric mean for records like this one; None where nothing is asked."""
        if record.kind == "chain":
            return self.chain.get(record.threads)
        return self.alone if record.threads == 1 else None


def is_class(name: str) -> Callable[[Record], bool]:
    """Whether a record's layer is of that class."""
    return lambda record: layer_class(record.layer.spec) == name


def is_wide(record: Record) -> bool:
    """3x3, stride 1, and 32 channels or more on both sides."""
    spec = record.layer.spec
    return layer_class(spec) == "3x3s1" and min(spec.Cin, spec.Cout) >= 32


def is_wide_and_fits(record: Record) -> bool:
    """The same, and the weights of all layers, packed for F(4x4,3x3), fit the last-level cache."""
    spec = record.layer.spec
    layers = 4 if record.kind == "chain" else 1
    return is_wide(record) and layers * spec.Cin * spec.Cout * FLOATS_F43 * 4 <= LAST_LEVEL_BYTES


BOUNDS = (
    Bound("3x3s1, 32 channels or more", is_wide, alone=1.8, chain={1: 2.2, 2: 2.0}),
    Bound("... packed weights in cache", is_wide_and_fits, alone=1.8, chain={1: 2.5, 2: 2.0}),
    *(Bound(name, is_class(name), 1.0, {1: 1.0}) for name in ("pointwise", "strided")),
    *(Bound(name, is_class(name), 1.2, {1: 1.2}) for name in ("depthwise", "first")),
    *(Bound(name, is_class(name)) for name in ("3x3s1", "other", "grouped", "transposed")),
)
MOST_RULE_OVER_BEST = 1.10  # geometric mean over all layers
LEAST_RULE_SPEEDUP = 0.97  # of each layer


def measure(
    worker: Worker, layer: Layer, kind: str, threads: int, args: argparse.Namespace
) -> Record | None:
    """One layer, `alone` or as a `chain`; None if it has no chain."""
    specs = chain_of(layer.spec) if kind == "chain" else [layer.spec]
    if specs is None:
        return None
    job = {
        "specs": [to_row(replace(layer, spec=spec)) for spec in specs],
        "variants": [] if args.ort_only else [*args.templates, RULE],
        "threads": threads,
        "target": args.target,
        "seconds": args.seconds,
        "cpu_time": args.cpu_time,
    }
    macs = sum(spec.macs or 0 for spec in specs)
    answer = worker.ask(job)
    if answer["status"] != "timed":
        return Record(layer, kind, threads, macs, {}, failure=str(answer.get("detail")))
    errors = {name: (far, rel) for name, (far, rel) in answer["errors"].items()}
    wrong = [name for name, (_, rel) in errors.items() if not rel <= MOST_ERROR]
    us = {
        name: round(statistics.median(times), 3)
        for name, times in answer["times_us"].items()
        if name not in wrong
    }
    us.setdefault(RULE, us[ORT])
    return Record(
        layer,
        kind,
        threads,
        macs,
        us,
        errors,
        answer["refused"],
        chosen=answer["templates"].get(RULE, []),
        failure=f"wrong: {', '.join(wrong)}" if wrong else "",
    )


def is_slower(record: Record) -> bool:
    """Whether the rule breaks the bound of each layer."""
    return bool(record.us) and record.speedup(RULE) < LEAST_RULE_SPEEDUP


def settled(record: Record, args: argparse.Namespace) -> Record:
    """The record, or where it is slower than it may be, the median one of three."""
    if args.ort_only or args.target or not is_slower(record):
        return record
    found = [record]
    for _ in range(2):
        with Worker(HERE / "_conv_worker.py", timeout_s=TIMEOUT_S) as worker:
            again = measure(worker, record.layer, record.kind, record.threads, args)
        if again is None or not again.us:
            return record
        show(again)
        found.append(again)
    return sorted(found, key=lambda each: each.speedup(RULE))[1]


def show(record: Record) -> None:
    """One line, at once: a pass takes minutes."""
    times = [f"{name} {us:.1f}" for name, us in record.us.items()]
    flops = f"{record.gflops(ORT):.1f} GFLOP/s" if record.us else ""
    told = (record.layer.name, record.kind, record.threads, *times, flops, record.failure)
    print(*told, sep="  ", flush=True)


def geometric_mean(values: Iterable[float]) -> float:
    """NaN for none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def summarize(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each group of `BOUNDS`, kind and number of threads, with the verdict."""
    rows = []
    timed = [record for record in records if record.us]
    for kind, threads in sorted({(record.kind, record.threads) for record in timed}):
        for bound in BOUNDS:
            found = [r for r in timed if (r.kind, r.threads) == (kind, threads) and bound.of(r)]
            if not found:
                continue
            wanted = bound.wanted(found[0])
            speedup = geometric_mean(r.speedup(RULE) for r in found)
            rows.append(
                {
                    "group": bound.title,
                    "kind": kind,
                    "threads": threads,
                    "layers": len(found),
                    "ort_gflops": geometric_mean(r.gflops(ORT) for r in found),
                    "speedup_rule": speedup,
                    "speedup_best": geometric_mean(r.speedup(r.best) for r in found),
                    "least_speedup": min(r.speedup(RULE) for r in found),
                    "rule_over_best": geometric_mean(r.rule_over_best for r in found),
                    "wanted": wanted,
                    "reached": wanted is None or speedup >= wanted,
                }
            )
    return rows


def broken_bounds(records: Sequence[Record], summary: Sequence[dict[str, Any]]) -> list[str]:
    """What the rule does not reach, one line each."""
    timed = [record for record in records if record.us]
    lines = [
        f"{row['group']}, {row['kind']}, {row['threads']} threads: {row['speedup_rule']:.2f}, "
        f"wanted {row['wanted']}"
        for row in summary
        if not row["reached"]
    ]
    over = geometric_mean(record.rule_over_best for record in timed)
    if over > MOST_RULE_OVER_BEST:
        lines.append(f"the rule costs {over:.3f} times the best, wanted {MOST_RULE_OVER_BEST}")
    lines += [
        f"slower than ONNX Runtime: {r.layer.name}, {r.kind}, {r.threads} threads: "
        f"{r.speedup(RULE):.3f}"
        for r in timed
        if is_slower(r)
    ]
    return lines


def to_markdown(
    records: Sequence[Record], summary: Sequence[dict[str, Any]], target: str | None
) -> str:
    """The summary, then one table for each class, kind and number of threads."""
    lines = [
        f"Code for {target or 'this machine'}. Times in microseconds, medians; speedup is ONNX "
        "Runtime's time over ours. GFLOP/s count the multiplications of the definition.",
        "",
        "| layers | kind | threads | number | ORT GFLOP/s | speedup, rule | best | least | "
        "rule/best | wanted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['group']} | {row['kind']} | {row['threads']} | {row['layers']} | "
        f"{row['ort_gflops']:.1f} | {row['speedup_rule']:.2f} | {row['speedup_best']:.2f} | "
        f"{row['least_speedup']:.2f} | {row['rule_over_best']:.3f} | {row['wanted'] or ''} |"
        for row in summary
    ]
    templates = sorted({name for r in records for name in r.us} - {ORT, RULE})
    heads = ["layer", "models", "ORT (us)", "GFLOP/s", *templates, "rule", "speedup", "max error"]
    for name in CLASSES:
        for kind, threads in sorted({(r.kind, r.threads) for r in records}):
            found = [
                r
                for r in records
                if (r.kind, r.threads) == (kind, threads) and layer_class(r.layer.spec) == name
            ]
            if not found:
                continue
            lines += ["", f"### {name}, {kind}, {threads} threads", ""]
            lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
            lines += [f"| {' | '.join(table_cells(record, templates))} |" for record in found]
    return "\n".join(lines) + "\n"


def table_cells(record: Record, templates: Sequence[str]) -> list[str]:
    """The cells of a record's row; an empty one where a template refuses the layer."""
    layer = [str(record.layer.spec), ", ".join(record.layer.models)]
    if not record.us:
        return [*layer, record.failure, *[""] * (len(templates) + 4)]
    error = max((far for far, _ in record.errors.values()), default=0.0)
    return [
        *layer,
        f"{record.us[ORT]:.1f}",
        f"{record.gflops(ORT):.1f}",
        *(f"{record.us[name]:.1f}" if name in record.us else "" for name in templates),
        "+".join(dict.fromkeys(record.chosen)) or "ORT",
        f"{record.speedup(RULE):.2f}",
        record.failure or f"{error:.1e}",
    ]


def to_json(record: Record) -> dict[str, Any]:
    """The record with the layer's columns spelled out."""
    return {
        **to_row(record.layer),
        "kind": record.kind,
        "threads": record.threads,
        "macs": record.macs,
        "us": record.us,
        "errors": record.errors,
        "refused": record.refused,
        "chosen": record.chosen,
        "failure": record.failure,
    }


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [template.name for template in TEMPLATES]
    parser.add_argument("--layers", nargs="+", default=[""], metavar="FILTER", help="any of these")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--target", help="name of a machine to generate code for")
    parser.add_argument("--alone", action="store_true", help="layers alone only")
    parser.add_argument("--chain", action="store_true", help="chains only")
    parser.add_argument("--templates", nargs="*", default=names, help="to force; default: all")
    parser.add_argument("--ort-only", action="store_true", help="no variants, no bounds")
    parser.add_argument("--seconds", type=float, default=0.3, help="of timing for each variant")
    parser.add_argument("--cpu-time", action="store_true", help="for one thread, machine busy")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    if args.cpu_time and args.threads != [1]:
        parser.error("--cpu-time goes with one thread")
    kinds = [kind for kind in ("alone", "chain") if getattr(args, kind)] or ["alone", "chain"]
    layers = [layer for layer in read_layers() if any(text in layer.name for text in args.layers)]
    if not layers:
        parser.error("no layer has any of these filters in its name")
    records: list[Record] = []
    with Worker(HERE / "_conv_worker.py", timeout_s=TIMEOUT_S) as worker:
        for layer in layers:
            for kind in kinds:
                for threads in args.threads:
                    record = measure(worker, layer, kind, threads, args)
                    if record is not None:
                        records.append(record)
                        show(record)
    records = [settled(record, args) for record in records]
    summary = summarize(records)
    table = to_markdown(records, summary, args.target)
    broken = [] if args.ort_only else broken_bounds(records, summary)
    print(table, *broken, sep="\n")
    if args.json:
        content = {"target": args.target, "summary": summary, "layers": list(map(to_json, records))}
        args.json.write_text(json.dumps(content, indent=1))
    if args.markdown:
        args.markdown.write_text(table)
    if any(record.failure for record in records):
        return 3
    return 4 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
