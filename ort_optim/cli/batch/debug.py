"""`batch debug JOB [-- COMMAND]`: a shell, or one command, beside a job that is held or runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from ort_optim.cli.batch.asking import owned
from ort_optim.cli.batch.rank_argument import add_rank_argument, check_rank, processes_of
from ort_optim.cli.batch.state_folder import add_state_argument, open_journal
from ort_optim.cluster.keeping.debug_session import Stream, Terminal
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.keeping.supervisor import Supervisor
from ort_optim.cluster.keeping.terminal import interact, size
from ort_optim.cluster.ray.door import LOCAL
from ort_optim.cluster.states import OCCUPYING, Record, State
from ort_optim.cluster.submitting.failing_part import failing_part
from ort_optim.cluster.submitting.gang import folder_of
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.errors import InputError

NAME = "debug"
HELP = "a shell, or one command, in the folder, environment and container of a job"

TAKES_WORDS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_state_argument(parser)
    add_rank_argument(parser, "the first that is held")
    parser.add_argument("job", metavar="JOB", help="behind it, `-- COMMAND`; default: your shell")
    parser.usage = "%(prog)s [--state DIR] [--rank N] JOB [-- COMMAND ...]"


def run(args: argparse.Namespace) -> int:
    """The exit code of the command."""
    with open_journal(args) as journal:
        record = owned(journal, args.job)
        if record.state not in OCCUPYING:
            raise InputError(f"{record.id} is {record.state}: nothing of it is there to debug")
        if (original := journal.original()) is not None:
            raise InputError(f"{record.id} is in {original}, which this folder is a copy of")
        tty = sys.stdin.isatty() and sys.stdout.isatty()
        rank = _held(journal, record) if args.rank is None else check_rank(record, args.rank)
        with _reach(journal, record, rank) as job:
            told = _told(job.status(), job.processes(), job.failing_part())
            if processes_of(record) > 1:
                told = f"rank {rank}, on {record.placements[rank].server}: {told}"
            print(told, file=sys.stderr, flush=True)
            return interact(job.open(args.words, tty), tty=tty)


def _held(journal: Journal, record: Record) -> int:
    """The first process of a job that is held; of those that have one, and if none is, 0."""
    count = processes_of(record)
    for rank in range(count) if count > 1 else ():
        with _reach(journal, record, rank) as job:
            if job.status().state is State.HELD:
                return rank
    return 0


class _Here:
    """A process of a job whose keeper is on this machine."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def status(self) -> Status:
        return self._supervisor.status()

    def processes(self) -> list[dict[str, Any]]:
        return self._supervisor.processes()

    def failing_part(self) -> str:
        return failing_part(self._supervisor.folder)

    def open(self, argv: list[str], tty: bool) -> Terminal:
        rows, columns = size()
        return self._supervisor.debug(argv, tty=tty, rows=rows, cols=columns)


class _There:
    """A process of a job that is reached through Ray."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def status(self) -> Status:
        status: Status = self._remote.call("status")
        return status

    def processes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._remote.call("processes")
        return found

    def failing_part(self) -> str:
        return str(self._remote.call("failing_part"))

    def open(self, argv: list[str], tty: bool) -> Terminal:
        rows, columns = size()
        term = os.environ.get("TERM", "dumb")
        number, reason = self._remote.call("debug_open", argv, tty, rows, columns, term)
        if not number:
            raise InputError(reason)
        return _RemoteTerminal(self._remote, number)


class _RemoteTerminal:
    """The client's end of a command that an actor runs."""

    def __init__(self, remote: Any, number: int) -> None:
        self._remote = remote
        self._number = number

    def send(self, data: bytes) -> None:
        self._remote.call("debug_send", self._number, data)

    def end_input(self) -> None:
        self._remote.call("debug_send", self._number, b"")

    def resize(self, rows: int, cols: int) -> None:
        self._remote.call("debug_resize", self._number, rows, cols)

    def receive(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        got: tuple[Stream, bytes] | None = self._remote.call(
            "debug_receive", self._number, timeout_s
        )
        return got

    def close(self) -> None:
        self._remote.call("debug_close", self._number)


@contextlib.contextmanager
def _reach(journal: Journal, record: Record, rank: int) -> Iterator[_Here | _There]:
    last = journal.last_lease()
    if last is None or last.address == LOCAL:
        yield _Here(Supervisor(folder_of(journal.folder, record.id, rank)))
        return
    from ort_optim.cluster.ray.ray_backend import RemoteJob

    remote = RemoteJob(last.address, journal.folder, record.id, record.attempt, rank)
    try:
        yield _There(remote)
    finally:
        remote.close()


def _told(status: Status, processes: list[dict[str, Any]], failing: str) -> str:
    lines = [
        f"{status.state}" + (f": {status.cause}" if status.cause else ""),
        f"start {status.start} of attempt {status.attempt}: {' '.join(status.command)}",
    ]
    if status.last_step:
        lines.append(f"last finished step: {status.last_step}")
    if failing:
        lines.append(failing)
    if status.container:
        lines.append(f"container {status.container}")
    if status.frozen:
        lines.append("frozen, with its memory; `batch restart --continue` lets it go on:")
        lines += [
            f"  {each.get('pid')} {each.get('name')} {each.get('state')}" for each in processes
        ]
    if status.log_tail:
        lines += ["--- last lines of its log", status.log_tail.rstrip(), "---"]
    return "\n".join(lines)
