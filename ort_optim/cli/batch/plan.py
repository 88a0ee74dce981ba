"""`batch plan JOBS.yaml --cluster CLUSTER.yaml`: who runs where and when, without running it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ort_optim.cli.batch.job_file import load_jobs
from ort_optim.cli.tables import cell, make_console, make_table
from ort_optim.cluster.placement.planner import Policy, plan
from ort_optim.cluster.plan import Placement, Plan, Planned, plan_to_json, write_plan
from ort_optim.cluster.servers import read_cluster
from ort_optim.cluster.units import parse_duration
from ort_optim.errors import InputError
from ort_optim.report.console import show
from ort_optim.report.units import size_text

NAME = "plan"
HELP = "place the jobs of a file on the servers of another, without running anything"

SHOWN = 50
"""Jobs in the table; a file or --json has them all."""

MOST_TRIES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", type=Path, metavar="JOBS.yaml")
    parser.add_argument(
        "--cluster", type=Path, required=True, metavar="CLUSTER.yaml", help="the servers"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PLAN.json", help="write the plan to a file"
    )
    add_policy_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON, not a table")


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """What decides on a plan beside jobs and servers; `policy_of` reads it."""
    parser.add_argument(
        "--backfill",
        action="store_true",
        help="idle class-one servers take fragments that can't delay a whole-machine job",
    )
    parser.add_argument(
        "--ageing",
        type=_duration,
        default=Policy.ageing_s,
        metavar="DURATION",
        help="how long a wait is worth one point of priority (default: 10min)",
    )
    parser.add_argument(
        "--tries",
        type=_tries,
        default=Policy.tries,
        metavar="N",
        help="try N other orders of the jobs of equal priority, and keep the shortest plan",
    )


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy that the arguments ask for."""
    return Policy(backfill=args.backfill, ageing_s=args.ageing, tries=args.tries)


def run(args: argparse.Namespace) -> int:
    """Print and write the plan; jobs that can't be placed are told, and make the exit code 2."""
    cluster = read_cluster(args.cluster)
    jobs = load_jobs(args.jobs).jobs
    made = plan(jobs, cluster, policy=policy_of(args))
    if args.output is not None:
        write_plan(made, args.output)
    if args.json:
        print(plan_to_json(made), end="")
    else:
        _print(made)
    if made.refused:
        first = made.refused[0]
        raise InputError(
            f"{len(made.refused)} of {len(jobs)} jobs can't be placed: {first.job}: {first.reason}"
        )
    return 0


def _print(made: Plan) -> None:
    console = make_console()
    _print_planned(console, made.planned)
    if made.refused:
        table = make_table(console, ("can't be placed", "why"), left=("can't be placed", "why"))
        for each in made.refused[:SHOWN]:
            table.add_row(cell(each.job), cell(each.reason))
        show(console, table)
        _print_rest(len(made.refused))
        print()
    one = sum(each == "one" for each in made.classes.values())
    print(
        f"{len(made.planned)} jobs planned, {len(made.refused)} refused; all done after "
        f"{_seconds(made.makespan_s)} s; servers of class one: {one}, of class two: "
        f"{len(made.classes) - one}"
    )
    if made.reason_of_classes:
        print(made.reason_of_classes)


def _print_planned(console: Console, planned: Sequence[Planned]) -> None:
    if not planned:
        return
    headings = ("job", "start s", "end s", "servers", "CPUs", "memory", "GPUs", "why")
    table = make_table(console, headings, left=("job", "servers", "GPUs", "why"))
    for each in planned[:SHOWN]:
        first = each.placements[0]
        table.add_row(
            cell(each.job),
            cell(_seconds(each.start_s)),
            cell(_seconds(each.end_s)),
            cell(", ".join(placement.server for placement in each.placements)),
            cell(f"{sum(placement.milli_cpus for placement in each.placements) / 1000:g}"),
            cell(size_text(sum(placement.memory for placement in each.placements))),
            cell(_devices(first)),
            cell(each.why),
        )
    show(console, table)
    _print_rest(len(planned))
    print()


def _print_rest(total: int) -> None:
    if total > SHOWN:
        print(f"... and {total - SHOWN} more: -o PLAN.json or --json has them all")


def _devices(placement: Placement) -> str:
    """Such as "0 1 2" for whole devices and "3: 0.5" for half of one."""
    return " ".join(
        str(device) if share == 1000 else f"{device}: {share / 1000:g}"
        for device, share in placement.devices
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.15g}"


def _tries(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_TRIES:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number up to {MOST_TRIES}")
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
