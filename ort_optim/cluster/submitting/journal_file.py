"""The file of the journal: an SQLite data base that is ours, whole, and its owner's alone.

SQLite in WAL mode survives the death of its writer at any point, and lets other terminals read and
ask while the submitter writes. What is opened is checked first: a file of somebody else, one that
others can write, one of a newer version, with another schema, or damaged, is refused in one line.
WAL needs shared memory, so all who open a journal must be on one machine.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ort_optim.errors import InputError

FILE = "journal.sqlite"
APPLICATION_ID = 0x6F72746F  # "orto"
VERSION = 1

SCHEMA = (
    """CREATE TABLE owners (
        name TEXT PRIMARY KEY,
        digest TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        position INTEGER NOT NULL UNIQUE,
        definition TEXT NOT NULL,
        owner TEXT NOT NULL REFERENCES owners (name),
        state TEXT NOT NULL,
        cause TEXT NOT NULL DEFAULT '',
        note TEXT NOT NULL DEFAULT '',
        attempt INTEGER NOT NULL DEFAULT 0,
        starts INTEGER NOT NULL DEFAULT 0,
        placements TEXT NOT NULL DEFAULT '[]',
        since_s REAL NOT NULL,
        wait_s REAL NOT NULL DEFAULT 0,
        started_s REAL NOT NULL DEFAULT 0,
        ended_s REAL NOT NULL DEFAULT 0,
        last_step TEXT NOT NULL DEFAULT '',
        container TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX jobs_by_state ON jobs (state)",
    """CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        at_s REAL NOT NULL,
        job TEXT NOT NULL REFERENCES jobs (id),
        attempt INTEGER NOT NULL,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        cause TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE requests (
        number INTEGER PRIMARY KEY,
        at_s REAL NOT NULL,
        job TEXT NOT NULL REFERENCES jobs (id),
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        ok INTEGER,
        answer TEXT
    ) STRICT""",
    """CREATE TABLE lease (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        nonce TEXT NOT NULL,
        pid INTEGER NOT NULL,
        pid_started_s REAL NOT NULL,
        host TEXT NOT NULL,
        beat_s REAL NOT NULL,
        address TEXT NOT NULL,
        transfer INTEGER NOT NULL,
        folder TEXT NOT NULL
    ) STRICT""",
)

DAMAGED = "damaged ({error}): restore it, or move the folder away and submit again"
NOT_WRITABLE = "can't be written where it is ({error}): copy the folder to where it can"
OUR_ENVIRONMENT = {
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_FULL: "the disk is full: make room, then submit again to go on",
    sqlite3.SQLITE_IOERR: "{error}: see to its disk, then submit again to go on",
    sqlite3.SQLITE_BUSY: "{error}: another program has kept it for {wait_s:.0f} s",
    sqlite3.SQLITE_READONLY: NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: NOT_WRITABLE,
    sqlite3.SQLITE_PERM: NOT_WRITABLE,
}
"""What SQLite meets that is no fault of ours, and what to do about it."""

WAIT_S = 30.0  # for others who write


class Connection(sqlite3.Connection):
    """A connection for which the troubles of file and disk are an InputError of one line."""

    path = Path()

    def execute(  # type: ignore[override]
        self, statement: str, values: Sequence[Any] = (), /
    ) -> sqlite3.Cursor:
        try:
            return super().execute(statement, values)
        except sqlite3.DatabaseError as error:
            code = error.sqlite_errorcode & 0xFF  # without its details
            if code not in OUR_ENVIRONMENT:
                raise
            told = OUR_ENVIRONMENT[code].format(error=error, wait_s=WAIT_S)
            raise InputError(f"{self.path}: {told}") from None


def open_file(folder: Path, *, create: bool) -> Connection:
    """The journal in `folder`, checked; made where it is absent and `create` says so.

    Where the folder can't be written, the journal can be read. Raises InputError: no journal there,
    or one that must not be trusted.
    """
    path = folder / FILE
    if create:
        _make(folder, path)
    _check_owner(folder, path)
    read_only = not create and not os.access(folder, os.W_OK)
    if read_only and (folder / f"{FILE}-wal").exists():
        raise InputError(f"{path}: {NOT_WRITABLE.format(error='and its last entries are apart')}")
    name = path.absolute().as_uri() + ("?immutable=1" if read_only else "")
    connection = sqlite3.connect(
        name, timeout=WAIT_S, isolation_level=None, factory=Connection, uri=True
    )
    connection.path = path
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        if create:
            _fill_when_empty(connection)
        _check_content(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise InputError(f"{path}: {DAMAGED.format(error=error)}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _make(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if not folder.is_dir():
            raise InputError(f"{folder}: not a folder: give another with --state") from None
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}: give another with --state") from None


def _check_owner(folder: Path, path: Path) -> None:
    for place, kind in ((folder, stat.S_ISDIR), (path, stat.S_ISREG)):
        try:
            facts = place.stat() if place == folder else place.lstat()
        except FileNotFoundError:
            raise InputError(
                f"{folder}: no jobs were submitted there: name the folder that `batch submit` "
                "told, with --state"
            ) from None
        if not kind(facts.st_mode):
            raise InputError(f"{place}: not what `batch submit` makes there: refused")
        if facts.st_uid != os.geteuid():
            raise InputError(f"{place}: belongs to another user (uid {facts.st_uid}): refused")
        if facts.st_mode & 0o022:
            raise InputError(
                f"{place}: others can write it (mode {facts.st_mode & 0o777:o}): "
                f"check it, then `chmod go-w {place}`"
            )


@contextmanager
def transaction(connection: Connection) -> Iterator[Connection]:
    """All of what is done within, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def _fill_when_empty(connection: Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection):
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        if connection.execute("PRAGMA application_id").fetchone()[0]:
            return
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _check_content(connection: Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise InputError(f"{path}: not a journal of ort_optim: refused")
    if version > VERSION:
        raise InputError(
            f"{path}: written by a newer ort_optim (version {version}, this one knows {VERSION}): "
            "upgrade ort_optim"
        )
    found = {
        row["sql"] for row in connection.execute("SELECT sql FROM sqlite_master") if row["sql"]
    }
    if version != VERSION or found != set(SCHEMA):
        raise InputError(f"{path}: its tables are not those of ort_optim {VERSION}: refused")
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise InputError(f"{path}: {DAMAGED.format(error=verdict)}")
