"""Files reach the work folder and nothing outside of it; the log is told from its end."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.checkpoints import WorkFolder as WorkFolderOfOptimize
from ort_optim.cluster.keeping.work_folder import WorkFolder, read_ours, write_whole
from ort_optim.errors import InputError
from tests.toolbox import snapshot


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    return folder


def test_a_file_is_copied_into_new_folders(folder: WorkFolder) -> None:
    folder.copy_in("a/b/c.txt", b"content")
    assert (folder.work / "a/b/c.txt").read_bytes() == b"content"
    folder.copy_in("a/b/c.txt", b"more")
    assert snapshot(folder.work) == {"a/b/c.txt": b"more"}


def test_a_file_that_is_replaced_keeps_its_permissions(folder: WorkFolder) -> None:
    (folder.work / "tool").write_text("old")
    (folder.work / "tool").chmod(0o750)
    folder.copy_in("tool", b"new")
    assert stat.S_IMODE((folder.work / "tool").stat().st_mode) == 0o750


@pytest.mark.parametrize(
    "destination",
    ["", ".", "..", "/x", "//x", "../x", "a/../../x", "a/..", "a/", "a/.", "a\0b", "a\nb", "a\\b"],
)
def test_a_path_that_leaves_the_folder_is_refused(folder: WorkFolder, destination: str) -> None:
    with pytest.raises(InputError, match="inside the work folder"):
        folder.copy_in(destination, b"")
    assert list(folder.work.iterdir()) == []


@pytest.mark.parametrize(
    "destination", ["link", "folder", "fifo", "link/x", "real/inner/x", "file/x"]
)
def test_links_and_other_odd_files_are_refused(
    folder: WorkFolder, tmp_path: Path, destination: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.work / "link").symlink_to(outside)
    (folder.work / "folder").mkdir()
    (folder.work / "real").mkdir()
    (folder.work / "real" / "inner").symlink_to("../../..")
    (folder.work / "file").write_text("")
    os.mkfifo(folder.work / "fifo")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"a link or no folder|no plain file"):
        folder.copy_in(destination, b"evil")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_work_folder_that_became_a_link_is_refused(folder: WorkFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.work.rmdir()
    folder.work.symlink_to(outside)
    with pytest.raises(InputError, match="no work folder"):
        folder.copy_in("x", b"evil")
    assert list(outside.iterdir()) == []


def test_what_a_hard_link_shares_with_the_outside_is_not_written(
    folder: WorkFolder, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    (folder.work / "shared").hardlink_to(tmp_path / "mine")
    folder.copy_in("shared", b"new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (folder.work / "shared").read_text() == "new"


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "link", "up", "", "\\", "b c"]), max_size=6))
def test_no_path_writes_outside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.mktemp("escape")
    folder = WorkFolder(base / "job")
    folder.make()
    (base / "outside").mkdir()
    (folder.work / "link").symlink_to(base / "outside")
    (folder.work / "up").symlink_to("..")
    try:
        folder.copy_in("/".join(parts), b"x")
    except InputError:
        pass
    else:
        assert len(snapshot(folder.work)) == 1
    (folder.work / "link").unlink()
    (folder.work / "up").unlink()
    assert all(path.is_relative_to(folder.work) for path in base.rglob("*") if path.is_file())


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(InputError, match="others can write it"):
        WorkFolder(tmp_path / "open").make()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="not what was made there"):
        WorkFolder(tmp_path / "link").make()


def test_the_folder_is_its_owners_alone(folder: WorkFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    write_whole(folder.job, b"x")
    assert stat.S_IMODE(folder.job.stat().st_mode) == 0o600


def test_a_tail_is_the_last_lines(folder: WorkFolder) -> None:
    assert folder.tail(5) == ""
    folder.log.write_bytes(b"one\ntwo\nthree\n\xff")
    assert folder.tail(2) == "three\n\ufffd"
    assert folder.tail(0) == ""
    folder.log.write_bytes(b"".join(b"%d\n" % i for i in range(100_000)))
    assert folder.tail(2) == "99998\n99999"
    assert 5_000 < len(folder.tail(10**6).splitlines()) < 20_000
    assert set(map(len, folder.tail(10**6).splitlines())) == {5}


def test_one_endless_line_has_a_tail(folder: WorkFolder) -> None:
    folder.log.write_bytes(b"x" * 200_000)
    assert 0 < len(folder.tail(3)) < 100_000


def test_the_last_step_is_what_optimize_says(folder: WorkFolder) -> None:
    assert folder.last_step() == ""
    WorkFolderOfOptimize(folder.steps).write(
        "steps.json", json.dumps({"version": 1, "last_finished_step": "tile"}).encode()
    )
    assert folder.last_step() == "tile"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "3", "[" * 100_000, '{"last_finished_step": null}']
    + [json.dumps({"last_finished_step": step}) for step in (3, ["a"], "a\nb", "x" * 1000)],
)
def test_what_a_job_writes_there_instead_is_no_step(folder: WorkFolder, text: str) -> None:
    folder.steps.mkdir()
    (folder.steps / "steps.json").write_text(text)
    assert folder.last_step() == ""


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_ours(path, 5) == b"12345"
    with pytest.raises(InputError, match="5 bytes"):
        read_ours(path, 4)
