"""The journal: what became of every job, written before it is done, so that a crash loses nothing.

    Journal.open        the checked file (see journal_file)
    submit, records     jobs in, and what became of them
    move                a job changes its state: the row and the event in one transaction
    ask, answer         requests of other terminals, and the submitter's answers
    take_lease, beat    one submitter at a time

Every method is one transaction. The methods may be called by any process; a `Journal` belongs to
one thread.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.states import (
    FOLLOWING,
    OVER,
    Answer,
    Event,
    Lease,
    Record,
    Request,
    State,
)
from ort_optim.cluster.submitting.journal_file import FILE, Connection, open_file, transaction
from ort_optim.cluster.submitting.records import (
    event_of,
    job_to_text,
    lease_of,
    placements_to_text,
    record_of,
    request_of,
)
from ort_optim.errors import InputError, OrtOptimError

STALE_S = 60.0  # a submitter on another host that has not beaten for so long is gone
SILENT_S = 10.0  # one here whose process id may be another's by now


class LeaseLostError(OrtOptimError):
    """Another submitter has taken the journal over: this one must not start anything more."""


@dataclass
class Submitted:
    """What a job file changed: the ids of the jobs."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    left: dict[str, State] = field(default_factory=dict)  # changed in the file, too late here


class Journal:
    """The journal of one batch. Use as a context manager, or close it."""

    def __init__(self, connection: Connection, folder: Path, clock: Callable[[], float]):
        self.folder = folder
        self._connection = connection
        self._clock = clock
        self._nonce = ""

    @classmethod
    def open(
        cls, folder: Path, *, create: bool = False, clock: Callable[[], float] = time.time
    ) -> Journal:
        """The journal in `folder`. Raises InputError when there is none, or a doubtful one."""
        return cls(open_file(folder, create=create), folder, clock)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Owners and jobs

    def owners(self) -> dict[str, str]:
        """Name -> SHA-256 of the owner's token, in hexadecimal digits."""
        rows = self._connection.execute("SELECT name, digest FROM owners")
        return {row["name"]: row["digest"] for row in rows}

    def submit(
        self,
        jobs: Sequence[Job],
        owners: Mapping[str, str],
        digests: Mapping[str, str],
        *,
        again: bool = False,
    ) -> Submitted:
        """Take the jobs in: new ones are queued, queued ones get their new definition.

        Jobs that run, are held or are over keep theirs; with `again`, those that are over are
        queued once more if they changed, failed or were cancelled. `owners` says whose each job
        is, `digests` has the SHA-256 of the token of each owner.
        """
        told = Submitted()
        with transaction(self._connection) as connection:
            now = self._clock()  # one for all: jobs of a file are ready at the same moment
            for name, digest in digests.items():
                connection.execute(
                    "INSERT OR IGNORE INTO owners (name, digest) VALUES (?, ?)", (name, digest)
                )
            last = connection.execute("SELECT coalesce(max(position), -1) FROM jobs").fetchone()[0]
            for job in jobs:
                text, owner = job_to_text(job), owners[job.id]
                row = connection.execute(
                    "SELECT definition, owner, state, attempt FROM jobs WHERE id = ?", (job.id,)
                ).fetchone()
                if row is None:
                    last += 1
                    connection.execute(
                        "INSERT INTO jobs (id, position, definition, owner, state, since_s) "
                        "VALUES (?, ?, ?, ?, ?, ?)",
                        (job.id, last, text, owner, State.QUEUED, now),
                    )
                    told.added.append(job.id)
                    continue
                state = State(row["state"])
                same = (row["definition"], row["owner"]) == (text, owner)
                rerun = again and state in OVER and (not same or state is not State.DONE)
                if same and not rerun:
                    continue
                if state is not State.QUEUED and not rerun:
                    told.left[job.id] = state
                    continue
                connection.execute(
                    "UPDATE jobs SET definition = ?, owner = ? WHERE id = ?", (text, owner, job.id)
                )
                if rerun:
                    anew = {"wait_s": 0.0}
                    self._move(connection, job.id, State.QUEUED, "submitted again", anew, now)
                    told.again.append(job.id)
                else:
                    told.changed.append(job.id)
        return told

    def records(self, *states: State) -> list[Record]:
        """The jobs (of these states, or all) in the order they came."""
        marks = ", ".join("?" * len(states))
        where = f"WHERE state IN ({marks}) " if states else ""
        rows = self._connection.execute(f"SELECT * FROM jobs {where}ORDER BY position", states)
        return [record_of(row) for row in rows]

    def record(self, job: str) -> Record:
        """Raises InputError: no such job."""
        row = self._connection.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise InputError(f"no job `{job}` here: `batch status` lists them")
        return record_of(row)

    def events(self, job: str | None = None) -> list[Event]:
        """The changes of state, oldest first."""
        where, values = ("WHERE job = ? ", (job,)) if job is not None else ("", ())
        rows = self._connection.execute(f"SELECT * FROM events {where}ORDER BY number", values)
        return [event_of(row) for row in rows]

    def move(
        self,
        job: str,
        after: State,
        cause: str = "",
        *,
        placements: tuple[Placement, ...] | None = None,
        attempt: int | None = None,
    ) -> None:
        """`job` comes into the state `after`. Raises ValueError when that can't follow."""
        values: dict[str, Any] = {}
        if placements is not None:
            values["placements"] = placements_to_text(placements)
        if attempt is not None:
            values["attempt"] = attempt
        with transaction(self._connection) as connection:
            self._move(connection, job, after, cause, values, self._clock())

    def tell_why_waiting(self, notes: Mapping[str, str]) -> None:
        """Job -> why it still waits; hundreds at once, so in one transaction."""
        if notes:
            with transaction(self._connection) as connection:
                for job, note in notes.items():
                    connection.execute("UPDATE jobs SET note = ? WHERE id = ?", (note, job))

    def note(self, job: str, **values: str | int) -> None:
        """What may change within an attempt: starts, last_step, container."""
        settings = ", ".join(f"{name} = ?" for name in values)
        with transaction(self._connection) as connection:
            connection.execute(f"UPDATE jobs SET {settings} WHERE id = ?", (*values.values(), job))

    def _move(
        self,
        connection: Connection,
        job: str,
        after: State,
        cause: str,
        values: dict[str, Any],
        now: float,
    ) -> None:
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        before = State(row["state"])
        if after not in FOLLOWING[before]:
            raise ValueError(f"job {job}: {after} can't follow {before}")
        values |= {"state": after, "cause": cause, "note": "", "since_s": now}
        if before is State.QUEUED:
            values["wait_s"] = row["wait_s"] + max(0.0, now - row["since_s"])
            values |= {"starts": 0, "last_step": "", "container": ""}
        if after is State.RUNNING and before is State.QUEUED:
            values["started_s"] = now
        if after in OVER:
            values["ended_s"] = now
        if after is State.QUEUED:
            values |= {"placements": "[]", "ended_s": 0.0}
        settings = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE jobs SET {settings} WHERE id = ?", (*values.values(), job))
        connection.execute(
            "INSERT INTO events (at_s, job, attempt, before, after, cause) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (now, job, values.get("attempt", row["attempt"]), before, after, cause),
        )

    # Requests

    def ask(self, job: str, kind: str, body: Mapping[str, Any]) -> int:
        """Put a request to the submitter; its number. The caller has checked the owner's token."""
        with transaction(self._connection) as connection:
            cursor = connection.execute(
                "INSERT INTO requests (at_s, job, kind, body) VALUES (?, ?, ?, ?)",
                (self._clock(), job, kind, json.dumps(dict(body))),
            )
        return int(cursor.lastrowid or 0)

    def requests(self) -> list[Request]:
        """Those not answered yet, oldest first."""
        rows = self._connection.execute("SELECT * FROM requests WHERE ok IS NULL ORDER BY number")
        return [request_of(row) for row in rows]

    def answer(self, number: int, answer: Answer) -> None:
        with transaction(self._connection) as connection:
            connection.execute(
                "UPDATE requests SET ok = ?, answer = ?, body = '{}' "
                "WHERE number = ? AND ok IS NULL",
                (int(answer.ok), answer.text, number),
            )

    def answer_of(self, number: int) -> Answer | None:
        row = self._connection.execute(
            "SELECT ok, answer FROM requests WHERE number = ?", (number,)
        ).fetchone()
        return None if row["ok"] is None else Answer(bool(row["ok"]), row["answer"])

    # The lease

    def lease(self) -> Lease | None:
        """Who runs the jobs now; None when nobody does, or the one who did is dead."""
        lease = self.last_lease()
        if lease is None or self.original() is not None:
            return None
        return lease if _lives(lease, self._clock()) else None

    def original(self) -> Path | None:
        """The folder that this one is a copy of: what was started there is none of ours."""
        lease = self.last_lease()
        if lease is None:
            return None
        try:
            copied = not (lease.folder / FILE).samefile(self.folder / FILE)
        except OSError:
            return None  # it was moved here
        return lease.folder if copied else None

    def take_lease(self) -> Lease | None:
        """Become the one submitter; the other's lease where there is one alive.

        Where jobs run is as with the one before until `beat` says otherwise, and so is `original`.
        """
        me = psutil.Process()
        with transaction(self._connection) as connection:
            other = self.lease()
            if other is not None:
                return other
            self._nonce = secrets.token_hex(16)
            connection.execute(
                "INSERT OR REPLACE INTO lease VALUES "
                "(1, ?, ?, ?, ?, ?, coalesce((SELECT address FROM lease), ''), "
                "coalesce((SELECT transfer FROM lease), 0), "
                "coalesce((SELECT folder FROM lease), ?))",
                (
                    self._nonce,
                    me.pid,
                    me.create_time(),
                    socket.gethostname(),
                    self._clock(),
                    str(self.folder.absolute()),
                ),
            )
        return None

    def beat(self, address: str | None = None, *, transfer: bool | None = None) -> None:
        """Tell that this submitter lives, and what has changed of where its jobs are.

        Raises LeaseLostError when it is not the submitter any more.
        """
        with transaction(self._connection) as connection:
            changed = connection.execute(
                "UPDATE lease SET beat_s = ?, address = coalesce(?, address), "
                "transfer = coalesce(?, transfer), folder = ? WHERE nonce = ?",
                (self._clock(), address, transfer, str(self.folder.absolute()), self._nonce),
            ).rowcount
        if not changed:
            raise LeaseLostError("another submitter has taken these jobs over: this one stops")

    def drop_lease(self) -> None:
        """Not the submitter any more; where the jobs ran stays known."""
        with transaction(self._connection) as connection:
            connection.execute("UPDATE lease SET pid = 0 WHERE nonce = ?", (self._nonce,))

    def last_lease(self) -> Lease | None:
        """Of whoever ran the jobs last, dead or alive; None before the first."""
        row = self._connection.execute("SELECT * FROM lease").fetchone()
        return None if row is None else lease_of(row)


def _lives(lease: Lease, now_s: float) -> bool:
    """Whether the submitter is still there; in doubt it is, since nothing may run twice."""
    beats = now_s - lease.beat_s
    if not lease.pid:
        return False
    if lease.host != socket.gethostname():
        return beats < STALE_S
    try:
        process = psutil.Process(lease.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # A clock that was set moves the start times of all processes, but not the beats to come.
        recycled = abs(process.create_time() - lease.pid_started_s) > 1.0
    except psutil.NoSuchProcess:
        return False
    return not (recycled and abs(beats) > SILENT_S)
