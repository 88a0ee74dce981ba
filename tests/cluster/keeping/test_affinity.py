"""Each whole CPU is one job's; parts of CPUs, and what is not free, are nobody's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ort_optim.cluster.keeping.affinity import claim

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system binds no process to CPUs"
)


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7})


@pytest.mark.usefixtures("four_cpus")
def test_no_cpu_is_claimed_twice_until_it_is_released(tmp_path: Path) -> None:
    first = claim(1000, folder=tmp_path)
    second = claim(2000, folder=tmp_path)
    assert (first.cpus, second.cpus) == ((2,), (3, 5))
    assert claim(2000, folder=tmp_path).cpus == ()
    first.release()
    third = claim(2000, folder=tmp_path)
    assert third.cpus == (2, 7)


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize("milli_cpus", [0, 500, 1500, 5000])
def test_parts_and_more_than_there_are_claim_nothing(tmp_path: Path, milli_cpus: int) -> None:
    assert claim(milli_cpus, folder=tmp_path).cpus == ()
    assert claim(4000, folder=tmp_path).cpus == (2, 3, 5, 7)


@pytest.mark.usefixtures("four_cpus")
def test_a_folder_that_can_not_be_used_claims_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert claim(1000, folder=tmp_path / "file").cpus == ()
    (tmp_path / "link").symlink_to(tmp_path)
    assert claim(1000, folder=tmp_path / "link").cpus == ()
