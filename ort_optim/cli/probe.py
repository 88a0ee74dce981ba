"""`probe`: what this machine is, or what a target is taken to be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from ort_optim.errors import InputError
from ort_optim.hardware import NATIVE, Target, load_target, measure, shipped_targets, to_json
from ort_optim.report.units import size_text

NAME = "probe"
HELP = "print the hardware facts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `probe`."""
    parser.add_argument(
        "--target",
        default=NATIVE,
        metavar="NAME|FILE",
        help=f"{NATIVE} (default), {', '.join(shipped_targets())}, or a file --json wrote",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, to be used as --target")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure peak and bandwidth again, also where an earlier measurement is cached",
    )


def run(args: argparse.Namespace) -> int:
    """Print the facts; figures not in the cache are measured first, about a second."""
    target = load_target(args.target)
    if target.name == NATIVE:
        target = _measured(target, refresh=args.measure)
    elif args.measure:
        raise InputError(f"--measure works on this machine alone, not on target {args.target!r}")
    if args.json:
        print(to_json(target))
    else:
        _print_table(target)
    return 0


def _measured(target: Target, *, refresh: bool) -> Target:
    from rich.console import Console

    with Console(file=sys.stderr).status("measuring peak arithmetic and memory bandwidth"):
        return measure(target, refresh=refresh)


def _print_table(target: Target) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(target):
        table.add_row(label, Text(value))
    console = Console()
    console.print(table)
    for warning in target.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _rows(target: Target) -> Iterator[tuple[str, str]]:
    """(label, value) of every fact, in the order they are printed."""
    yield "target", target.name
    yield "CPU", " ".join(filter(None, (target.vendor, target.model))) or "unknown"
    yield "architecture", f"{target.arch} ({target.triple}, LLVM CPU {target.llvm_cpu})"
    yield "cores to use", _cores(target)
    yield "vector unit", _vector_unit(target)
    yield "ISA features", " ".join(sorted(target.features)) or "unknown"
    for cache in target.caches:
        ways = f", {cache.associativity}-way" if cache.associativity else ""
        shared = f"shared by {cache.shared_by} cores" if cache.shared_by > 1 else "per core"
        size = size_text(cache.size_bytes)
        yield f"L{cache.level} cache", f"{size} {shared}, {cache.line_bytes}-byte lines{ways}"
    if not target.caches:
        yield "caches", "unknown"
    yield "memory", _memory(target)
    yield "NUMA nodes", str(target.numa_nodes)
    for gpu in target.gpus:
        capability = gpu.compute_capability or "unknown"
        memory = size_text(gpu.memory_bytes)
        yield f"GPU {gpu.index}", f"{gpu.name}, {memory}, compute capability {capability}"
    if not target.gpus:
        yield "GPUs", "none"
    figures = (
        ("peak, measured", target.peak_gflops, "GFLOP/s, fp32 matrix product on one core"),
        ("copying, measured", target.core_bandwidth_gbs, "GB/s read plus written, one core"),
        ("", target.memory_bandwidth_gbs, f"GB/s read plus written, {target.cores} threads"),
    )
    if all(figure is None for _, figure, _ in figures):
        yield "peak, bandwidth", "not measured"
    else:
        for label, figure, unit in figures:
            yield label, "not measured" if figure is None else f"{figure:.1f} {unit}"
        yield "measured at", target.measured_at or "unknown"
    yield "source", target.source or "unknown"


def _cores(target: Target) -> str:
    smt = f", {target.threads_per_core} threads a core" if target.threads_per_core > 1 else ""
    counts = f"{target.physical_cores} physical, {target.logical_cpus} logical CPUs{smt}"
    quota = f"; cgroup quota {target.cpu_quota:g} CPUs" if target.cpu_quota is not None else ""
    return f"{target.cores} (of {counts}{quota})"


def _vector_unit(target: Target) -> str:
    if not target.vector_bits:
        return "none"
    fma = "with" if target.fma else "without"
    return f"{target.vector_bits} bits, {target.vector_registers} registers, {fma} FMA"


def _memory(target: Target) -> str:
    total = "unknown" if target.memory_bytes is None else size_text(target.memory_bytes)
    if target.memory_limit_bytes is None:
        return total
    return f"{total}, limited to {size_text(target.memory_limit_bytes)} by the cgroup"
