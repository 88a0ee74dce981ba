"""The folder of `--work`: written whole or not at all, and read only if it is as it was written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "deep" / "work")


def test_all_is_the_owners_alone(folder: WorkFolder) -> None:
    folder.write("a.json", b"{}")
    name = folder.put(b"content", ".npz")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    for each in ("a.json", name, "progress"):
        assert (folder.path / each).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["smallest.onnx", f"{'0' * 64}.onnx", "steps.json"])
def test_a_model_that_a_run_would_remove_is_refused(folder: WorkFolder, name: str) -> None:
    with pytest.raises(InputError, match=r"is a file of --work .*: name another folder"):
        folder.refuse(folder.path / ".." / "work" / name)
    folder.refuse(folder.path / "model.onnx", folder.path.parent / name)


def test_content_is_found_by_the_name_it_was_put_under(folder: WorkFolder) -> None:
    name = folder.put(b"content", ".onnx")
    assert folder.put(b"content", ".onnx") == name
    assert folder.get(name) == b"content"


@pytest.mark.parametrize("damage", [b"", b"conten", b"content!", b"c0ntent"])
def test_content_that_is_damaged_is_noticed_and_put_again(
    folder: WorkFolder, damage: bytes
) -> None:
    name = folder.put(b"content", ".onnx")
    (folder.path / name).write_bytes(damage)
    with pytest.raises(DamagedError):
        folder.get(name)
    folder.put(b"content", ".onnx")
    assert folder.get(name) == b"content"


@pytest.mark.parametrize("name", ["../a", "a.json", "", None, 5, "0" * 64 + ".py", "/etc/passwd"])
def test_names_that_it_never_gave_are_refused(folder: WorkFolder, name: object) -> None:
    with pytest.raises(DamagedError):
        folder.get(name)


def test_links_and_files_that_others_can_write_are_not_read(
    folder: WorkFolder, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"{}")
    (folder.path / "a.json").symlink_to(tmp_path / "elsewhere")
    folder.write("b.json", b"{}")
    (folder.path / "b.json").chmod(0o666)
    (folder.path / "c.json").mkdir()
    os.mkfifo(folder.path / "d.json")
    for name in ("a.json", "b.json", "c.json", "d.json"):
        with pytest.raises(DamagedError):
            folder.read(name)
    assert folder.read("e.json") is None


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(InputError, match="chmod go-w"):
        WorkFolder(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give it away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    os.chown(tmp_path / "work", 12345, 12345)
    with pytest.raises(InputError, match="another user"):
        WorkFolder(tmp_path / "work")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none", "/dev/full"])
def test_a_place_where_no_folder_can_be_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--work .*(not a folder|can't be written to)"):
        WorkFolder(tmp_path / place)


def test_on_a_full_disk_what_was_there_stays(
    folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a.json", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        folder.write("a.json", b"new")
    assert folder.read("a.json") == b"old"
    assert sorted(p.name for p in folder.path.iterdir()) == ["a.json", "progress"]


def test_what_a_killed_run_left_is_removed(folder: WorkFolder) -> None:
    dead = folder.path / f".a.json.{2**22 - 1}-0.tmp"
    dead.touch()
    WorkFolder(folder.path)
    assert not dead.exists()


def test_content_that_nothing_needs_goes(folder: WorkFolder) -> None:
    first, second = folder.put(b"1", ".npz"), folder.put(b"2", ".onnx")
    folder.write("a.json", b"{}")
    folder.forget_all_but({second})
    assert folder.read(first) is None
    assert folder.get(second) == b"2"
    assert folder.read("a.json") == b"{}"
