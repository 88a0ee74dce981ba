"""The file of the journal: what is not ours is refused, and a bad disk is told of in one line."""

import os
import sqlite3
from pathlib import Path

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.submitting import journal_file
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.journal_file import FILE, VERSION
from ort_optim.errors import InputError


def submit(journal: Journal, *names: str) -> None:
    jobs = [Job(name, command=("true",)) for name in names]
    journal.submit(jobs, dict.fromkeys(names, "ann"), {"ann": "d1"})


def damage(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"PRAGMA user_version = {VERSION + 1}", "newer ort_optim"),
        ("PRAGMA application_id = 7", "not a journal"),
        ("CREATE TRIGGER evil AFTER INSERT ON jobs BEGIN DELETE FROM jobs; END", "not those of"),
        ("ALTER TABLE jobs ADD COLUMN more TEXT", "not those of"),
        ("DROP TABLE lease", "not those of"),
    ],
)
def test_a_forged_or_newer_journal_is_refused_in_one_line(tmp_path, statement, message):
    Journal.open(tmp_path / "s", create=True).close()
    damage(tmp_path / "s" / FILE, statement)
    for create in (False, True):
        with pytest.raises(InputError, match=message) as caught:
            Journal.open(tmp_path / "s", create=create)
        assert "\n" not in str(caught.value)


def test_a_damaged_journal_is_refused(tmp_path):
    with Journal.open(tmp_path / "s", create=True) as journal:
        submit(journal, *(f"j{index}" for index in range(300)))
    path = tmp_path / "s" / FILE
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content) - 512, 4096):
        content[start : start + 512] = os.urandom(512)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        Journal.open(tmp_path / "s")
    path.write_bytes(b"no data base at all" * 100)
    with pytest.raises(InputError, match="damaged"):
        Journal.open(tmp_path / "s")


def test_what_others_can_write_is_refused(tmp_path):
    Journal.open(tmp_path / "s", create=True).close()
    for path, mode in ((tmp_path / "s" / FILE, 0o666), (tmp_path / "s", 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(InputError, match="others can write it"):
            Journal.open(tmp_path / "s")
        path.chmod(before)


def test_a_link_in_place_of_the_journal_is_refused(tmp_path):
    Journal.open(tmp_path / "real", create=True).close()
    (tmp_path / "s").mkdir(mode=0o700)
    (tmp_path / "s" / FILE).symlink_to(tmp_path / "real" / FILE)
    with pytest.raises(InputError, match="refused"):
        Journal.open(tmp_path / "s", create=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_journal_of_another_user_is_refused(tmp_path):
    Journal.open(tmp_path / "s", create=True).close()
    os.chown(tmp_path / "s" / FILE, 12345, 12345)
    with pytest.raises(InputError, match="another user"):
        Journal.open(tmp_path / "s")


def test_where_nothing_was_submitted_there_is_no_journal(tmp_path):
    with pytest.raises(InputError, match="no jobs were submitted there"):
        Journal.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        Journal.open(tmp_path / "file", create=True)


def test_the_journal_and_its_folder_are_private(tmp_path):
    old = os.umask(0)
    try:
        Journal.open(tmp_path / "s", create=True).close()
    finally:
        os.umask(old)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "s" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_told_in_one_line_and_what_was_written_stays(tmp_path):
    journal = Journal.open(tmp_path / "s", create=True)
    submit(journal, "x")
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InputError, match="the disk is full: make room"):
        submit(journal, *(f"y{index}" for index in range(500)))
    assert [record.id for record in journal.records()] == ["x"]
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    submit(journal, "y")
    assert [record.id for record in journal.records()] == ["x", "y"]
    journal.close()


def test_what_can_not_be_written_can_still_be_read(tmp_path, monkeypatch):
    with Journal.open(tmp_path / "state", create=True) as journal:
        submit(journal, "x")
    monkeypatch.setattr(journal_file.os, "access", lambda *_: False)  # as on a read-only disk
    with Journal.open(tmp_path / "state") as journal:
        assert [record.id for record in journal.records()] == ["x"]
        with pytest.raises(InputError, match="can't be written where it is"):
            journal.ask("x", "cancel", {})
    (tmp_path / "state" / f"{FILE}-wal").touch()
    with pytest.raises(InputError, match="copy the folder"):
        Journal.open(tmp_path / "state")


def test_a_folder_that_can_not_be_made_is_told_of_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Not a directory: give another with --state"):
        Journal.open(tmp_path / "file" / "state", create=True)
