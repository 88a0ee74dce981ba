"""The split of `auto` servers suits the jobs, and says why."""

from __future__ import annotations

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.capacity import Inventory
from ort_optim.cluster.placement.classes import Split, split
from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.servers import Cluster
from tests.cluster.shorthand import GIB, cluster, job, server, servers_of


def ones(jobs: list[Job], at: Cluster) -> list[str]:
    """Names of the servers of class one."""
    inventory = Inventory.of(at)
    made = split(jobs, at, inventory)
    return [name for name, one in zip(inventory.names, made.one, strict=True) if one]


def made_for(jobs: list[Job], at: Cluster) -> Split:
    return split(jobs, at, Inventory.of(at))


def test_given_classes_stay_and_need_no_reason() -> None:
    made = made_for([job("w", 64)], cluster(one=1, two=2))
    assert made.one.tolist() == [True, False, False]
    assert made.reason == ""


def test_without_whole_jobs_all_auto_servers_are_class_two() -> None:
    assert ones([job("f", 3)], cluster(auto=4)) == []
    assert (
        "no job that can be placed needs whole machines"
        in made_for([job("f", 3)], cluster(auto=4)).reason
    )


@pytest.mark.parametrize(("gpus", "count"), [(8, 1), (9, 2), (16, 2), (24, 3)])
def test_class_one_has_what_the_largest_job_needs_at_once(gpus: int, count: int) -> None:
    at = cluster(auto=5)
    assert len(ones([job("w", gpus), job("f", 3, 1000)], at)) == count
    assert f"up to {count} at once" in made_for([job("w", gpus)], at).reason


def test_given_class_one_servers_count() -> None:
    assert ones([job("w", 16), job("f", 3, 1000)], cluster(one=2, auto=3)) == ["one0", "one1"]


def test_work_decides_how_many_more() -> None:
    whole = [job(f"w{i}", 8, 100) for i in range(8)]
    fragments = [job(f"f{i}", 4, 100) for i in range(16)]  # as much work: eight servers for 100 s
    assert len(ones([*whole, *fragments], cluster(auto=8))) == 4
    assert len(ones([*whole, *fragments[:4]], cluster(auto=8))) == 6
    assert len(ones([*whole[:2], *fragments], cluster(auto=8))) == 2


def test_no_more_than_can_be_used_at_once() -> None:
    assert len(ones([job("w", 8, 100), job("v", 8, 100)], cluster(auto=9))) == 2


def test_a_job_larger_than_the_cluster_takes_nothing_from_the_others() -> None:
    at = cluster(auto=3)
    made = plan([job("w", 32), job("f", 3)], at)
    assert servers_of(made, "f") != []
    assert servers_of(made, "w") == []
    assert set(made.classes.values()) == {"two"}


def test_the_servers_that_fragments_miss_least_go_first() -> None:
    at = cluster(
        server("large", "auto", milli_cpus=128_000),
        server("small", "auto"),
        server("cpu", "auto", 0),
    )
    assert ones([job("w", 8), job("f", 3)], at) == ["small"]
    assert ones([job("w", servers=1), job("f", 3)], at) == ["cpu"]


def test_the_last_server_for_some_fragment_stays_in_class_two() -> None:
    at = cluster(
        server("t4", "auto", gpus=8, model="T4", milli_cpus=8000),
        server("a100", "auto", gpus=8),
    )
    jobs = [job("w", 8), job("f", 1, gpu_models=frozenset({"T4"}))]
    assert ones(jobs, at) == ["a100"]


def test_drained_servers_are_of_no_use_in_class_one() -> None:
    at = cluster(server("gone", "auto", drained=True), server("here", "auto"), two=1)
    assert ones([job("w", 8), job("f", 3)], at) == ["here"]


def test_restricted_jobs_get_servers_of_their_kind() -> None:
    at = cluster(
        *(server(f"t{i}", "auto", model="T4") for i in range(3)),
        *(server(f"a{i}", "auto", memory=512 * GIB) for i in range(3)),
    )
    jobs = [
        job("t", 16, gpu_models=frozenset({"T4"})),
        job("m", 8, memory=300 * GIB),
        job("f", 2),
    ]
    made = plan(jobs, at)
    assert len(servers_of(made, "t")) == 2
    assert [name[0] for name in servers_of(made, "m")] == ["a"]
    assert servers_of(made, "f") != []


def test_decided_classes_go_before_those_of_the_file() -> None:
    at = cluster(auto=2)
    decided = {"auto0": "two", "auto1": "one"}
    made = split([], at, Inventory.of(at), decided)  # type: ignore[arg-type]
    assert made.one.tolist() == [False, True]
