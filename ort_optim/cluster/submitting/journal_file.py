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
from pathlib import Path

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
        transfer INTEGER NOT NULL
    ) STRICT""",
)


def open_file(folder: Path, *, create: bool) -> sqlite3.Connection:
    """The journal in `folder`, checked; made where it is absent and `create` says so.

    Raises InputError: no journal there, or one that must not be trusted.
    """
    path = folder / FILE
    if create:
        _make(folder, path)
    _check_owner(folder, path)
    try:
        connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            if create:
                _fill_when_empty(connection)
            _check_content(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path}: damaged ({error}): restore it, or move the folder away and submit again"
        ) from None
    return connection


def _make(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if not folder.is_dir():
            raise InputError(f"{folder}: not a folder: give another with --state") from None


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


def _fill_when_empty(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        if connection.execute("PRAGMA application_id").fetchone()[0]:
            return
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _check_content(connection: sqlite3.Connection, path: Path) -> None:
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
        raise InputError(
            f"{path}: damaged ({verdict}): restore it, or move the folder away and submit again"
        )
