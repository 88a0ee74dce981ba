"""The servers of a Ray cluster, from what Ray says of its nodes; it knows no Ray itself.

A node's name is its label `ort-optim-server`, or the name it was started with (`ray start
--node-name`), which is its address when none was given. Its class is its label `ort-optim-class`
(one or two), `auto` without. A cluster file says what Ray does not know (the memory of GPUs,
labels), and which of the nodes to use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ort_optim.cluster.servers import Cluster, Gpus, Server
from ort_optim.errors import InputError

NAME_LABEL = "ort-optim-server"
CLASS_LABEL = "ort-optim-class"
MODEL_PREFIX = "accelerator_type:"


@dataclass(frozen=True)
class Node:
    """One living node of Ray, and the server it is to us."""

    id: str
    address: str
    server: Server


def nodes_of(answer: Sequence[Mapping[str, Any]]) -> dict[str, Node]:
    """The living nodes by server name, from what `ray.nodes()` gives.

    Raises InputError: two nodes of one name.
    """
    found: dict[str, Node] = {}
    for facts in sorted(answer, key=lambda facts: str(facts["NodeID"])):
        if not facts["Alive"]:
            continue
        server = _server(facts)
        if server.name in found:
            raise InputError(
                f"two nodes of the Ray cluster are called {server.name}: start them with "
                f"`ray start --node-name`, or label one with {NAME_LABEL}"
            )
        found[server.name] = Node(str(facts["NodeID"]), str(facts["NodeManagerAddress"]), server)
    return dict(sorted(found.items()))


def servers_of(nodes: Mapping[str, Node], wanted: Cluster | None) -> Cluster:
    """The servers to plan with: those of the cluster file that live, or all nodes."""
    if wanted is None:
        return Cluster(tuple(node.server for node in nodes.values()))
    return Cluster(tuple(server for server in wanted.servers if server.name in nodes))


def check_wanted(nodes: Mapping[str, Node], wanted: Cluster) -> None:
    """Raises InputError when Ray lacks servers of a cluster file, or offers less than it says."""
    missing = [server.name for server in wanted.servers if server.name not in nodes]
    if missing:
        raise InputError(
            f"the Ray cluster has no node called {_some(missing)}; its nodes are "
            f"{_some(list(nodes))}: name servers after them, or label nodes with {NAME_LABEL}"
        )
    for server in wanted.servers:
        offered = nodes[server.name].server
        for what, asked, has in (
            ("CPUs", server.milli_cpus / 1000, offered.milli_cpus / 1000),
            ("GPUs", server.devices, offered.devices),
            ("bytes of memory", server.memory, offered.memory),
        ):
            if asked > has:
                raise InputError(
                    f"server {server.name}: the cluster file says {asked:g} {what}, and Ray "
                    f"offers {has:g}: correct the file, or start the node with more"
                )


def _server(facts: Mapping[str, Any]) -> Server:
    resources: Mapping[str, float] = facts["Resources"]
    labels: Mapping[str, str] = facts.get("Labels") or {}
    models = [
        name.removeprefix(MODEL_PREFIX) for name in resources if name.startswith(MODEL_PREFIX)
    ]
    count = int(resources.get("GPU", 0))
    return Server(
        name=labels.get(NAME_LABEL) or str(facts["NodeName"] or facts["NodeManagerAddress"]),
        cls=_class(labels.get(CLASS_LABEL, "auto")),
        milli_cpus=int(resources.get("CPU", 0) * 1000),
        memory=int(resources.get("memory", 0)),
        gpus=Gpus((models or ["GPU"])[0].removeprefix(MODEL_PREFIX), count) if count else None,
        labels={key: value for key, value in labels.items() if not key.startswith("ray.io/")},
    )


def _class(label: str) -> Literal["one", "two", "auto"]:
    if label == "one":
        return "one"
    return "two" if label == "two" else "auto"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none") + more
