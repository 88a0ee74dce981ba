"""Report files: the format follows from the suffix, bad paths are one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ort_optim.errors import InputError
from ort_optim.report import Report, check_report_path, write_report
from ort_optim.report.html import to_html
from ort_optim.report.markdown import to_markdown
from tests.report import builds


@pytest.mark.parametrize("name", ["r.json", "R.JSON"])
def test_json_is_read_back_as_the_same_report(tmp_path: Path, name: str) -> None:
    write_report(builds.report(), tmp_path / name)
    assert Report.from_json((tmp_path / name).read_bytes()) == builds.report()


def test_markdown_and_html_follow_from_the_suffix(tmp_path: Path) -> None:
    for suffix, writer in ((".md", to_markdown), (".html", to_html)):
        path = tmp_path / f"r{suffix}"
        write_report(builds.report(), path)
        assert path.read_text(encoding="utf-8") == writer(builds.report())


def test_lone_surrogates_survive_in_json_and_do_not_stop_the_others(tmp_path: Path) -> None:
    report = builds.report(input=builds.model_facts(path="caf\udce9.onnx"))
    for suffix in (".json", ".md", ".html"):
        write_report(report, tmp_path / f"r{suffix}")
    assert Report.from_json((tmp_path / "r.json").read_bytes()) == report


@pytest.mark.parametrize("name", ["report", "r.txt", "r.json.gz"])
def test_other_suffixes_are_refused_naming_the_three(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.json, \.md, \.html"):
        write_report(builds.report(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_and_folder_in_place_of_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.json").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_report_path(tmp_path / "d.json")
    with pytest.raises(InputError, match="does not exist: create it"):
        check_report_path(tmp_path / "no" / "r.json")


def test_old_report_stays_and_no_temporary_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.md"
    path.write_text("old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match=r"cannot write report .*: No space left on device"):
        write_report(builds.report(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_link_and_permissions_of_the_old_file_are_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.md", tmp_path / "link.md"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_report(builds.report(), link)
    assert link.is_symlink()
    assert real.read_text() != "old"
    assert real.stat().st_mode & 0o777 == 0o640
