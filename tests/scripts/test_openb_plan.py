"""The openb trace planned as a batch: thousands of jobs on more than a thousand servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from _openb import read_cluster, read_pods

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.planner import Policy, plan
from ort_optim.cluster.servers import Cluster
from tests.cluster.checker import faults
from tests.toolbox import ROOT

TRACE = ROOT.parent / "shared" / "data" / "openb"


@pytest.fixture
def trace() -> tuple[list[Job], Cluster]:
    """All 8,152 pods of the default list, and the 1,213 servers, each of them `auto`."""
    if not Path(TRACE).is_dir():
        pytest.skip("no openb trace beside the project")
    jobs = [
        Job(f"p{number}", command=("true",), resources=pod.need, duration_s=pod.duration_s)
        for number, pod in enumerate(read_pods(TRACE, "default"))
    ]
    servers = tuple(replace(server, cls="auto") for server in read_cluster(TRACE).servers)
    return jobs, Cluster(servers)


def test_all_of_it_is_planned_and_nothing_is_over_capacity(
    trace: tuple[list[Job], Cluster],
) -> None:
    jobs, at = trace
    made = plan(jobs, at, policy=Policy(backfill=True))
    assert (len(jobs), len(at.servers)) == (8152, 1213)
    assert made.refused == ()
    assert faults(jobs, at, made, backfill=True) == []
    # No plan can be shorter than its longest job.
    assert made.makespan_s == max(job.duration_s for job in jobs)


def test_a_tenth_of_the_servers_takes_it_one_after_another(
    trace: tuple[list[Job], Cluster],
) -> None:
    jobs, at = trace
    few = Cluster(at.servers[-120:])
    made = plan(jobs, few)
    assert faults(jobs, few, made) == []
    assert sum(each.start_s > 0 for each in made.planned) > 4000
