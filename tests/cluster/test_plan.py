"""Plans as JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.plan import Plan, Planned, plan_from_json, plan_to_json, write_plan
from ort_optim.errors import InputError
from tests.cluster.instances import random_cluster, random_jobs


@pytest.mark.parametrize("seed", range(30))
def test_a_plan_is_read_back_as_it_was(seed: int) -> None:
    rng = random.Random(seed)
    made = plan(random_jobs(rng), random_cluster(rng))
    assert plan_from_json(plan_to_json(made)) == made


def test_a_job_without_an_end_is_written_as_null() -> None:
    made = Plan(planned=(Planned("a", 1.5, float("inf"), ()),))
    text = plan_to_json(made)
    assert json.loads(text)["planned"][0]["end_s"] is None
    assert plan_from_json(text) == made


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"version": 1}', '{"version": 1, "planned": 3}', "x" * 10],
)
def test_what_is_no_plan_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"p\.json: not a plan") as caught:
        plan_from_json(text, "p.json")
    assert "\n" not in str(caught.value)


def test_a_plan_of_a_newer_version_is_refused() -> None:
    text = plan_to_json(Plan()).replace('"version": 1', '"version": 2')
    with pytest.raises(InputError, match="a plan of version 2"):
        plan_from_json(text)


def test_a_class_that_is_none_is_refused() -> None:
    text = plan_to_json(Plan(classes={"n": "one"})).replace('"one"', '"three"')
    with pytest.raises(InputError, match="class 'three'"):
        plan_from_json(text)


def test_a_plan_replaces_a_file_at_once_and_keeps_its_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "p.json", tmp_path / "link.json"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_plan(Plan(), link)
    assert link.is_symlink()
    assert plan_from_json(path.read_text()) == Plan()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.json", "p.json"]


def test_a_plan_that_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "p.json", tmp_path / "folder"):
        with pytest.raises(InputError, match="can't be written"):
            write_plan(Plan(), path)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
