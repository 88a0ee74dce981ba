"""Ray's nodes as servers: names, classes, devices, and how they fit a cluster file."""

import pytest

from ort_optim.cluster.ray.ray_servers import check_wanted, nodes_of, servers_of
from ort_optim.cluster.servers import Cluster, Gpus, Server
from ort_optim.errors import InputError


def node(name: str, *, alive: bool = True, labels=None, **resources) -> dict:
    return {
        "NodeID": f"id-{name}",
        "NodeName": name,
        "NodeManagerAddress": "10.0.0.1",
        "Alive": alive,
        "Resources": {"CPU": 8.0, "memory": 1e9, "node:10.0.0.1": 1.0, **resources},
        "Labels": {"ray.io/node-id": f"id-{name}", **(labels or {})},
    }


def test_a_node_becomes_a_server_with_its_devices_labels_and_class():
    facts = node(
        "n", labels={"ort-optim-class": "one", "zone": "x"}, GPU=2.0, **{"accelerator_type:A100": 1}
    )
    found = nodes_of([facts])["n"]
    assert (found.id, found.address) == ("id-n", "10.0.0.1")
    assert found.server == Server(
        "n", "one", 8000, 10**9, Gpus("A100", 2), {"ort-optim-class": "one", "zone": "x"}
    )


def test_a_label_names_a_node_and_without_a_class_the_planner_decides():
    found = nodes_of([node("10.0.0.1", labels={"ort-optim-server": "big"})])
    assert [(name, each.server.cls) for name, each in found.items()] == [("big", "auto")]
    assert found["big"].server.gpus is None


def test_dead_nodes_are_no_servers():
    assert list(nodes_of([node("a"), node("b", alive=False)])) == ["a"]


def test_two_nodes_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"two nodes .* are called a"):
        nodes_of([node("a"), {**node("a"), "NodeID": "other"}])


def test_the_order_of_nodes_does_not_matter():
    nodes = [node(name) for name in "cab"]
    assert list(nodes_of(nodes)) == list(nodes_of(nodes[::-1])) == ["a", "b", "c"]


def test_a_cluster_file_says_which_nodes_and_what_they_are():
    nodes = nodes_of([node("a"), node("b")])
    wanted = Cluster((Server("b", "two", 4000, 0), Server("gone", "two", 1, 0)))
    assert servers_of(nodes, wanted) == Cluster((wanted.servers[0],))
    assert [server.name for server in servers_of(nodes, None).servers] == ["a", "b"]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Server("z", "two", 1, 0), "no node called z; its nodes are a"),
        (Server("a", "two", 9000, 0), "says 9 CPUs, and Ray offers 8"),
        (Server("a", "two", 1, 2 * 10**9), "bytes of memory"),
        (Server("a", "two", 1, 0, Gpus("A100", 1)), "says 1 GPUs, and Ray offers 0"),
    ],
)
def test_a_cluster_file_that_ray_can_not_keep_is_refused(server, message):
    with pytest.raises(InputError, match=message):
        check_wanted(nodes_of([node("a")]), Cluster((server,)))
