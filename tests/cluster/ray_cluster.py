"""A real Ray cluster of four nodes on this machine, for all tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OBJECT_STORE_BYTES = 80 << 20
NODES = {"a": "one", "b": "one", "c": "two", "d": "two"}


@contextmanager
def four_nodes() -> Iterator[Any]:
    """The `Cluster`, with `a` and `b` of class one, `c` and `d` of class two; 4 CPUs, 2 GPUs each.

    No test connects this process to it for good: the backend does, and lets go again.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # So that a node that is killed counts as dead within seconds, not half a minute.
    os.environ["RAY_health_check_period_ms"] = "500"  # noqa: SIM112
    os.environ["RAY_health_check_failure_threshold"] = "3"  # noqa: SIM112
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for name in NODES:
            add_node(cluster, name)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any, name: str) -> Any:
    return cluster.add_node(
        node_name=name,
        labels={"ort-optim-class": NODES.get(name, "two")},
        num_cpus=4,
        num_gpus=2,
        memory=4 << 30,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
    )
