"""What a submitter shows: a bar and events on a terminal, a plain line per event elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ort_optim.cluster.jobs import JobFile
from ort_optim.cluster.ray.door import LOCAL
from ort_optim.cluster.states import OVER, Record, State
from ort_optim.cluster.submitting.driver import STOPPED, Driver
from ort_optim.cluster.submitting.journal import Journal, Submitted
from ort_optim.report.console import show
from ort_optim.report.units import plural, printable

STYLES = {
    State.DONE: "green",
    State.HELD: "bold yellow",
    State.FAILED: "red",
    State.LOST: "red",
    State.CANCELLED: "dim",
}


class Board:
    """Called after each turn of the driver. Use as a context manager."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._seen: dict[str, tuple[State, int, int]] = {}
        self._is_stuck = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Board:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, driver: Driver) -> None:
        first = not self._seen
        for record in driver.records.values():
            now = (record.state, record.attempt, record.starts)
            before = self._seen.get(record.id)
            self._seen[record.id] = now
            news = before is None or before[0] is not record.state
            quiet_start = record.state is State.QUEUED and not (before and record.cause)
            released = record.state is State.HELD and not driver.limits.hold
            if news and not (quiet_start or released or (first and record.state in OVER)):
                self._tell(record)
        counts = Counter(record.state for record in driver.records.values())
        if driver.limits.hold:
            self._tell_when_stuck(counts)
        over = sum(counts[state] for state in OVER)
        words = [
            f"{counts[state]} {state.lower()}"
            for state in (State.RUNNING, State.HELD, State.QUEUED, State.FAILED)
            if counts[state]
        ]
        self._bar.update(
            self._task, description=", ".join(words), completed=over, total=len(driver.records)
        )

    def say(self, text: str) -> None:
        """A line among the events."""
        self._print(Text(text))

    def _tell_when_stuck(self, counts: Counter[State]) -> None:
        """Once, when nothing goes on until somebody sees to the held jobs."""
        was_stuck = self._is_stuck
        held, waiting = counts[State.HELD], counts[State.QUEUED]
        self._is_stuck = bool(held) and not counts[State.RUNNING]
        if self._is_stuck and not was_stuck:
            what = f"{plural(waiting, 'job')} may have to wait" if waiting else "this waits"
            self.say(
                f"nothing runs: {what} until held ones are restarted or released "
                "(`batch release JOB`; `submit --no-hold` holds none)"
            )

    def _tell(self, record: Record) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(record.since_s))
        line = Text(f"{clock} ")
        line.append(printable(record.id), style="bold")
        line.append(f" {record.state}", style=STYLES.get(record.state, ""))
        line.append(printable(_details(record)))
        self._print(line)

    def _print(self, line: Text) -> None:
        if self._quiet:
            return
        if self._console.is_terminal:
            self._console.print(line)
        else:
            show(self._console, line)
            self._console.file.flush()


def while_connecting(
    address: str, console: Console, *, quiet: bool
) -> AbstractContextManager[object]:
    """What a terminal shows while Ray takes its seconds to start."""
    if quiet or not console.is_terminal:
        return nullcontext()
    local = address == LOCAL
    return console.status(
        "starting Ray on this machine" if local else f"connecting to Ray at {address}"
    )


def tell_submitted(told: Submitted, journal: Journal, file: JobFile) -> None:
    """What a job file has changed, and what it has not."""
    words = [
        f"{len(ids)} {word}"
        for ids, word in ((told.added, "new"), (told.changed, "changed"), (told.again, "again"))
        if ids
    ]
    records = journal.records()
    changes = ", ".join(words) or "as before"
    print(f"{plural(len(records), 'job')} ({changes}) in {journal.folder}")
    for job, state in told.left.items():
        way = "--again runs it once more" if state in OVER else "`batch patch` changes it now"
        print(f"{job} has changed in the file, but is {state}: left as it was; {way}")
    listed = {job.id for job in file.jobs}
    for record in records:
        if record.id not in listed and record.state not in OVER:
            print(
                f"{record.id} is not in the file any more, and {record.state} all the same; "
                "`batch cancel` ends it"
            )


def tell_stopped(driver: Driver) -> None:
    """How a submitter that was interrupted leaves its jobs."""
    records = driver.records.values()
    running = sum(record.state is State.RUNNING for record in records)
    ended = sum(record.state is State.QUEUED and record.cause == STOPPED for record in records)
    held = sum(record.state is State.HELD for record in records)
    told = [
        text
        for count, text in (
            (running, f"{plural(running, 'job')} still running"),
            (ended, f"{plural(ended, 'running job')} ended"),
            (held, f"{held} held"),
        )
        if count
    ]
    print(f"interrupted: {', '.join(told) or 'nothing ran'}; submit the same file again to go on")


def _details(record: Record) -> str:
    if record.state is State.RUNNING:
        return f" on {place(record)}" + (f" ({record.cause})" if record.cause else "")
    if record.state is State.HELD:
        return f": {record.cause} (`batch debug {record.id}`, then `batch restart {record.id}`)"
    return f": {record.cause}" if record.cause else ""


def place(record: Record) -> str:
    """Where a job runs: its servers, and the devices it has there."""
    return ", ".join(
        placement.server
        + "".join(
            f" gpu{index}" + (f" ({share / 10:g}%)" if share < 1000 else "")
            for index, share in placement.devices
        )
        for placement in record.placements
    )
