"""Jobs as actors on a cluster: each process of a job has one, and it drives the keeper there.

    ActorBackend        a `Backend` over what `Door` says a cluster can do, in this order:
                        the methods of Backend; groups and actors; what comes back; what goes
                        wrong; orders; the cluster

Which node and which devices a job gets is our planner's choice: groups are pinned by node, the
devices go to the job by its environment. So that Ray's count of GPUs can't disagree with the plan,
a device that jobs share is taken from it as a whole, by a group that lasts as long as they do.

Keepers outlive actors. An actor that dies with its node alive is replaced by one that finds the
keeper; when the node is gone, the job is lost, and the keeper with it: it ends with the raylet. On
this machine alone (`local`) keepers are not bound to Ray's processes, which end with the submitter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ort_optim._version import __version__
from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.status import Status
from ort_optim.cluster.plan import Placement
from ort_optim.cluster.ray import ray_slots
from ort_optim.cluster.ray.door import LOCAL, Died, Door, Raised
from ort_optim.cluster.ray.ray_actor import Found, JobActor
from ort_optim.cluster.ray.ray_servers import Node, check_wanted, nodes_of, servers_of
from ort_optim.cluster.ray.ray_slots import Again, Call, Pending, Process, Shared, Slot
from ort_optim.cluster.ray.transfer import deliver, pack
from ort_optim.cluster.servers import Cluster
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting.backend import Gone, News, Order, OrderKind
from ort_optim.cluster.submitting.gang import ENDED, environment_of, folder_of, members_of
from ort_optim.errors import InputError, OrtOptimError

ROOM_S = 20.0  # Ray has so long to make room where we know there is some
WATCH_S = 20.0
AGAIN_S = 0.5  # before an actor that died is replaced
NODES_S = 0.5  # so long Ray's word on its nodes counts
SUSPECT_S = 10.0


class ActorBackend:
    """Jobs on the cluster behind a door; see `Backend` for the methods.

    Args:
        door: To the cluster.
        state: The state folder.
        wanted: The cluster file, where there is one.
        transfer: Models and outputs go through the object store.
    """

    def __init__(
        self, door: Door, state: Path, wanted: Cluster | None = None, *, transfer: bool = False
    ) -> None:
        self.address = door.address
        self.outlives = door.address != LOCAL
        self._door = door
        self._state = state.absolute()
        self._wanted = wanted
        self._transfer = transfer
        self._slots: dict[str, Slot] = {}
        self._calls: dict[Any, Call] = {}
        self._again: list[Again] = []
        self._shared: dict[tuple[str, int], Shared] = {}  # by server and index
        self._news: list[News] = []
        self._suspect: dict[str, float] = {}  # servers that get nothing new until then
        self._nodes: dict[str, Node] = {}
        self._nodes_s = 0.0
        if wanted is not None:
            check_wanted(self._alive(), wanted)

    def cluster(self) -> Cluster:
        found = servers_of(self._alive(), self._wanted).servers
        now_s = time.monotonic()
        return Cluster(tuple(each for each in found if self._suspect.get(each.name, 0.0) <= now_s))

    def start(self, job: Job, placements: tuple[Placement, ...], attempt: int) -> None:
        self._begin(job, placements, attempt, "start")

    def attach(self, job: Job, placements: tuple[Placement, ...], attempt: int) -> None:
        self._begin(job, placements, attempt, "attach")

    def order(self, order: Order) -> None:
        slot = self._slots.get(order.job)
        if slot is None:
            self._news.append(News(order.job, 0, order=order.number, refused="it has no slot"))
        elif not slot.known:
            slot.waiting.append(order)
        else:
            self._give(slot, order)

    def poll(self, timeout_s: float) -> Sequence[News]:
        self._make_again()
        self._give_up_waiting_for_room()
        if self._calls and not self._news:
            ready = self._door.wait(list(self._calls), timeout_s)
        else:
            ready = self._door.wait(list(self._calls), 0.0)
            if not self._news:
                time.sleep(timeout_s)
        for reference in ready:
            self._take(reference)
        news, self._news = self._news, []
        return news

    def forget(self, job: str) -> None:
        slot = self._slots.pop(job, None)
        if slot is None:
            return
        for process in slot.processes:
            if process.actor is not None:
                self._door.kill(process.actor)
        self._door.remove_group(slot.group)
        for device in ray_slots.shared_devices(slot.placements):
            shared = self._shared[device]
            shared.users.discard(job)
            if not shared.users:
                self._door.remove_group(shared.group)
                del self._shared[device]
        self._calls = {ref: call for ref, call in self._calls.items() if call.slot is not slot}
        self._again = [again for again in self._again if again.slot is not slot]

    def close(self) -> None:
        self._door.close()

    # Beginning: groups and actors

    def _begin(
        self,
        job: Job,
        placements: tuple[Placement, ...],
        attempt: int,
        how: Literal["start", "attach"],
    ) -> None:
        self.forget(job.id)
        alive = self._alive()
        missing = [each.server for each in placements if each.server not in alive]
        if missing:
            reason = f"server {missing[0]} is not in the cluster any more"
            self._news.append(News(job.id, attempt, gone=Gone.SERVER, reason=reason))
            return
        base = ray_slots.local_base(self._state) if self._transfer else self._state
        slot = Slot(
            job=job,
            placements=placements,
            attempt=attempt,
            processes=[
                Process(rank, placement, folder_of(base, job.id, rank), how)
                for rank, placement in enumerate(members_of(job, placements))
            ],
            group=self._group(ray_slots.bundles(placements), [each.server for each in placements]),
            begun_s=time.monotonic(),
        )
        self._slots[job.id] = slot
        for device in ray_slots.shared_devices(placements):
            if device not in self._shared:
                self._shared[device] = Shared(self._group([{"GPU": 1}], [device[0]]))
            self._shared[device].users.add(job.id)
        for process in slot.processes:
            self._make_actor(slot, process)

    def _make_actor(self, slot: Slot, process: Process) -> None:
        node = self._alive().get(process.placement.server)
        if node is None:
            self._lose(slot, process, f"server {process.placement.server} died")
            return
        process.generation += 1
        fresh = process.begin == "start" and process.status is None
        process.actor = self._door.actor(
            JobActor,
            (process.folder, __version__, self.outlives),
            name=ray_slots.actor_name(self._state, slot, process),
            node=node.id,
            # A keeper that is there already has its place, whether there is room or not.
            place=(slot.group, process.rank) if fresh else None,
        )
        if not fresh:
            reference = process.actor.attach.remote(slot.attempt)
        else:
            env = environment_of(
                process.rank,
                slot.placements,
                {name: each.address for name, each in self._alive().items()},
            )
            try:
                parcel = pack(slot.job) if self._transfer else None
            except InputError as error:
                self._end(slot, Gone.REFUSED, str(error))
                return
            reference = process.actor.start.remote(
                slot.job,
                process.placement,
                slot.attempt,
                env,
                None if self._transfer else self._state,
                parcel,
            )
        self._calls[reference] = Call(slot, process, process.generation, "begin")

    def _group(self, wanted: list[dict[str, float]], servers: list[str]) -> Any:
        alive = self._alive()
        return self._door.group(wanted, [alive[server].id for server in servers])

    def _give_up_waiting_for_room(self) -> None:
        late = time.monotonic() - ROOM_S
        for slot in list(self._slots.values()):
            if slot.begun_s > late or slot.known or slot.processes[0].begin != "start":
                continue
            if self._door.has_room(slot.group):
                slot.begun_s = time.monotonic()  # it is only slow
            else:
                servers = ", ".join(sorted({each.server for each in slot.placements}))
                self._end(slot, Gone.NO_ROOM, f"Ray has no room on {servers}: others use it")

    # What comes back

    def _take(self, reference: Any) -> None:
        call = self._calls.pop(reference, None)
        if call is None or call.generation != call.process.generation:
            return  # its slot is gone, or its actor was given up
        answer = self._door.result(reference)
        if isinstance(answer, Died):
            if answer.unborn and call.what == "begin":
                self._end(call.slot, Gone.REFUSED, answer.reason)
            else:
                self._actor_died(call)
        elif isinstance(answer, Raised):
            self._actor_raised(call, answer.reason)
        else:
            getattr(self, f"_take_{call.what}")(call, answer)

    def _take_begin(self, call: Call, answer: Found) -> None:
        status, gone, reason = answer
        slot, process = call.slot, call.process
        if status is not None:
            self._know(slot, process, status)
        elif process.status is not None or (gone is Gone.NEVER and len(slot.processes) > 1):
            self._lose(slot, process, reason)
        else:
            self._end(slot, gone or Gone.REFUSED, reason)

    def _take_watch(self, call: Call, status: Status) -> None:
        self._know(call.slot, call.process, status)

    def _take_order(self, call: Call, answer: tuple[Status, str]) -> None:
        status, refused = answer
        self._know(call.slot, call.process, status, watch=False)
        self._answered(call, refused)

    def _take_collect(self, call: Call, parcel: Any) -> None:
        call.slot.delivered = True
        try:
            deliver(parcel, call.slot.job, folder_of(self._state, call.slot.job.id, 0))
        except (OSError, OrtOptimError) as error:
            self._end(call.slot, Gone.REFUSED, f"its output can't be written: {error}")
            return
        self._tell(call.slot)

    def _know(self, slot: Slot, process: Process, status: Status, *, watch: bool = True) -> None:
        process.learn(status)
        if status.state is State.LOST:
            self._lose(slot, process, status.cause)
            return
        if not process.over and watch:
            reference = process.actor.watch.remote(process.status, WATCH_S)
            self._calls[reference] = Call(slot, process, process.generation, "watch")
        if slot.known:
            waiting, slot.waiting = slot.waiting, []
            for order in waiting:
                self._give(slot, order)
        if slot.lost:
            self._end_when_all_are(slot)
        else:
            self._tell(slot)

    def _tell(self, slot: Slot) -> None:
        """Tell how the job stands; that it is over, only when nothing is left to do for it."""
        status = slot.status()
        if status is None:
            return
        over = status.state in ENDED
        if over and slot.pending:
            return  # an archive may still be written
        if over and self._transfer and not slot.delivered:
            self._fetch(slot)
            return
        if status != slot.told:
            slot.told = status
            self._news.append(News(slot.job.id, slot.attempt, status))
        self._news += [replace(answer, status=status) for answer in slot.answers]
        slot.answers.clear()

    def _fetch(self, slot: Slot) -> None:
        if not slot.fetching:
            slot.fetching = True
            process = slot.processes[0]
            reference = process.actor.collect.remote(slot.job)
            self._calls[reference] = Call(slot, process, process.generation, "collect")

    # What goes wrong

    def _actor_died(self, call: Call) -> None:
        slot, process = call.slot, call.process
        if call.what == "order":
            self._answered(call, "its supervisor died meanwhile: look how it is, then ask again")
        process.generation += 1  # what else was asked of this actor counts no more
        slot.fetching = False
        if process.placement.server not in self._alive(fresh=True):
            self._lose(slot, process, f"server {process.placement.server} died")
        else:
            self._again.append(Again(time.monotonic() + AGAIN_S, slot, process))

    def _actor_raised(self, call: Call, reason: str) -> None:
        if call.what == "order":
            self._answered(call, reason)
        else:
            self._lose(call.slot, call.process, reason)

    def _make_again(self) -> None:
        now_s = time.monotonic()
        due = [again for again in self._again if again.at_s <= now_s]
        self._again = [again for again in self._again if again.at_s > now_s]
        for again in due:
            self._make_actor(again.slot, again.process)

    def _lose(self, slot: Slot, process: Process, reason: str) -> None:
        process.lost = reason or "its keeper is gone"
        if self.outlives:  # keepers end with their node, which Ray may still believe alive
            self._suspect[process.placement.server] = time.monotonic() + SUSPECT_S
        for other in ray_slots.targets(slot, held_only=False):
            cancel = Pending(Order(0, slot.job.id, OrderKind.CANCEL), 1)
            self._ask(slot, other, cancel)
        self._end_when_all_are(slot)

    def _end_when_all_are(self, slot: Slot) -> None:
        if all(process.over for process in slot.processes):
            self._end(slot, Gone.SERVER, slot.lost)

    def _end(self, slot: Slot, gone: Gone, reason: str) -> None:
        numbers = [answer.order for answer in slot.answers]
        numbers += [pending.order.number for pending in slot.pending]
        self._news += [
            News(slot.job.id, 0, order=number, refused=reason) for number in numbers if number
        ]
        self.forget(slot.job.id)
        self._news.append(News(slot.job.id, slot.attempt, gone=gone, reason=reason))

    # Orders

    def _give(self, slot: Slot, order: Order) -> None:
        held_only = order.kind in {OrderKind.RESTART, OrderKind.CONTINUE}
        concerned = ray_slots.targets(slot, held_only)
        if not concerned:
            status = slot.status()
            self._news.append(News(slot.job.id, slot.attempt, status, order=order.number))
            return
        pending = Pending(order, len(concerned))
        slot.pending.append(pending)
        for process in concerned:
            self._ask(slot, process, pending)

    def _ask(self, slot: Slot, process: Process, pending: Pending) -> None:
        order, archive = pending.order, pending.order.archive
        if self._transfer:
            archive = None  # into the folder there; it comes with the rest
        elif archive is not None and process.rank:
            archive = archive.with_name(f"{process.rank}-{archive.name}")
        start = order.start if len(slot.processes) == 1 else 0  # a gang's is a sum
        order = replace(order, archive=archive, start=start)
        reference = process.actor.order.remote(order)
        self._calls[reference] = Call(slot, process, process.generation, "order", pending)

    def _answered(self, call: Call, refused: str) -> None:
        pending, slot = call.pending, call.slot
        if pending is None or pending not in slot.pending:
            return
        pending.left -= 1
        pending.refused = pending.refused or refused
        if pending.left:
            return
        slot.pending.remove(pending)
        if pending.order.number:
            number, refused = pending.order.number, pending.refused
            slot.answers.append(News(slot.job.id, slot.attempt, order=number, refused=refused))
        self._tell(slot)

    # The cluster

    def _alive(self, *, fresh: bool = False) -> dict[str, Node]:
        now_s = time.monotonic()
        if fresh or now_s - self._nodes_s > NODES_S or not self._nodes:
            self._nodes = nodes_of(self._door.nodes())
            self._nodes_s = now_s
        return self._nodes
