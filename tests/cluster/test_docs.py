"""The examples of docs/batch-plan.md are what they say."""

from __future__ import annotations

import re
from pathlib import Path

from ort_optim.cli.batch.job_file import load_jobs
from ort_optim.cluster.jobs import FIELDS
from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.servers import read_cluster
from tests.cluster.shorthand import servers_of, starts
from tests.toolbox import ROOT

PAGE = ROOT / "docs" / "batch-plan.md"


def test_the_two_files_are_read_and_planned(tmp_path: Path) -> None:
    for block in re.findall(r"```yaml\n(# (\S+)\n.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / block[1]).write_text(block[0])
    (tmp_path / "vgg19.onnx").touch()
    jobs = load_jobs(tmp_path / "jobs.yaml").jobs
    made = plan(jobs, read_cluster(tmp_path / "cluster.yaml"))
    assert made.refused == ()
    assert starts(made) == {"count": 0, "timing": 0, "vgg19": 60}
    assert servers_of(made, "vgg19") == ["a"]
    assert len(servers_of(made, "timing")) == 2


def test_every_field_of_a_job_is_told() -> None:
    text = PAGE.read_text()
    assert [name for name in FIELDS if f"`{name}`" not in text] == []
