"""The openb traces of a GPU cluster: servers, pods, and the published way to draw arrivals.

Pod, read_pods      what was asked for, and for how long
read_cluster        the servers with GPUs, in an order that a seed gives
arrivals            the pods that arrive, by a seed
workloads           the pod lists of a folder
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ort_optim.cluster.jobs import Resources
from ort_optim.cluster.servers import Cluster, Gpus, Server

SERVERS = "openb_node_list_gpu_node.csv"
PODS = "openb_pod_list_"
DEMAND = 1.3
"""GPUs asked for by all arrivals, over the GPUs of the cluster."""

MIB = 2**20


@dataclass(frozen=True)
class Pod:
    """One pod of a list."""

    need: Resources
    duration_s: float
    """At least a second; that, too, where the list does not say."""


def workloads(folder: Path) -> list[str]:
    """The names of the folder's pod lists, sorted."""
    return sorted(path.stem.removeprefix(PODS) for path in folder.glob(f"{PODS}*.csv"))


def read_pods(folder: Path, workload: str) -> list[Pod]:
    """A pod list in the order of the file."""
    with (folder / f"{PODS}{workload}.csv").open(newline="") as lines:
        return [_pod(row) for row in csv.DictReader(lines)]


def _pod(row: dict[str, str]) -> Pod:
    devices = int(row["num_gpu"])
    # Lists without the column leave every model open.
    models = (row.get("gpu_spec") or "").split("|") if devices else []
    need = Resources(
        milli_cpus=int(row["cpu_milli"]),
        milli_gpus=devices * int(row["gpu_milli"]),
        memory=int(row["memory_mib"]) * MIB,
        gpu_models=frozenset(filter(None, models)),
    )
    seconds = float(row.get("deletion_time") or 0) - float(row.get("creation_time") or 0)
    return Pod(need, max(1.0, seconds))


def read_cluster(folder: Path, seed: int | None = None) -> Cluster:
    """All servers with GPUs, shuffled by the seed: their order decides between equal scores.

    Without a seed they stand in the order of the file.
    """
    with (folder / SERVERS).open(newline="") as lines:
        servers = [
            Server(
                name=row["sn"],
                cls="two",
                milli_cpus=int(row["cpu_milli"]),
                memory=int(row["memory_mib"]) * MIB,
                gpus=Gpus(row["model"], int(row["gpu"])),
            )
            for row in csv.DictReader(lines)
        ]
    if seed is not None:
        order = np.random.default_rng([seed, 1]).permutation(len(servers))
        servers = [servers[place] for place in order]
    return Cluster(tuple(servers))


def arrivals(pods: list[Pod], gpus: int, seed: int) -> list[Resources]:
    """What arrives, in order: 130% of the cluster's GPUs.

    All pods of the list in an order drawn at random; then, as the published simulator does it, pods
    drawn from the list with replacement until the next one would exceed the demand; or, where the
    list itself exceeds it, without pods drawn at random.
    """
    random = np.random.default_rng(seed)
    limit = DEMAND * gpus * 1000
    needs = [pods[place].need for place in random.permutation(len(pods))]
    demand = sum(need.milli_gpus for need in needs)
    while demand > limit:
        demand -= needs.pop(int(random.integers(len(needs)))).milli_gpus
    if len(needs) == len(pods):
        while True:
            need = pods[int(random.integers(len(pods)))].need
            demand += need.milli_gpus
            if demand > limit:
                break
            needs.append(need)
    return needs
