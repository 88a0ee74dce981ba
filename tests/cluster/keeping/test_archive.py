"""An archive keeps what tells the story of a job, within bounds; the bulk goes."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from ort_optim.cluster.keeping import archive
from ort_optim.cluster.keeping.archive import make_room, remove_bulk, write_archive
from ort_optim.cluster.keeping.work_folder import WorkFolder


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    folder.log.write_bytes(b"log")
    folder.state.write_bytes(b"{}")
    (folder.patches / "0001.json").write_bytes(b"{}")
    (folder.work / "big").write_bytes(bytes(1000))
    return folder


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as file:
        found = {}
        for member in file.getmembers():
            data = file.extractfile(member)
            assert data is not None
            found[member.name] = data.read()
        return found


def test_log_state_and_patches_are_kept(folder: WorkFolder, tmp_path: Path) -> None:
    write_archive(folder, tmp_path / "a.tar.gz")
    assert contents(tmp_path / "a.tar.gz") == {
        "state.json": b"{}",
        "log": b"log",
        "patches/0001.json": b"{}",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"job", "a.tar.gz"}


def test_of_a_long_log_both_ends_are_kept(
    folder: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "HEAD_BYTES", 10)
    monkeypatch.setattr(archive, "TAIL_BYTES", 20)
    folder.log.write_bytes(b"a" * 10 + b"b" * 1000 + b"c" * 20)
    write_archive(folder, tmp_path / "a.tar.gz")
    log = contents(tmp_path / "a.tar.gz")["log"]
    assert log == b"a" * 10 + b"\n... 1000 bytes left out ...\n" + b"c" * 20


def test_what_does_not_fit_and_what_is_a_link_is_named(
    folder: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_BYTES", 100)
    folder.log.write_bytes(b"x" * 101)
    (tmp_path / "secret").write_text("secret")
    folder.report.symlink_to(tmp_path / "secret")
    write_archive(folder, tmp_path / "a.tar.gz")
    found = contents(tmp_path / "a.tar.gz")
    assert found["LEFT-OUT"] == b"log\nreport.json\n"
    assert b"secret" not in found.values()


def test_the_smallest_failing_model_is_kept_whole_or_not_at_all(
    folder: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "HEAD_BYTES", 10)
    monkeypatch.setattr(archive, "TAIL_BYTES", 20)
    folder.steps.mkdir()
    (folder.steps / "smallest.onnx").write_bytes(bytes(range(50)))
    write_archive(folder, tmp_path / "a.tar.gz")
    assert contents(tmp_path / "a.tar.gz")["work/steps/smallest.onnx"] == bytes(range(50))
    monkeypatch.setattr(archive, "LARGEST_BYTES", 40)
    write_archive(folder, tmp_path / "a.tar.gz")
    assert contents(tmp_path / "a.tar.gz")["LEFT-OUT"] == b"work/steps/smallest.onnx\n"


def test_room_is_made_of_what_no_archive_keeps(folder: WorkFolder, tmp_path: Path) -> None:
    (folder.work / "deep" / "er").mkdir(parents=True)
    (folder.work / "-rf ~").write_text("")
    (folder.steps / "folder").mkdir(parents=True)
    for name in ("smallest.onnx", "model.onnx"):
        (folder.steps / name).write_text("")
    make_room(folder)
    assert [path.name for path in folder.work.rglob("*")] == ["steps", "smallest.onnx"]
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "file").write_text("")
    (folder.steps / "smallest.onnx").unlink()
    folder.steps.rmdir()
    folder.steps.symlink_to(tmp_path / "others")
    make_room(folder)
    assert (tmp_path / "others" / "file").exists()


def test_the_bulk_goes_and_links_lead_nowhere(folder: WorkFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    (folder.work / "link").symlink_to(tmp_path / "precious")
    remove_bulk(folder)
    assert sorted(path.name for path in folder.path.iterdir()) == ["log", "state.json"]
    assert (tmp_path / "precious" / "file").exists()
    folder.work.symlink_to(tmp_path / "precious")
    remove_bulk(folder)
    assert (tmp_path / "precious" / "file").exists()
    assert not folder.work.is_symlink()


def test_a_deep_tree_and_folders_without_permission_go_too(
    folder: WorkFolder, tmp_path: Path
) -> None:
    (folder.work / "shut" / "inner").mkdir(parents=True)
    (folder.work / "shut" / "inner" / "file").write_text("")
    (folder.work / "shut").chmod(0)
    steps = folder.steps
    steps.mkdir()
    (steps / "steps.json").write_text("{}")
    steps.chmod(0)
    depth = 1100  # deeper than Python may recurse
    parent = os.open(folder.work, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=parent)
        inner = os.open("d", os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = inner
    os.close(parent)
    write_archive(folder, tmp_path / "a.tar.gz")
    remove_bulk(folder)
    assert sorted(path.name for path in folder.path.iterdir()) == ["log", "state.json"]


def test_what_the_job_put_in_place_of_our_files_is_named(
    folder: WorkFolder, tmp_path: Path
) -> None:
    os.mkfifo(folder.job)
    folder.report.mkdir()
    (folder.patches / "0001.json").unlink()
    folder.patches.rmdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "secret.json").write_text("secret")
    folder.patches.symlink_to(tmp_path / "others")
    write_archive(folder, tmp_path / "a.tar.gz")
    found = contents(tmp_path / "a.tar.gz")
    assert found.keys() == {"log", "state.json", "LEFT-OUT"}
    assert found["LEFT-OUT"] == b"job.json\nreport.json\n"
