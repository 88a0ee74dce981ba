"""How much of a cluster's GPUs each placement policy fills, on the openb traces of a GPU cluster.

    python scripts/bench_placement.py --trace FOLDER [--workloads default ...] [--seeds 42-51]
        [--policies FGD ours] [--runs RUNS.jsonl] [--markdown] [--json]
    python scripts/bench_placement.py --trace FOLDER --makespan [--workloads default ...]
        [--every 40] [--longest 24]

FOLDER holds the node and pod lists of the openb trace (Alibaba, cluster-trace-gpu-v2023). The
protocol is that of Weng et al. (USENIX ATC 2023): pods arrive one by one, in an order drawn by the
seed, until they have asked for 130% of the cluster's GPUs; nothing ends; a pod that fits nowhere is
lost. What counts is the part of the GPU that is allocated at the end, in percent. All policies see
the same arrivals. `offline` sees the list of arrivals as a whole.

Each run adds up for itself what every server and device gives. The mean difference between a policy
and FGD is over seeds, in pairs, with its 95% confidence interval (Student's t). With `--runs`, runs
are kept in a file as they are done, and those that it has are not done again.

`--makespan` plans each list as jobs with the durations of the trace, once as they came (first come,
first served) and once all ready at the same moment, so that the longest go first. The end of the
plan is compared with the larger of two lower bounds: what the GPUs or CPUs need for all jobs
together, and the longest job. On the whole cluster that is the longest job, and plans meet it;
`--every` thins the servers out and `--longest` leaves out jobs of more hours, so that the cluster
is short of GPUs.

Exit codes: 0 done; 2 bad arguments; 4 ours is not above FGD, with the bound, on some workload.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from _makespan import simulate
from _openb import SERVERS, workloads
from _placement import POLICIES, Outcome, run
from rich.console import Console
from rich.table import Table

PUBLISHED = "expected_analysis_allo_discrete.csv"
PUBLISHED_NAMES = {"random": "01-Random", "best fit": "05-BestFit", "FGD": "06-FGD"}

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)
"""Student's t for a two-sided 95% interval, by degrees of freedom from 1; above: 2.2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The script."""
    options = _parser().parse_args(arguments)
    if not (options.trace / SERVERS).is_file():
        print(f"bench_placement: {options.trace} has no {SERVERS}", file=sys.stderr)
        return 2
    names = options.workloads or workloads(options.trace)
    unknown = sorted({*names} - {*workloads(options.trace)})
    if unknown:
        print(f"bench_placement: no pod list for {', '.join(unknown)}", file=sys.stderr)
        return 2
    if options.makespan:
        return _makespans(options, names)
    outcomes = _outcomes(options, names)
    if options.json:
        print(json.dumps([asdict(each) for each in outcomes], indent=1))
    else:
        _print(_table(outcomes, names, _published(options.trace)), options.markdown)
    return 4 if any(_bound(outcomes, name) <= 0 for name in names) else 0


def _makespans(options: argparse.Namespace, names: Sequence[str]) -> int:
    for name in names:
        try:
            makespans = simulate(options.trace, name, options.every, options.longest)
        except ValueError as error:
            print(f"bench_placement: {error}", file=sys.stderr)
            return 2
        for each in makespans:
            print(each.line(), flush=True)
    return 0


def _outcomes(options: argparse.Namespace, names: Sequence[str]) -> list[Outcome]:
    known: dict[tuple[str, int, str], Outcome] = {}
    if options.runs and options.runs.is_file():
        for line in options.runs.read_text().splitlines():
            each = Outcome(**json.loads(line))
            known[each.workload, each.seed, each.policy] = each
    outcomes = []
    for name in names:
        for seed in options.seeds:
            for policy in options.policies:
                outcome = known.get((name, seed, policy))
                if outcome is None:
                    outcome = run(options.trace, name, seed, policy)
                    if options.runs:
                        with options.runs.open("a") as file:
                            file.write(json.dumps(asdict(outcome)) + "\n")
                outcomes.append(outcome)
    return outcomes


def _of(outcomes: Sequence[Outcome], workload: str, policy: str) -> list[Outcome]:
    chosen = [each for each in outcomes if (each.workload, each.policy) == (workload, policy)]
    return sorted(chosen, key=lambda each: each.seed)


def _difference(
    outcomes: Sequence[Outcome], workload: str, policy: str
) -> tuple[float, float] | None:
    """Mean difference to FGD in points, and half its 95% interval; None without both."""
    pairs = zip(_of(outcomes, workload, policy), _of(outcomes, workload, "FGD"), strict=False)
    differences = [ours.allocation - theirs.allocation for ours, theirs in pairs]
    if len(differences) < 2:
        return None
    freedom = len(differences) - 1
    t = T_95[freedom - 1] if freedom <= len(T_95) else 2.2
    half = t * statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences), half


def _bound(outcomes: Sequence[Outcome], workload: str) -> float:
    """The lower end of the interval for ours less FGD; inf where it was not measured."""
    difference = _difference(outcomes, workload, "ours")
    return difference[0] - difference[1] if difference else math.inf


def _table(
    outcomes: Sequence[Outcome], names: Sequence[str], published: dict[tuple[str, str], float]
) -> list[list[str]]:
    rows = [
        ["workload", "policy", "allocated %", "published", "less FGD", "pods", "fragments %", "s"]
    ]
    for name in names:
        for policy in POLICIES:
            runs = _of(outcomes, name, policy)
            if not runs:
                continue
            difference = _difference(outcomes, name, policy) if policy != "FGD" else None
            theirs = published.get((name, policy))
            rows.append(
                [
                    name,
                    policy,
                    f"{statistics.mean(each.allocation for each in runs):.2f}",
                    f"{theirs:.2f}" if theirs is not None else "",
                    f"{difference[0]:+.2f} ± {difference[1]:.2f}" if difference else "",
                    f"{statistics.mean(each.placed for each in runs):.0f}",
                    f"{statistics.mean(each.fragments for each in runs):.2f}",
                    f"{statistics.mean(each.seconds for each in runs):.1f}",
                ]
            )
    return rows


def _published(folder: Path) -> dict[tuple[str, str], float]:
    """The published means over seeds at 130% demand, where the folder has them."""
    found: dict[tuple[str, str], list[float]] = {}
    if (folder / PUBLISHED).is_file():
        with (folder / PUBLISHED).open(newline="") as lines:
            for row in csv.DictReader(lines):
                key = (row["workload"].removeprefix("openb_pod_list_"), row["sc_policy"])
                found.setdefault(key, []).append(float(row["130"]))
    return {
        (workload, policy): statistics.mean(values)
        for (workload, theirs), values in found.items()
        for policy, name in PUBLISHED_NAMES.items()
        if name == theirs
    }


def _print(rows: list[list[str]], markdown: bool) -> None:
    if markdown:
        for place, row in enumerate(rows):
            print(f"| {' | '.join(row)} |")
            if place == 0:
                print("|" + "---|" * 2 + "---:|" * (len(row) - 2))
        return
    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True, metavar="DIR")
    parser.add_argument("--workloads", nargs="+", metavar="NAME", help="default: all of the folder")
    parser.add_argument("--seeds", type=_seeds, default=_seeds("42-51"), metavar="A-B")
    parser.add_argument("--policies", nargs="+", choices=[*POLICIES], default=[*POLICIES])
    parser.add_argument("--runs", type=Path, metavar="FILE", help="keep runs here, and go on")
    parser.add_argument("--makespan", action="store_true", help="plan with durations instead")
    parser.add_argument("--every", type=int, choices=range(1, 1001), default=1, metavar="N")
    parser.add_argument("--longest", type=float, default=math.inf, metavar="HOURS")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        seeds = range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a seed or a range such as 42-51"
        ) from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"'{text}': a range of seeds rises")
    return seeds


if __name__ == "__main__":
    sys.exit(main())
