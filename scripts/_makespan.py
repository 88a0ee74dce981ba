"""The makespan of an openb pod list, planned as a batch with the durations of the trace.

Makespan    a plan against its lower bound
simulate    a list as it is planned, and first come, first served
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from _openb import Pod, read_cluster, read_pods

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.capacity import Inventory
from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.servers import Cluster

HOUR_S = 3600.0


@dataclass(frozen=True)
class Makespan:
    """A plan of all pods of a list, ready at once.

    Attributes:
        makespan_s: The end of the last job.
        area_s: All GPU seconds over all GPUs, or all CPU seconds over all CPUs: the larger.
        longest_s: The longest job.
        waiting_s: Mean time from ready to start.
        seconds: CPU time of this process to plan.
    """

    name: str
    jobs: int
    refused: int
    makespan_s: float
    area_s: float
    longest_s: float
    waiting_s: float
    seconds: float

    def line(self) -> str:
        """All of it in one line."""
        bound = max(self.area_s, self.longest_s)
        return (
            f"{self.name}: {self.jobs} jobs end after {self.makespan_s / HOUR_S:.1f} h, "
            f"{self.makespan_s / bound:.3f} of the lower bound (area {self.area_s / HOUR_S:.1f} h, "
            f"longest {self.longest_s / HOUR_S:.1f} h), mean wait {self.waiting_s:.0f} s, "
            f"{self.refused} refused, "
            f"planned in {self.seconds:.1f} s"
        )


def simulate(
    folder: Path, workload: str, every: int = 1, longest_h: float = math.inf
) -> list[Makespan]:
    """Plan a list whose jobs are ready at once, and as if they came one after another.

    Args:
        every: Of so many servers only the first is there: as a whole the cluster is so large that
            the longest job alone is the bound.
        longest_h: Jobs that last longer are left out, for the same reason.

    Raises ValueError where no job is left.
    """
    pods = [pod for pod in read_pods(folder, workload) if pod.duration_s <= longest_h * HOUR_S]
    cluster = Cluster(read_cluster(folder).servers[::every])
    if not pods:
        raise ValueError(f"{workload} has no job of up to {longest_h} h")
    return [
        _simulate(pods, cluster, f"{workload}, as they came", apart_s=1e-6),
        _simulate(pods, cluster, f"{workload}, longest first", apart_s=0.0),
    ]


def _simulate(pods: list[Pod], cluster: Cluster, name: str, apart_s: float) -> Makespan:
    """`apart_s`: how long before now the last job became ready, the one before it twice as long."""
    inventory = Inventory.of(cluster)
    jobs = [
        Job(
            id=f"{number:05}",
            command=("true",),
            resources=pod.need,
            duration_s=pod.duration_s,
        )
        for number, pod in enumerate(pods)
    ]
    ready_s = {job.id: (number - len(jobs)) * apart_s for number, job in enumerate(jobs)}
    start = time.process_time()
    made = plan(jobs, cluster, ready_s=ready_s)
    seconds = time.process_time() - start
    done = [pods[int(each.job)] for each in made.planned]
    gpus = sum(pod.need.milli_gpus * pod.duration_s for pod in done)
    cpus = sum(pod.need.milli_cpus * pod.duration_s for pod in done)
    return Makespan(
        name=name,
        jobs=len(made.planned),
        refused=len(made.refused),
        makespan_s=max(each.end_s for each in made.planned),
        area_s=max(
            gpus / float(inventory.device_milli.sum()), cpus / float(inventory.milli_cpus.sum())
        ),
        longest_s=max(pod.duration_s for pod in done),
        waiting_s=statistics.mean(each.start_s for each in made.planned),
        seconds=seconds,
    )
