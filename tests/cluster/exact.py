"""The shortest makespan there is, by a constraint solver, from the rules alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.servers import Cluster, Server


def shortest_makespan(jobs: Sequence[Job], cluster: Cluster, seconds: float = 20.0) -> int:
    """The optimum in seconds; durations are whole seconds, servers of class one or two, not auto.

    A job of whole machines takes `servers` of class one; any other one server of class two.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    horizon = int(sum(job.duration_s for job in jobs))
    ends: dict[str, Any] = {}
    starts: dict[str, Any] = {}
    machines: dict[str, list[Any]] = {}
    cpus: dict[str, list[tuple[Any, int]]] = {}
    devices: dict[tuple[str, int], list[tuple[Any, int]]] = {}
    for job in jobs:
        duration = int(job.duration_s)
        start = starts[job.id] = model.new_int_var(0, horizon, "")
        ends[job.id] = start + duration

        def present(when: Any, start: Any = start, duration: int = duration) -> Any:
            return model.new_optional_fixed_size_interval_var(start, duration, when, "")

        need = job.resources
        side = "one" if need.servers else "two"
        chosen = {each.name: model.new_bool_var("") for each in cluster.servers if each.cls == side}
        model.add(sum(chosen.values()) == max(1, need.servers))
        for server in cluster.servers:
            if server.cls != side:
                continue
            here = chosen[server.name]
            if need.servers:
                machines.setdefault(server.name, []).append(present(here))
                continue
            cpus.setdefault(server.name, []).append((present(here), need.milli_cpus))
            if need.milli_gpus:
                _give_devices(model, present, devices, server, here, need.milli_gpus)
    for each in jobs:
        for other in each.after:
            model.add(starts[each.id] >= ends[other])
    for intervals in machines.values():
        model.add_no_overlap(intervals)
    for server in cluster.servers:
        uses = [(cpus.get(server.name, []), server.milli_cpus)]
        uses += [(devices.get((server.name, i), []), 1000) for i in range(server.devices)]
        for entries, limit in uses:
            model.add_cumulative([one for one, _ in entries], [n for _, n in entries], limit)
    makespan = model.new_int_var(0, horizon, "")
    for end in ends.values():
        model.add(makespan >= end)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = seconds
    assert solver.solve(model) == cp_model.OPTIMAL
    return int(solver.objective_value)


def _give_devices(
    model: Any,
    present: Any,
    devices: dict[tuple[str, int], list[tuple[Any, int]]],
    server: Server,
    here: Any,
    milli_gpus: int,
) -> None:
    share = min(milli_gpus, 1000)
    uses = [model.new_bool_var("") for _ in range(server.devices)]
    model.add(sum(uses) == milli_gpus // share * here)
    for index, use in enumerate(uses):
        devices.setdefault((server.name, index), []).append((present(use), share))
