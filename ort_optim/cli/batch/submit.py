"""`batch submit JOBS.yaml`: run the jobs on Ray, on this machine or on a cluster."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ort_optim.cli.batch.job_file import load_jobs
from ort_optim.cli.batch.plan import add_policy_arguments, policy_of
from ort_optim.cli.batch.progress import (
    Board,
    tell_stopped,
    tell_submitted,
    while_connecting,
)
from ort_optim.cli.batch.state_folder import remember, state_of
from ort_optim.cli.batch.summary import check_summary_path
from ort_optim.cli.batch.tables import print_summary
from ort_optim.cluster.jobs import Job, JobFile
from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.plan import ServerClass
from ort_optim.cluster.ray.actor_backend import ActorBackend
from ort_optim.cluster.ray.door import LOCAL
from ort_optim.cluster.ray.ray_backend import RAY_MISSING, connect
from ort_optim.cluster.servers import Cluster, read_cluster
from ort_optim.cluster.states import OCCUPYING, OVER, Lease, State
from ort_optim.cluster.submitting.driver import Driver, Limits
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.summary import rows_of, write_summary
from ort_optim.cluster.submitting.tokens import make_token, may_act, owner_of
from ort_optim.cluster.submitting.turns import Planner
from ort_optim.errors import InputError

NAME = "submit"
HELP = "run the jobs of a file on Ray: on this machine, or on a cluster; goes on where it stopped"

NOT_ALL_DONE = 3
LOOK_EVERY_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", type=Path, metavar="JOBS.yaml")
    parser.add_argument(
        "--cluster",
        type=Path,
        metavar="CLUSTER.yaml",
        help="which servers to use, and what Ray "
        "does not know of them; default: all nodes of the Ray cluster, or this machine",
    )
    parser.add_argument(
        "--address",
        default=LOCAL,
        metavar="local|auto|ADDRESS",
        help="Ray on this machine, started and ended here (default); the cluster that is found; "
        "or the cluster there",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="folder of the journal and of the jobs; default: NAME.batch where the outputs go",
    )
    parser.add_argument(
        "--transfer",
        action="store_true",
        help="send models and outputs through Ray, where servers do not share the files",
    )
    parser.add_argument(
        "--wait", action="store_true", help="if another submitter runs the jobs, wait for its end"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="run finished jobs once more that failed, were cancelled, or changed in the file",
    )
    parser.add_argument(
        "--no-hold", action="store_true", help="do not hold what fails: release it at once"
    )
    parser.add_argument(
        "--held-share",
        type=_share,
        default=Limits.held_share,
        metavar="SHARE",
        help="when jobs wait and held ones have more than this share of the CPUs or GPUs, the "
        "oldest held are released, all but one (default: 0.5)",
    )
    add_policy_arguments(parser)
    parser.add_argument(
        "--summary",
        action="append",
        default=[],
        type=Path,
        metavar="PATH.md|.html",
        help="write a summary with the gain of each model; may be given several times",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """0: all done; 3: some job did not come out right; 130: interrupted.

    Interrupted on this machine, running jobs are ended, and go on after their last finished step
    when the file is submitted again; on a cluster they go on, and are found again.
    """
    for path in args.summary:
        check_summary_path(path)
    if importlib.util.find_spec("ray") is None:
        raise InputError(RAY_MISSING)
    file = load_jobs(args.jobs)
    wanted = read_cluster(args.cluster) if args.cluster else None
    state = args.state or state_of(file)
    console = Console(highlight=False)
    with Journal.open(state, create=True) as journal:
        _check_owners(journal, file.jobs)
        other = journal.take_lease()
        if other is not None:
            return _another(args, journal, other, console)
        try:
            stopped = _submit_and_run(args, journal, file, wanted, console)
        finally:
            journal.drop_lease()
        rows = rows_of(journal)
        for path in args.summary:
            write_summary(rows, path)
        if not args.quiet:
            print_summary(rows)
        if stopped:
            return 128 + stopped
        return 0 if all(row.record.state is State.DONE for row in rows) else NOT_ALL_DONE


def _submit_and_run(
    args: argparse.Namespace,
    journal: Journal,
    file: JobFile,
    wanted: Cluster | None,
    console: Console,
) -> int:
    """Run all; the number of the signal that stopped it, or 0."""
    _check_same_place(args, journal)
    unfinished = _unfinished(journal, file.jobs, again=args.again)
    backend: ActorBackend | None = None
    classes: Mapping[str, ServerClass] = {}
    try:
        if unfinished:
            with while_connecting(args.address, console, quiet=args.quiet):
                backend = connect(args.address, journal.folder, wanted, transfer=args.transfer)
            classes = _check_plan(args, unfinished, backend.cluster())
        owners = {job.id: owner_of(job.owner) for job in file.jobs}
        digests = {owner: make_token(owner) for owner in owners.values()}
        told = journal.submit(file.jobs, owners, digests, again=args.again)
        remember(journal.folder, None if args.state else file)
        if not args.quiet:
            tell_submitted(told, journal, file)
        if backend is None:
            return 0
        journal.beat(backend.address, transfer=args.transfer)
        ask = functools.partial(plan, policy=policy_of(args))
        limits = Limits(held_share=args.held_share, hold=not args.no_hold)
        with Board(console, quiet=args.quiet) as board, _signals() as signals:
            driver = Driver(
                journal, backend, Planner(ask, classes, args.ageing), limits=limits, observer=board
            )

            def goes_on() -> bool:
                if signals and not driver.backend.outlives:
                    board.say("interrupted: ending what runs (once more leaves it running)")
                return not signals

            if not driver.run(goes_on) and not signals:
                console.print("no server can take what is left: submit again when there is one")
        if signals and not args.quiet:
            tell_stopped(driver)
        return signals[0] if signals else 0
    finally:
        if backend is not None:
            backend.close()


def _check_owners(journal: Journal, jobs: Sequence[Job]) -> None:
    digests = journal.owners()
    for owner in {owner_of(job.owner) for job in jobs} & set(digests):
        may_act(owner, digests)


def _check_same_place(args: argparse.Namespace, journal: Journal) -> None:
    """Jobs that run are found only where, and how, they were started."""
    last = journal.last_lease()  # with the address of the submitter before this one
    running = journal.records(*OCCUPYING)
    original = journal.original()
    if running and original is not None:
        raise InputError(
            f"{running[0].id} is {running[0].state} in {original}, which this folder is a copy of: "
            f"submit with --state {original}"
        )
    if last is None or not last.address or not running:
        return
    was_local = last.address == LOCAL
    if was_local != (args.address == LOCAL):
        way = "--address local" if was_local else "the --address of their cluster"
    elif last.transfer != args.transfer:
        way = "--transfer" if last.transfer else "no --transfer"
    else:
        return
    raise InputError(
        f"{running[0].id} is {running[0].state} in a run with {way}: submit that way, or cancel it"
    )


def _unfinished(journal: Journal, jobs: Sequence[Job], *, again: bool) -> list[Job]:
    """What may have to be run now: of the file, and of earlier submissions."""
    known = {record.id: record for record in journal.records()}
    found = {record.id: record.job for record in known.values() if record.state not in OVER}
    for job in jobs:
        record = known.get(job.id)
        if record is None or again or record.state is State.QUEUED:
            found[job.id] = job
    return list(found.values())


def _check_plan(
    args: argparse.Namespace, jobs: Sequence[Job], cluster: Cluster
) -> Mapping[str, ServerClass]:
    """The classes of servers for these jobs. Raises InputError: one can't be placed at all."""
    made = plan(jobs, cluster, policy=policy_of(args))
    refused = made.refused
    if refused:
        more = f" (and {len(refused) - 1} more jobs)" if len(refused) > 1 else ""
        raise InputError(f"job {refused[0].job} can't be placed: {refused[0].reason}{more}")
    return made.classes


def _another(args: argparse.Namespace, journal: Journal, lease: Lease, console: Console) -> int:
    if not args.wait:
        raise InputError(
            f"process {lease.pid} on {lease.host} runs these jobs already: see `batch status "
            f"--state {journal.folder}`, or wait for its end with --wait"
        )
    if not args.quiet:
        console.print(f"waiting for process {lease.pid} on {lease.host}, which runs these jobs")
    while journal.lease() is not None:
        time.sleep(LOOK_EVERY_S)
    rows = rows_of(journal)
    if not args.quiet:
        print_summary(rows)
    return 0 if all(row.record.state is State.DONE for row in rows) else NOT_ALL_DONE


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are collected; the second one interrupts at once."""
    caught: list[int] = []

    def catch(number: int, _: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is no share between 0 and 1")
    return share
