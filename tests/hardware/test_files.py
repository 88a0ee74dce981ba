from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.hardware.files import Tree, parse_cpu_list, parse_integer


@given(st.sets(st.integers(0, 300)))
def test_cpu_list_written_as_ranges_reads_back(cpus: set[int]) -> None:
    text, ordered = "", sorted(cpus)
    while ordered:
        first = last = ordered.pop(0)
        while ordered and ordered[0] == last + 1:
            last = ordered.pop(0)
        text += f"{',' if text else ''}{first}" + (f"-{last}" if last > first else "")
    assert parse_cpu_list(text + "\n") == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "0-70000", "1:2", "\0", "0x3", "1-2-3"])
def test_nonsense_is_no_cpu_list(text: str) -> None:
    assert parse_cpu_list(text) is None


@pytest.mark.parametrize("text", ["", "1.5", "1e3", "1_0", "\u0663", "9" * 31, "--1", "0x10"])
def test_nonsense_is_no_integer(text: str) -> None:
    assert parse_integer(text) is None


def test_integers_keep_their_sign() -> None:
    assert parse_integer(" -12\n") == -12


def test_names_come_in_numerical_order(tmp_path: Path) -> None:
    for name in ("index10", "index2", "index0", "uevent", "indexed"):
        (tmp_path / "cache" / name).mkdir(parents=True)
    assert Tree(tmp_path).names("cache", "index") == ["index0", "index2", "index10"]
    assert Tree(tmp_path).names("none", "index") == []


def test_a_warning_is_noted_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    (tmp_path / "x").write_text("nonsense")
    assert tree.integer("x", 0, 9) is None
    assert tree.integer("x", 0, 9) is None
    assert len(tree.warnings) == 1
    assert "\n" not in tree.warnings[0]
