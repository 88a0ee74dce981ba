from __future__ import annotations

import onnxruntime as ort
import pytest

from ort_optim.runtime import stats
from ort_optim.runtime.library import Counters
from ort_optim.runtime.stats import SessionStats, entry, note, read_stats

ONE = Counters(1, 1, 3, 0, 100, 5, 70, 0)
TWO = Counters(2, 2, 4, 1, 60, 5, 80, 0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {(7, "R_a"): ONE, (7, "R_b"): TWO}
    monkeypatch.setattr(stats.library, "counters", lambda *key: known.get(key))


def test_sums_are_over_all_regions() -> None:
    found = SessionStats({"R_a": ONE, "R_b": TWO}, {})
    assert (found.runs, found.packed_bytes) == (7, 160)


def test_options_that_nobody_noted_have_none() -> None:
    found = read_stats(ort.SessionOptions())
    assert (dict(found.regions), dict(found.left)) == ({}, {})
    assert entry(ort.SessionOptions(), "no such key") is None


@pytest.mark.usefixtures("counted")
def test_what_is_noted_is_read_again() -> None:
    options = ort.SessionOptions()
    note(options, 7, ["R_a", "R_b", "R_gone"], {"R_c": "why: not", "R_d": "no"})
    found = read_stats(options)
    assert found.regions == {"R_a": ONE, "R_b": TWO}
    assert found.left == {"R_c": "why: not", "R_d": "no"}


@pytest.mark.usefixtures("counted")
def test_without_a_registration_there_are_no_counters() -> None:
    options = ort.SessionOptions()
    note(options, None, (), {"all regions": "off"})
    assert read_stats(options) == SessionStats({}, {"all regions": "off"})


def test_long_reasons_are_cut_to_what_old_versions_take() -> None:
    options = ort.SessionOptions()
    note(options, None, (), {"R_a": "x" * 5000})
    assert len(options.get_session_config_entry("ort_optim.left.0")) == 1000
    assert set(read_stats(options).left["R_a"]) == {"x"}
