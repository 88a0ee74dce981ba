"""Cluster files: ranges of names, and every fault in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ort_optim.cluster.servers import Cluster, Gpus, Server, read_cluster
from ort_optim.errors import InputError
from tests.cluster.shorthand import GIB


def read(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"version: 1\n{text}")
    return read_cluster(path)


def test_every_field_is_read(tmp_path: Path) -> None:
    cluster = read(
        tmp_path,
        """
servers:
  - {name: a, class: one, cpus: 64, memory: 256GiB,
     gpus: {model: A100, count: 8, memory: 80GiB}, labels: {zone: x, rack: 7}}
  - {name: "n[1-2]", cpus: 0.5, memory: 128GiB, drained: true}
  - {name: c, class: two, cpus: 1, memory: 1, gpus: {model: T4, count: 0}}
""",
    )
    drained = {"cls": "auto", "milli_cpus": 500, "memory": 128 * GIB, "drained": True}
    assert cluster.servers == (
        Server("a", "one", 64000, 256 * GIB, Gpus("A100", 8, 80 * GIB), {"zone": "x", "rack": "7"}),
        Server("n1", **drained),
        Server("n2", **drained),
        Server("c", "two", 1000, 1),
    )


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("rack-[1-1].local", ["rack-1.local"]),
        ("[0-1]", ["0", "1"]),
    ],
)
def test_a_range_stands_for_its_names(tmp_path: Path, name: str, names: list[str]) -> None:
    cluster = read(tmp_path, f"servers: [{{name: '{name}', cpus: 1, memory: 1GiB}}]")
    assert [server.name for server in cluster.servers] == names


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no `servers`"),
        ("servers: []", "lists no server"),
        ("server: []", "did you mean servers?"),
        ("servers: [{cpus: 1, memory: 1}]", "servers[0]: has no name"),
        ("servers: [{name: a, memory: 1}]", "servers[0]: has no cpus"),
        ("servers: [{name: a, cpus: 1}]", "servers[0]: has no memory"),
        ("servers: [{name: a, cpus: 1, memory: 1, clas: one}]", "did you mean class?"),
        ("servers: [{name: a, cpus: 1, memory: 1, class: three}]", "must be one, two or auto"),
        ("servers: [{name: a, cpus: -1, memory: 1}]", "cpus: must be from 0"),
        ("servers: [{name: a, cpus: 1, memory: lots}]", "'lots' is no size"),
        ("servers: [{name: a, cpus: 1, memory: 1, gpus: 8}]", "gpus: must be a mapping"),
        ("servers: [{name: a, cpus: 1, memory: 1, gpus: {count: 8}}]", "gpus: has no model"),
        ("servers: [{name: a, cpus: 1, memory: 1, gpus: {model: T4}}]", "gpus: has no count"),
        (
            "servers: [{name: a, cpus: 1, memory: 1, gpus: {model: T4, count: 9999}}]",
            "count: must be from 0 to 1024",
        ),
        ("servers: [{name: a, cpus: 1, memory: 1, drained: 1}]", "must be true or false"),
        (
            "servers: [{name: 'n[1-3]', cpus: 1, memory: 1}, {name: n2, cpus: 1, memory: 1}]",
            "servers[1].name: there are two servers 'n2'",
        ),
        ("servers: [{name: 'n[3-1]', cpus: 1, memory: 1}]", "a range rises"),
        ("servers: [{name: 'n[1-999999999]', cpus: 1, memory: 1}]", "100000 servers are most"),
        ("servers: [{name: 'n[1-2][1-2]', cpus: 1, memory: 1}]", "one range such as"),
        ("servers: [{name: 'a b', cpus: 1, memory: 1}]", "write A-Z a-z 0-9"),
        ("servers: [{name: '', cpus: 1, memory: 1}]", "write A-Z a-z 0-9"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)
    assert "cluster.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
