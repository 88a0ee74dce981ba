"""The makespan of an openb pod list, planned as a batch with the durations of the trace."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from _openb import read_cluster, read_pods

from ort_optim.cluster.capacity import Inventory
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.planner import plan
from ort_optim.cluster.scoring import room_chooser

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

    workload: str
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
            f"{self.workload}: {self.jobs} jobs end after {self.makespan_s / HOUR_S:.1f} h, "
            f"{self.makespan_s / bound:.3f} of the lower bound (area {self.area_s / HOUR_S:.1f} h, "
            f"longest {self.longest_s / HOUR_S:.1f} h), mean wait {self.waiting_s:.0f} s, "
            f"{self.refused} refused, "
            f"planned in {self.seconds:.1f} s"
        )


def simulate(folder: Path, workload: str) -> Makespan:
    """Plan a list with our policy."""
    pods = read_pods(folder, workload)
    cluster = read_cluster(folder)
    inventory = Inventory.of(cluster)
    jobs = [
        Job(
            id=f"{number:05}",
            model=None,
            output=None,
            options={},
            command=("true",),
            resources=pod.need,
            duration_s=pod.duration_s,
        )
        for number, pod in enumerate(pods)
    ]
    start = time.process_time()
    choose = room_chooser((pod.need for pod in pods), inventory)
    made = plan(jobs, cluster, choose=choose)
    seconds = time.process_time() - start
    gpus = sum(pod.need.milli_gpus * pod.duration_s for pod in pods)
    cpus = sum(pod.need.milli_cpus * pod.duration_s for pod in pods)
    return Makespan(
        workload=workload,
        jobs=len(made.planned),
        refused=len(made.refused),
        makespan_s=max(each.end_s for each in made.planned),
        area_s=max(
            gpus / float(inventory.device_milli.sum()), cpus / float(inventory.milli_cpus.sum())
        ),
        longest_s=max(pod.duration_s for pod in pods),
        waiting_s=statistics.mean(each.start_s for each in made.planned),
        seconds=seconds,
    )
