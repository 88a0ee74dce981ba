"""Ray: the only module that imports it.

connect             a backend on Ray on this machine, or on a cluster that is there
find_job            from another program: `debug` and `logs` of jobs on other machines
RayDoor             Ray as `actor_backend` needs it
"""

from __future__ import annotations

import functools
import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psutil

from ort_optim.cluster.ray.actor_backend import ActorBackend
from ort_optim.cluster.ray.door import LOCAL, Died, Raised
from ort_optim.cluster.ray.ray_slots import actor_prefix
from ort_optim.cluster.servers import Cluster, Gpus, Server
from ort_optim.errors import InputError, OrtOptimError

if TYPE_CHECKING:
    from ort_optim.hardware import Target

NAMESPACE = "ort_optim"
RAY_MISSING = 'running jobs needs Ray, which is not installed: pip install "ort_optim[cluster]"'
OBJECT_STORE_BYTES = 256 << 20  # of Ray on this machine; only --transfer puts much in it
CONNECT_S = 10.0
SHARE_OF_MEMORY = 0.9  # of this machine, for jobs


def connect(
    address: str | None, state: Path, wanted: Cluster | None = None, *, transfer: bool = False
) -> ActorBackend:
    """Ray on this machine for None and `local`; else the cluster at that address, or `auto`.

    Raises InputError: Ray is not installed, no cluster is there, or it is not as `wanted` says.
    """
    if address in (None, LOCAL):
        door = RayDoor(LOCAL, **_this_machine(wanted))
    else:
        door = RayDoor(str(address), address=address)
    try:
        return ActorBackend(door, state, wanted, transfer=transfer)
    except BaseException:
        door.close()
        raise


class RemoteJob:
    """The actor of a process of a job, from another program than the submitter.

    Raises InputError: no cluster at that address, or no actor of the job on it.
    """

    def __init__(self, address: str, state: Path, job: str, attempt: int, rank: int) -> None:
        self._door = RayDoor(address, address=address)
        ray = self._door.ray
        prefix = actor_prefix(state, job, attempt, rank)
        names = [name for name in ray.util.list_named_actors() if name.startswith(prefix)]
        if not names:
            self._door.close()
            raise InputError(f"job {job} has no supervisor on the cluster: is its submitter alive?")
        newest = max(names, key=lambda name: int(name.removeprefix(prefix)))
        self._actor = ray.get_actor(newest)

    def call(self, method: str, *arguments: Any) -> Any:
        """The answer of a method of `JobActor`. Raises OrtOptimError: there was none."""
        answer = self._door.result(getattr(self._actor, method).remote(*arguments))
        if isinstance(answer, Died | Raised):
            raise OrtOptimError(f"the job's supervisor gave no answer: {answer.reason}")
        return answer

    def close(self) -> None:
        self._door.close()


class RayDoor:
    """See `Door`.

    Args:
        name: The address that others use.
        options: For `ray.init`.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.ray = _import_ray()
        # Once for each class: Ray disassembles and exports it every time.
        self._remote_class = functools.cache(self.ray.remote)
        self.address = name
        _check_listens(name)
        try:
            context = self.ray.init(
                namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", **options
            )
        except Exception as error:  # Ray has many kinds for this
            raise InputError(f"no Ray cluster at {name}: {_line(error)}") from None
        if name == "auto":
            self.address = str(context.address_info["gcs_address"])

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.ray.nodes()
        return found

    def group(self, bundles: Sequence[Mapping[str, float]], nodes: Sequence[str]) -> Any:
        return self.ray.util.placement_group(
            [dict(bundle) for bundle in bundles],
            strategy="STRICT_PACK" if len(bundles) == 1 else "STRICT_SPREAD",
            bundle_label_selector=[{"ray.io/node-id": node} for node in nodes],
        )

    def has_room(self, group: Any) -> bool:
        return bool(self.ray.util.placement_group_table(group)["state"] == "CREATED")

    def remove_group(self, group: Any) -> None:
        self.ray.util.remove_placement_group(group)

    def actor(
        self,
        cls: type,
        arguments: tuple[Any, ...],
        *,
        name: str,
        node: str,
        place: tuple[Any, int] | None,
    ) -> Any:
        from ray.util import scheduling_strategies as strategies

        strategy: Any
        if place is None:
            strategy = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        else:
            group, index = place
            strategy = strategies.PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=index
            )
        options = {
            "name": name,
            "namespace": NAMESPACE,
            "num_cpus": 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 8,
            "scheduling_strategy": strategy,
        }
        return self._remote_class(cls).options(**options).remote(*arguments)

    def kill(self, actor: Any) -> None:
        self.ray.kill(actor, no_restart=True)

    def wait(self, references: Sequence[Any], timeout_s: float) -> Sequence[Any]:
        if not references:
            return []
        every = list(references)
        if not self.ray.wait(every, num_returns=1, timeout=timeout_s)[0]:
            return []
        ready: Sequence[Any] = self.ray.wait(every, num_returns=len(every), timeout=0)[0]
        return ready

    def result(self, reference: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except (errors.RayActorError, errors.ActorUnschedulableError) as error:
            text = str(error)
            return Died(_line(error), unborn="creation task" in text)
        except errors.RayTaskError as error:
            return Raised(_line(error))
        except errors.RayError as error:
            raise OrtOptimError(
                f"the Ray cluster is gone ({_line(error)}): submit again to go on"
            ) from None

    def close(self) -> None:
        self.ray.shutdown()


def _import_ray() -> ModuleType:
    # Read when Ray is imported: no reports to its makers; which devices a job sees, we say.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.util
    except ImportError:
        raise InputError(RAY_MISSING) from None
    module: ModuleType = ray
    return module


def _check_listens(address: str) -> None:
    """Ray itself tries for minutes. Raises InputError: nothing answers at HOST:PORT."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise InputError(f"no Ray cluster at {address}: {error.strerror or error}") from None


def _this_machine(wanted: Cluster | None) -> dict[str, Any]:
    """Options of `ray.init` for Ray on this machine alone."""
    server = _server_here(wanted)
    return {
        "address": LOCAL,
        "num_cpus": math.ceil(server.milli_cpus / 1000),
        "num_gpus": server.devices,
        "_memory": server.memory,
        "_node_name": server.name,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


def _server_here(wanted: Cluster | None) -> Server:
    if wanted is not None:
        if len(wanted.servers) != 1:
            raise InputError(
                f"the cluster file has {len(wanted.servers)} servers, and Ray on this machine is "
                "one: give the --address of a cluster, or a file with one server"
            )
        return wanted.servers[0]
    from ort_optim.hardware import detect

    target = detect()
    memory = target.memory_limit_bytes or target.memory_bytes or psutil.virtual_memory().total
    return Server(
        name=socket.gethostname(),
        cls="auto",
        milli_cpus=target.cores * 1000,
        memory=int(memory * SHARE_OF_MEMORY),
        gpus=_gpus(target),
    )


def _gpus(target: Target) -> Gpus | None:
    if not target.gpus:
        return None
    least = min(gpu.memory_bytes or 0 for gpu in target.gpus)
    return Gpus(target.gpus[0].name, len(target.gpus), least)


def _line(error: Exception) -> str:
    """The last line that says something, without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
