"""Jobs and servers to a plan: who starts when, where, and why.

    Policy      how to plan
    plan        the one entry: classes, then a schedule, or several, of which one is taken
    _Schedule   the events of one plan in the order of time

The order of the queue: a job counts as ready when the last job that it waits for has ended; jobs go
by ready time minus `ageing_s` for each point of priority. So a job of lower priority is overtaken
only by jobs that become ready within a bounded time after it, and none waits for ever. Of equal
ones the longest goes first, together with the longest chain of jobs that wait for it, as what is
long and starts late ends last; then the first of the file.

Whole machines: when a job is ready, its servers and their time are reserved in class one, as early
as they are free (`timeline`). A reservation is never pushed back by what becomes ready later.
Fragments start on class two where the chooser says, and the head of their queue has a server kept
for it (`fragments`). With backfill, an idle class-one server takes fragments that end before its
next reservation, and before any whole-machine job that still waits for others can become ready.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.links import Links, chains_s
from ort_optim.cluster.placement.capacity import Capacity, Chooser, Inventory, best_fit
from ort_optim.cluster.placement.classes import Split, split
from ort_optim.cluster.placement.fragments import Ends, FragmentQueue, Key, Start
from ort_optim.cluster.placement.kinds import kind_of
from ort_optim.cluster.placement.scoring import room_chooser
from ort_optim.cluster.placement.search import shortest
from ort_optim.cluster.placement.timeline import Seconds, Timeline
from ort_optim.cluster.plan import VERSION, Placement, Plan, Planned, Refused, ServerClass
from ort_optim.cluster.servers import Cluster
from ort_optim.errors import InputError

MOST_NEEDS = 1000
"""Distinct needs up to which the room of each is worth its time: 8,000 jobs of 800 distinct needs
are planned on 1,213 servers in 7 s; if all needs are distinct, it would take minutes."""


@dataclass(frozen=True)
class Policy:
    """How to plan.

    Attributes:
        backfill: Idle class-one servers take fragments that can't delay a whole-machine job.
        ageing_s: Waiting for so long is worth one point of priority.
        tries: How many other orders of jobs of equal priority are tried for a shorter makespan.
    """

    backfill: bool = False
    ageing_s: float = 600.0
    tries: int = 0


def plan(
    jobs: Sequence[Job],
    cluster: Cluster,
    *,
    running: Sequence[Planned] = (),
    now_s: float = 0.0,
    policy: Policy = Policy(),
    choose: Chooser | None = None,
    classes: Mapping[str, ServerClass] | None = None,
    ready_s: Mapping[str, float] | None = None,
    chain_s: Mapping[str, float] | None = None,
) -> Plan:
    """Plan all jobs that are not running, from `now_s` on, by their expected durations.

    Args:
        jobs: With distinct ids. An id in `after` that is neither here nor running has ended.
        running: Hold their placements until end_s (inf: nobody knows, as when held) and are not
            moved. One that should have ended is taken to run over by as much as it already has.
            What runs on a server that the cluster lacks is ignored: that server is lost.
        choose: Which server and devices a fragment gets; None takes `room_chooser`, which leaves
            the most room for the jobs at hand, or `best_fit` where hardly two of them are alike.
        classes: Those of an earlier plan, which keep `auto` servers on their side.
        ready_s: When each job became ready, for the order of the queue; 0 where nothing is said.
        chain_s: How long each job takes together with the longest chain of those that wait for
            it; None: `chains_s(jobs)`. Others may wait where `jobs` are not the whole batch.

    Nothing in the answer is over capacity, and equal arguments give equal answers.
    """
    inventory = Inventory.of(cluster)
    busy = {each.job for each in running}
    waiting = [job for job in jobs if job.id not in busy]
    sides = split(waiting, cluster, inventory, classes)
    if choose is None:
        needs = [job.resources for job in waiting]
        few = len(set(needs)) <= MOST_NEEDS
        choose = room_chooser(needs, inventory) if few else best_fit

    def make(order: Sequence[Job]) -> Plan:
        arguments = (order, inventory, sides, running, now_s, choose, ready_s or {})
        schedule = _Schedule(policy, *arguments)
        if policy.backfill and schedule.whole_waits_for_fragment():
            # A fragment that ends early lets a whole-machine job reserve early, perhaps before
            # another one. That one must not pay for backfill.
            plain = _Schedule(replace(policy, backfill=False), *arguments)
            if schedule.delays_whole(plain):
                schedule = plain
        return Plan(version=VERSION, planned=schedule.planned(), refused=schedule.refused())

    lengths_s = chains_s(waiting) if chain_s is None else chain_s
    order = sorted(waiting, key=lambda job: -lengths_s[job.id])
    made = shortest(order, make, policy.tries) if policy.tries else make(order)
    place = {job.id: number for number, job in enumerate(waiting)}
    return replace(
        made,
        refused=tuple(sorted(made.refused, key=lambda each: place[each.job])),
        classes={
            name: "one" if one else "two"
            for name, one in zip(inventory.names, sides.one.tolist(), strict=True)
        },
        reason_of_classes=sides.reason,
    )


class _Schedule:
    """Jobs in time: it goes through the events (jobs end, become ready, start) when it is made."""

    def __init__(
        self,
        policy: Policy,
        jobs: Sequence[Job],
        inventory: Inventory,
        sides: Split,
        running: Sequence[Planned],
        now_s: float,
        choose: Chooser,
        ready_s: Mapping[str, float],
    ) -> None:
        self._jobs = {job.id: job for job in jobs}
        self._place = {job.id: place for place, job in enumerate(jobs)}
        self._inventory = inventory
        self._one = sides.one
        self._now_s = now_s
        self._policy = policy
        self._given_ready_s = ready_s
        self._numbers = itertools.count()
        self._capacity = Capacity(inventory)
        self._timeline = Timeline(inventory, now_s)
        self._events: list[tuple[float, int, str, tuple[Placement, ...]]] = []
        self._ends: Ends = []
        self._end_of: dict[str, float] = {}
        self._planned: dict[str, tuple[Key, Planned]] = {}
        self._stuck: dict[str, str] = {}
        kinds = {
            need: kind_of(need, inventory, sides.one, backfill=policy.backfill, widest=sides.widest)
            for need in dict.fromkeys(job.resources for job in jobs)
        }
        self._kind = {job.id: kinds[job.resources] for job in jobs}
        fragments = [kind for kind in kinds.values() if not kind.whole and not kind.refusal]
        self._queue = FragmentQueue(self._capacity, fragments, sides.one, choose)
        for each in running:
            self._occupy(each)
        self._queue.changed(range(len(inventory.names)))
        self._links = Links(jobs, self._end_of, now_s)
        endless = [name for name, end_s in self._end_of.items() if math.isinf(end_s)]
        refused = [name for name, kind in self._kind.items() if kind.refusal]
        never_ready = self._links.all_after([*endless, *refused])
        # Whole-machine jobs that will want class-one servers once those that they wait for end.
        self._pending = {
            name: kind
            for name, kind in self._kind.items()
            if kind.whole and not kind.refusal and name not in never_ready
        }
        self._run()

    def _run(self) -> None:
        """Go from event to event until nothing ends any more."""
        now_s = self._now_s
        ready = [name for name in self._jobs if not self._links.waits_for[name]]
        keys = {name: self._key(name, self._given_ready_s.get(name, 0.0)) for name in ready}
        while True:
            self._admit(keys, now_s)
            limits = self._limits(now_s)
            for start in self._queue.start(now_s, limits, self._ends):
                self._begin(start, now_s)
            if not self._events or math.isinf(self._events[0][0]):
                break
            now_s = self._events[0][0]
            keys = {name: self._key(name, now_s) for name in self._release(now_s)}
        for _, job in self._queue.waiting():
            self._stuck[job.id] = "what is held or runs without an end leaves no room for it"

    def planned(self) -> tuple[Planned, ...]:
        """All jobs that were placed: by start, then in the order of the queue."""
        entries = sorted(self._planned.values(), key=lambda entry: (entry[1].start_s, entry[0]))
        return tuple(planned for _, planned in entries)

    def refused(self) -> tuple[Refused, ...]:
        """All others, with the reason of each."""
        return tuple(
            Refused(name, self._reason(name)) for name in self._jobs if name not in self._planned
        )

    def whole_waits_for_fragment(self) -> bool:
        """Whether any whole-machine job waits for a fragment, directly or not."""
        fragments = [name for name, kind in self._kind.items() if not kind.whole]
        return any(self._kind[name].whole for name in self._links.all_after(fragments))

    def delays_whole(self, other: _Schedule) -> bool:
        """Whether a whole-machine job starts later here than in `other`, or not at all."""
        for name, (_, there) in other._planned.items():
            if self._kind[name].whole:
                here = self._planned.get(name)
                if here is None or here[1].start_s > there.start_s:
                    return True
        return False

    def _key(self, name: str, ready_s: float) -> Key:
        aged_s = ready_s - self._jobs[name].priority * self._policy.ageing_s
        return aged_s, self._place[name]

    def _occupy(self, running: Planned) -> None:
        """What runs already holds what it has until it ends."""
        now_s = self._now_s
        end_s = running.end_s
        if end_s <= now_s:
            end_s = now_s + max(1.0, now_s - end_s)
        here = tuple(each for each in running.placements if each.server in self._inventory.index)
        for placement in here:
            server = self._inventory.index[placement.server]
            try:
                self._capacity.take(placement)
            except (ValueError, IndexError):
                raise InputError(
                    f"job {running.job} runs on more of server {placement.server} than is free "
                    "there: the cluster file must describe the servers as they were"
                ) from None
            if not self._one[server]:
                self._note_end(end_s, server, placement)
            elif placement == self._capacity.whole(server):
                self._timeline.occupy(server, end_s)
            else:
                self._timeline.share(server, end_s)
        self._end(running.job, end_s, here)

    def _admit(self, keys: Mapping[str, Key], now_s: float) -> None:
        """These jobs are ready, in the order of the queue."""
        for name, key in sorted(keys.items(), key=lambda entry: entry[1]):
            kind, job = self._kind[name], self._jobs[name]
            self._pending.pop(name, None)
            if kind.refusal:
                continue
            if not kind.whole:
                self._queue.add(key, job)
                continue
            slot = self._timeline.reserve(kind.servers, kind.whole, now_s, job.duration_s)
            if slot is None:
                self._stuck[name] = "what is held or runs without an end leaves too few servers"
                continue
            start_s, servers = slot
            placements = tuple(self._capacity.whole(int(server)) for server in servers)
            why = kind.why if start_s == now_s else f"{kind.why}, reserved at {now_s:g} s"
            self._plan(key, job, start_s, placements, why)
            # Their capacity is not taken: fragments are kept away by the time line.
            self._end(name, start_s + job.duration_s, ())

    def _begin(self, start: Start, now_s: float) -> None:
        job, end_s = start.job, now_s + start.job.duration_s
        self._plan(start.key, job, now_s, (start.placement,), start.why)
        self._end(job.id, end_s, (start.placement,))
        if not self._one[start.server]:
            self._note_end(end_s, start.server, start.placement)

    def _plan(
        self, key: Key, job: Job, start_s: float, placements: tuple[Placement, ...], why: str
    ) -> None:
        planned = Planned(job.id, start_s, start_s + job.duration_s, placements, why)
        self._planned[job.id] = key, planned

    def _end(self, name: str, end_s: float, placements: tuple[Placement, ...]) -> None:
        self._end_of[name] = end_s
        heapq.heappush(self._events, (end_s, next(self._numbers), name, placements))

    def _note_end(self, end_s: float, server: int, placement: Placement) -> None:
        bisect.insort(self._ends, (end_s, next(self._numbers), server, placement))

    def _release(self, now_s: float) -> list[str]:
        """End what ends by now; the jobs that became ready by it."""
        ready: list[str] = []
        changed: set[int] = set()
        while self._events and self._events[0][0] <= now_s:
            _, _, name, placements = heapq.heappop(self._events)
            for placement in placements:
                self._capacity.give(placement)
                changed.add(self._inventory.index[placement.server])
            ready += self._links.ended(name)
        del self._ends[: bisect.bisect_right(self._ends, now_s, key=lambda entry: entry[0])]
        self._timeline.forget_before(now_s)
        self._queue.changed(sorted(changed))
        return ready

    def _limits(self, now_s: float) -> Seconds:
        """(S,) Until when fragments may use each class-one server."""
        wanted_from: Seconds = np.full(len(self._inventory.names), math.inf)
        if not self._policy.backfill:
            return wanted_from
        for name, kind in self._pending.items():
            ready_s = self._links.ready_at_least(name, now_s)
            wanted_from[kind.servers] = np.minimum(wanted_from[kind.servers], ready_s)
        return np.minimum(wanted_from, self._timeline.limits(now_s))

    def _reason(self, name: str) -> str:
        if self._kind[name].refusal:
            return self._kind[name].refusal
        if name in self._stuck:
            return self._stuck[name]
        other = next(each for each in self._jobs[name].after if each in self._links.waits_for[name])
        if other in self._jobs:
            return f"waits for job '{other}', which can't be placed"
        return f"waits for job '{other}', which is held or runs without an end"
