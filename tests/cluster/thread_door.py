"""A cluster without Ray: actors are objects of this process, their calls run in threads.

The keepers are real ones. So the backend is tested with all it does but Ray's own part.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    wait,
)
from typing import Any

from ort_optim.cluster.ray.door import LOCAL, Died, Raised


class _Method:
    def __init__(self, door: ThreadDoor, actor: Actor, name: str) -> None:
        self._door, self._actor, self._name = door, actor, name

    def remote(self, *arguments: Any) -> Future[Any]:
        return self._door.submit(self._actor, self._name, arguments)


class Actor:
    """Stands for an object; `door.kill` makes it die."""

    def __init__(self, door: ThreadDoor, made: Any) -> None:
        self._door = door
        self.made = made
        self.calls: list[Future[Any]] = []

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._door, self, name)


class ThreadDoor:
    """See `Door`. `servers` are the nodes; those in `full` have no room for groups."""

    def __init__(self, *servers: str, address: str = LOCAL, cpus: int = 4, gpus: int = 2) -> None:
        self.address = address
        self.servers = list(servers)
        self.full: set[str] = set()
        self.groups: dict[int, list[tuple[str, Mapping[str, float]]]] = {}
        self.actors: list[Actor] = []
        self._pool = ThreadPoolExecutor(64)
        self._numbers = itertools.count()
        self._cpus, self._gpus = cpus, gpus

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        resources = {"CPU": self._cpus, "GPU": self._gpus, "memory": 1 << 33}
        return [
            {
                "NodeID": f"id-{name}",
                "NodeName": name,
                "NodeManagerAddress": f"address-of-{name}",
                "Alive": True,
                "Resources": resources,
                "Labels": {"ray.io/node-id": f"id-{name}"},
            }
            for name in self.servers
        ]

    def group(self, bundles: Sequence[Mapping[str, float]], nodes: Sequence[str]) -> int:
        number = next(self._numbers)
        servers = [node.removeprefix("id-") for node in nodes]
        self.groups[number] = list(zip(servers, bundles, strict=True))
        return number

    def has_room(self, group: int) -> bool:
        return not self.full & {server for server, _ in self.groups[group]}

    def remove_group(self, group: int) -> None:
        del self.groups[group]

    def actor(
        self,
        cls: type,
        arguments: tuple[Any, ...],
        *,
        name: str,
        node: str,
        place: tuple[Any, int] | None,
    ) -> Actor:
        waits = place is not None and not self.has_room(place[0])
        if place is not None:
            assert self.groups[place[0]][place[1]][0] == node.removeprefix("id-")
        try:
            made = None if waits else cls(*arguments)
        except Exception as error:
            made = Died(str(error), unborn=True)
        actor = Actor(self, made)
        self.actors.append(actor)
        return actor

    def submit(self, actor: Actor, name: str, arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        actor.calls.append(future)
        if isinstance(actor.made, Died):
            future.set_result(actor.made)
        elif actor.made is not None:  # else it waits for room for ever

            def call() -> None:
                try:
                    answer = getattr(actor.made, name)(*arguments)
                except Exception as error:
                    answer = Raised(str(error))
                with contextlib.suppress(InvalidStateError):  # the actor was killed meanwhile
                    future.set_result(answer)

            self._pool.submit(call)
        return future

    def kill(self, actor: Actor) -> None:
        actor.made = Died("killed")
        for call in actor.calls:
            with contextlib.suppress(InvalidStateError):
                call.set_result(actor.made)

    def wait(self, references: Sequence[Future[Any]], timeout_s: float) -> Sequence[Future[Any]]:
        return list(wait(references, timeout_s, FIRST_COMPLETED).done) if references else []

    def result(self, reference: Future[Any]) -> Any:
        return reference.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
