"""The rule of whole machines and fragments, at its boundaries; G = 8 devices of a server."""

from __future__ import annotations

import pytest

from ort_optim.cluster.placement.planner import plan
from tests.cluster.shorthand import GIB, cluster, find, job, reason, server, servers_of

G = 8


@pytest.mark.parametrize(
    ("gpus", "classes"),
    [
        (0, ["two"]),
        (0.5, ["two"]),
        (1, ["two"]),
        (3, ["two"]),
        (G - 1, ["two"]),
        (G, ["one"]),
        (G + 1, ["one", "one"]),
        (12, ["one", "one"]),
        (2 * G, ["one", "one"]),
        (2 * G + 1, ["one", "one", "one"]),
        (3 * G, ["one", "one", "one"]),
        (3 * G + 1, []),
        (100, []),
    ],
)
def test_gpus_decide_on_whole_machines_or_a_fragment(gpus: float, classes: list[str]) -> None:
    made = plan([job("a", gpus)], cluster(one=3, two=2))
    assert [made.classes[name] for name in servers_of(made, "a")] == classes
    if not classes:
        assert "class one has only 3" in reason(made, "a")


@pytest.mark.parametrize("ones", [0, 1, 2, 3])
def test_16_gpus_are_exactly_two_class_one_servers_or_none(ones: int) -> None:
    made = plan([job("a", 16)], cluster(one=ones, two=3))
    assert servers_of(made, "a") == (["one0", "one1"] if ones >= 2 else [])


def test_two_of_two_servers_are_waited_for_even_if_one_is_idle() -> None:
    made = plan([job("a", 8, 10), job("b", 16, 5)], cluster(one=2))
    assert (find(made, "a").start_s, find(made, "b").start_s) == (0, 10)


def test_3_gpus_wait_for_class_two_while_class_one_is_idle() -> None:
    made = plan([job("a", 7, 100), job("b", 3, 10)], cluster(one=4, two=1))
    assert servers_of(made, "b") == ["two0"]
    assert find(made, "b").start_s == 100


def test_3_gpus_without_class_two_are_refused_with_the_way_out() -> None:
    assert "--backfill" in reason(plan([job("a", 3)], cluster(one=2)), "a")


def test_whole_machines_get_every_device_cpu_and_byte() -> None:
    placement = find(plan([job("a", servers=1)], cluster(one=1)), "a").placements[0]
    assert placement.devices == tuple((device, 1000) for device in range(G))
    assert (placement.milli_cpus, placement.memory) == (64_000, 256 * GIB)


@pytest.mark.parametrize(("servers", "placed"), [(1, 1), (3, 3), (4, 0)])
def test_servers_asked_for_are_given_all_or_none(servers: int, placed: int) -> None:
    made = plan([job("a", servers=servers)], cluster(one=3, two=3))
    assert len(servers_of(made, "a")) == placed


def test_servers_asked_for_must_each_have_the_rest() -> None:
    small = server("small", "one", gpus=2)
    assert servers_of(plan([job("a", 4, servers=1)], cluster(small, one=1)), "a") == ["one0"]
    assert servers_of(plan([job("a", 2, servers=1)], cluster(small, one=1)), "a") == ["small"]
    made = plan([job("a", 4, servers=2)], cluster(small, one=1))
    assert "class one has only 1" in reason(made, "a")


def test_cpus_and_memory_of_a_whole_job_are_shared_out_over_its_servers() -> None:
    made = plan([job("a", 16, milli_cpus=128_000, memory=512 * GIB)], cluster(one=2))
    assert len(servers_of(made, "a")) == 2
    made = plan([job("a", 16, milli_cpus=128_002)], cluster(one=2))
    assert "CPUs" in reason(made, "a")


def test_the_next_smaller_server_counts_where_there_are_too_few_large_ones() -> None:
    small = [server(f"small{i}", "one", gpus=4) for i in range(3)]
    made = plan([job("a", 12)], cluster(*small, one=1))
    assert servers_of(made, "a") == ["small0", "small1", "small2"]


def test_g_counts_only_servers_of_the_model_asked_for() -> None:
    tiny = server("tiny", "one", gpus=2, model="T4")
    made = plan([job("a", 3, gpu_models=frozenset({"T4"}))], cluster(tiny, two=1))
    assert "class one has only 1" in reason(made, "a")
    made = plan([job("a", 3)], cluster(tiny, one=1, two=1))
    assert servers_of(made, "a") == ["two0"]


def test_without_class_one_any_number_of_gpus_is_a_fragment() -> None:
    assert servers_of(plan([job("a", 8)], cluster(two=1)), "a") == ["two0"]
    assert "has 9 GPUs" in reason(plan([job("a", 9)], cluster(two=1)), "a")


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ({"milli_cpus": 65_000}, "no class-two server has 65 CPUs"),
        ({"memory": 257 * GIB}, "no class-two server has 257 GiB of memory"),
        ({"gpus": 1, "gpu_memory": 81 * GIB}, "no class-two server has GPUs of 81 GiB"),
        ({"gpus": 1, "gpu_models": frozenset({"H100"})}, "a GPU of model H100"),
        ({"labels": {"zone": "x"}}, "the labels zone=x"),
        ({"gpus": 9}, "no class-two server has 9 GPUs"),
        (
            {"gpus": 2, "gpu_models": frozenset({"A100"}), "milli_cpus": 70_000},
            "no class-two server has 70 CPUs beside a GPU of model A100, 2 GPUs",
        ),
    ],
)
def test_a_job_larger_than_any_server_is_refused_with_what_is_missing(
    need: dict[str, object], told: str
) -> None:
    assert told in reason(plan([job("a", **need)], cluster(two=2)), "a")


def test_drained_servers_get_nothing_new() -> None:
    drained = [server("d1", "one", drained=True), server("d2", "two", drained=True)]
    made = plan([job("w", 8), job("f", 1)], cluster(*drained, one=1, two=1))
    assert servers_of(made, "w") == ["one0"]
    assert servers_of(made, "f") == ["two0"]
    made = plan([job("w", servers=1), job("f", 1)], cluster(*drained))
    assert reason(made, "f") == "fragment: all class-two servers are drained"
    assert "all class-one servers are drained" in reason(made, "w")


def test_model_memory_and_labels_of_a_gpu_decide_where_a_fragment_goes() -> None:
    servers = cluster(
        server("t4", model="T4"), server("x", labels={"zone": "x"}), server("plain"), one=1
    )
    jobs = [
        job("model", 1, gpu_models=frozenset({"T4", "H100"})),
        job("label", 1, labels={"zone": "x"}),
        job("cpus", 0, milli_cpus=2000),
    ]
    made = plan(jobs, servers)
    assert servers_of(made, "model") == ["t4"]
    assert servers_of(made, "label") == ["x"]
    assert len(servers_of(made, "cpus")) == 1


def test_memory_of_one_device_is_shared_by_amounts() -> None:
    jobs = [job(name, 0.1, gpu_memory=50 * GIB) for name in "abc"]
    made = plan(jobs, cluster(server("two", gpus=2)))
    devices = {each.job: each.placements[0].devices[0][0] for each in made.planned}
    assert [each.start_s for each in made.planned] == [0, 0, 10]
    assert devices["a"] != devices["b"]
