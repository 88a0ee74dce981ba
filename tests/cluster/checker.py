"""Is a plan possible at all? Slow, simple, and knows nothing of how the planner works."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.plan import Placement, Plan, Planned
from ort_optim.cluster.servers import Cluster, Server

Use = tuple[Planned, Placement]


def faults(
    jobs: Sequence[Job],
    cluster: Cluster,
    plan: Plan,
    running: Sequence[Planned] = (),
    now_s: float = 0.0,
    *,
    backfill: bool = False,
) -> list[str]:
    """Everything that is wrong with a plan, each fault in words; [] if nothing is."""
    found = []
    by_id = {job.id: job for job in jobs}
    servers = {server.name: server for server in cluster.servers}
    waiting = by_id.keys() - {each.job for each in running}
    named = [each.job for each in plan.planned] + [each.job for each in plan.refused]
    if sorted(named) != sorted(waiting):
        found.append(f"planned and refused {named} are not the jobs {sorted(waiting)}")
    for name, server in servers.items():
        if plan.classes[name] != server.cls and server.cls != "auto":
            found.append(f"{name} is of class {server.cls}, not {plan.classes[name]}")
    starts = {each.job: each.start_s for each in plan.planned}
    ends = {each.job: each.end_s for each in [*plan.planned, *running]}
    for each in plan.planned:
        job = by_id[each.job]
        if each.start_s < now_s or each.end_s != each.start_s + job.duration_s:
            found.append(f"{job.id}: runs from {each.start_s} to {each.end_s}")
        for other in job.after:
            if other in waiting and other not in starts:
                found.append(f"{job.id}: waits for {other}, which is not planned")
            elif ends.get(other, now_s) > each.start_s:
                found.append(f"{job.id}: starts before {other} ends")
        found += [
            f"{job.id}: {fault}" for fault in _need_faults(job, each, servers, plan, backfill)
        ]
    here: dict[str, list[Use]] = {}
    for each in [*plan.planned, *running]:
        for placement in each.placements:
            here.setdefault(placement.server, []).append((each, placement))
    for server in cluster.servers:
        found += _capacity_faults(server, here.get(server.name, []))
    return found


def _need_faults(
    job: Job,
    planned: Planned,
    servers: Mapping[str, Server],
    plan: Plan,
    backfill: bool,
) -> Iterable[str]:
    """What a job has against what it asked for."""
    need = job.resources
    names = [placement.server for placement in planned.placements]
    if len(set(names)) != len(names) or not names:
        yield f"placed on {names}"
        return
    classes = {plan.classes[name] for name in names}
    whole = classes == {"one"} and all(_is_all(each, servers) for each in planned.placements)
    if not whole and (len(names) > 1 or need.servers or not (classes == {"two"} or backfill)):
        yield f"placed on {names} of class {classes}, and not as whole machines of class one"
        return
    for placement in planned.placements:
        server = servers[placement.server]
        if server.drained:
            yield f"placed on {server.name}, which is drained"
        if need.gpu_models and (server.gpus is None or server.gpus.model not in need.gpu_models):
            yield f"placed on {server.name}, which has another model of GPU"
        if any(server.labels.get(key) != value for key, value in need.labels.items()):
            yield f"placed on {server.name}, which has other labels"
        if need.gpu_memory and (server.gpus is None or server.gpus.memory < need.gpu_memory):
            yield f"placed on {server.name}, whose GPUs have less memory"
    if whole:
        devices = sum(map(len, _devices(planned)))
        if need.servers and len(names) != need.servers:
            yield f"has {len(names)} servers, not {need.servers}"
        if devices * 1000 < need.milli_gpus * max(1, need.servers):
            yield f"has {devices} devices"
        for amount in ("milli_cpus", "memory"):
            has = [getattr(placement, amount) for placement in planned.placements]
            enough = min(has) if need.servers else sum(has)
            if enough < getattr(need, amount):
                yield f"has too little: {amount}"
    else:
        (placement,) = planned.placements
        wanted = (
            [(need.milli_gpus)]
            if 0 < need.milli_gpus < 1000
            else [1000] * (need.milli_gpus // 1000)
        )
        if sorted(share for _, share in placement.devices) != wanted:
            yield f"has devices {placement.devices}"
        if len({device for device, _ in placement.devices}) != len(placement.devices):
            yield f"has a device twice: {placement.devices}"
        if (placement.milli_cpus, placement.memory) != (need.milli_cpus, need.memory):
            yield "has other CPUs or memory than it asked for"
        if placement.devices and placement.gpu_memory != need.gpu_memory:
            yield "has other GPU memory than it asked for"


def _devices(planned: Planned) -> list[tuple[tuple[int, int], ...]]:
    return [placement.devices for placement in planned.placements]


def _is_all(placement: Placement, servers: Mapping[str, Server]) -> bool:
    server = servers[placement.server]
    return (
        placement.milli_cpus == server.milli_cpus
        and placement.memory == server.memory
        and placement.devices == tuple((device, 1000) for device in range(server.devices))
    )


def _capacity_faults(server: Server, here: Sequence[Use]) -> Iterable[str]:
    """Use of one server at each moment at which something starts."""
    for start_s in sorted({max(0.0, entry.start_s) for entry, _ in here}):
        now = [
            (entry.job, placement)
            for entry, placement in here
            if entry.start_s <= start_s < (entry.end_s if entry.end_s > entry.start_s else math.inf)
        ]
        told = f"{server.name} at {start_s} s, with {[name for name, _ in now]}"
        if sum(placement.milli_cpus for _, placement in now) > server.milli_cpus:
            yield f"{told}: too many CPUs"
        if sum(placement.memory for _, placement in now) > server.memory:
            yield f"{told}: too much memory"
        for device in range(server.devices):
            shares = [
                (share, placement.gpu_memory)
                for _, placement in now
                for index, share in placement.devices
                if index == device
            ]
            if sum(share for share, _ in shares) > 1000:
                yield f"{told}: too much of device {device}"
            assert server.gpus is not None
            if sum(memory for _, memory in shares) > server.gpus.memory:
                yield f"{told}: too much memory of device {device}"
        if any(index >= server.devices for _, placement in now for index, _ in placement.devices):
            yield f"{told}: a device that is not there"
