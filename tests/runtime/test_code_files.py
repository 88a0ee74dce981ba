"""Code is mapped from regular files of the user that nobody else may write, and only from those."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ort_optim.runtime import library
from ort_optim.runtime.blob import encode
from tests.runtime.regions import HEADER_BYTES, Code, plan_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX owners and modes")


def stage(code: Code, path: Path) -> None:
    library.stage(encode([plan_of(dataclasses.replace(code, path=path), 8)], threads=1))


@pytest.fixture
def own(code: Code, tmp_path: Path) -> Path:
    path = tmp_path / "own.code"
    path.write_bytes(code.path.read_bytes())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755])
def test_a_file_of_ones_own_is_mapped_once(code: Code, own: Path, mode: int) -> None:
    own.chmod(mode)
    before = library.totals().code_bytes
    stage(code, own)
    other_name = own.with_name("link.code")
    other_name.hardlink_to(own)
    stage(code, other_name)
    assert library.totals().code_bytes == before + own.stat().st_size


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(code: Code, own: Path, mode: int) -> None:
    own.chmod(mode)
    with pytest.raises(library.LibraryError, match="may be written by others"):
        stage(code, own)


def test_a_file_of_another_user_is_refused(code: Code, own: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(own, 12345, -1)
    with pytest.raises(library.LibraryError, match="belongs to another user"):
        stage(code, own)


def test_links_folders_pipes_and_gaps_are_refused(code: Code, own: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(own)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    empty = tmp_path / "empty"
    empty.touch(0o600)
    for path, reason in (
        (link, "can't be opened"),
        (tmp_path / "missing", "can't be opened"),
        (tmp_path, "is no regular file"),
        (pipe, "is no regular file"),
        (empty, "is empty"),
    ):
        with pytest.raises(library.LibraryError, match=reason):
            stage(code, path)


def test_an_entry_outside_the_code_is_refused(code: Code) -> None:
    for entry in (-1, 0, HEADER_BYTES - 1, code.path.stat().st_size, 2**62):
        broken = dataclasses.replace(code, entries={**code.entries, "add": entry})
        with pytest.raises(library.LibraryError, match="R_test: entry of a step"):
            stage(broken, code.path)


def test_a_refused_plan_gives_back_the_code_it_mapped(code: Code, own: Path) -> None:
    before = library.totals()
    plan = plan_of(dataclasses.replace(code, path=own), 8)
    with pytest.raises(library.LibraryError, match="the name occurs twice"):
        library.stage(encode([plan, plan], threads=1))
    assert library.totals() == before
