"""The queue of fragments at one moment: who is next, where it fits, and for whom a server is held.

Jobs of equal needs wait in one line (a shape); where each shape fits is kept up to date, so that
nobody is tried in vain. The first job of all lines is the head. If it can't start, the server on
which it can start first is reserved: until then, others run there only if they end before. So the
head starts within the longest duration of what runs, and nobody delays it.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.capacity import Capacity, Chooser, Integers, Mask
from ort_optim.cluster.placement.kinds import Kind
from ort_optim.cluster.placement.room import Needs, Room
from ort_optim.cluster.placement.timeline import Seconds
from ort_optim.cluster.plan import Placement

Key = tuple[float, int]
"""The order of the queue: ready time less priority, then the place of a job among equal ones."""

Ends = list[tuple[float, int, int, Placement]]
"""What runs: end, a number of its own, index of the server, placement; in the order of the ends."""


@dataclass(eq=False)
class Shape:
    """All waiting jobs of equal needs.

    Attributes:
        kind: What they are.
        place: Its row in the queue's arrays.
        line: The jobs, in the order of the queue.
    """

    kind: Kind
    place: int
    line: list[tuple[Key, Job]] = field(default_factory=list)


@dataclass(frozen=True)
class Start:
    """A job that starts now."""

    key: Key
    job: Job
    server: int
    placement: Placement
    why: str


@dataclass(frozen=True)
class _Reserved:
    """From `from_s` on, there is room on the server for the job, and it is kept."""

    key: Key
    shape: int
    server: int
    from_s: float


class FragmentQueue:
    """Fragments that are ready, over the capacity of all servers.

    Letters: K shapes, S servers, D devices of a server.
    """

    def __init__(
        self, capacity: Capacity, kinds: Iterable[Kind], one: Mask, choose: Chooser
    ) -> None:
        """`one`: (S,) the servers of class one; `kinds`: of all jobs that may be added."""
        self._capacity = capacity
        self._one = one
        self._choose = choose
        self._shapes = [Shape(kind, place) for place, kind in enumerate(kinds)]
        self._of = {shape.kind.need: shape for shape in self._shapes}
        self._keys: set[Key] = set()
        self._heads: list[tuple[Key, int]] = []
        self._reserved: _Reserved | None = None
        needs = [shape.kind.need for shape in self._shapes]
        self._needs = Needs.of(needs)
        self._may: Mask = np.zeros((len(one), len(needs)), dtype=np.bool_)  # (S, K)
        for shape in self._shapes:
            self._may[shape.kind.servers, shape.place] = True
            self._may[shape.kind.spare, shape.place] = True
        # Where each shape fits now, and on how many servers of class two and one; kept up to date.
        self._fits: Mask = np.zeros_like(self._may)  # (S, K)
        self._on_two: Integers = np.zeros(len(needs), dtype=np.int64)  # (K,)
        self._on_one: Integers = np.zeros(len(needs), dtype=np.int64)  # (K,)
        # A lower bound of the durations in each line; inf where nobody waits.
        self._shortest_s: Seconds = np.full(len(needs), math.inf)  # (K,)
        self.changed(range(len(one)))

    def add(self, key: Key, job: Job) -> None:
        """A job is ready; its resources are those of a kind that the queue was made with."""
        shape = self._of[job.resources]
        bisect.insort(shape.line, (key, job), key=lambda entry: entry[0])
        self._shortest_s[shape.place] = min(self._shortest_s[shape.place], job.duration_s)
        self._keys.add(key)
        if len(shape.kind.servers):
            heapq.heappush(self._heads, (key, shape.place))

    def waiting(self) -> Iterator[tuple[Key, Job]]:
        """All jobs that have not started."""
        for shape in self._shapes:
            yield from shape.line

    def changed(self, servers: Iterable[int]) -> None:
        """These servers have got more room, or less."""
        for server in servers:
            fits = self._may[server] & self._needs.fit_on(self._capacity, server)
            on = self._on_one if self._one[server] else self._on_two
            on += fits.astype(np.int64) - self._fits[server]
            self._fits[server] = fits

    def start(self, now_s: float, limits: Seconds, ends: Ends) -> Iterator[Start]:
        """Start what can start now, in the order of the queue; each is taken when it is given.

        Args:
            limits: (S,) until when each class-one server may be used for backfill.
            ends: What runs in class two; the caller adds what is started.
        """
        lines = [
            (self._shapes[place].line[0][0], place) for place in self._open(now_s, limits).tolist()
        ]
        heapq.heapify(lines)
        while lines:
            key, place = heapq.heappop(lines)
            self._reserve_for_head(ends, before=key)
            shape = self._shapes[place]
            start = self._try(shape, now_s, limits)
            if start is None:
                continue
            yield start
            if shape.line:
                heapq.heappush(lines, (shape.line[0][0], place))
            if self._reserved is not None and self._reserved.key == start.key:
                self._lift(lines)
        self._reserve_for_head(ends, before=None)

    def _open(self, now_s: float, limits: Seconds) -> Integers:
        """Shapes of which a job may be able to start."""
        until = now_s + self._shortest_s  # (K,) inf where nobody waits
        waits = np.isfinite(until)
        held = self._reserved
        if held is None:
            mask = waits & (self._on_two > 0)
        else:
            here = self._fits[held.server]
            mask = waits & ((self._on_two - here > 0) | (here & (until <= held.from_s)))
            mask[held.shape] = True
        backfill = np.flatnonzero(waits & ~mask & (self._on_one > 0))
        if len(backfill):
            one = np.flatnonzero(self._one)
            in_time = limits[one, None] >= until[backfill]  # (S, K)
            mask[backfill] = (self._fits[np.ix_(one, backfill)] & in_time).any(axis=0)
        return np.flatnonzero(mask)

    def _try(self, shape: Shape, now_s: float, limits: Seconds) -> Start | None:
        """Start the first job of a shape that may run somewhere now: class two, then backfill."""
        need = shape.kind.need
        fitting = np.flatnonzero(self._fits[:, shape.place])
        for backfill in (False, True):
            fits = fitting[self._one[fitting] == backfill]
            if not len(fits):
                continue
            until = limits[fits] if backfill else self._until(fits)
            place = self._first_in_time(shape, now_s, float(until.max()), fits)
            if place is None:
                continue
            key, job = shape.line[place]
            usable = until >= now_s + job.duration_s
            if self._reserved is not None and key == self._reserved.key:
                usable |= fits == self._reserved.server
            choice = self._choose(need, self._capacity, fits[usable])
            if choice is None:
                continue
            server, devices = choice
            placement = self._capacity.placement(need, server, devices)
            self._capacity.take(placement)
            self.changed([server])
            del shape.line[place]
            if not shape.line:
                self._shortest_s[shape.place] = math.inf
            self._keys.remove(key)
            why = "fragment, backfill on class one" if backfill else "fragment"
            return Start(key, job, server, placement, why)
        return None

    def _until(self, fits: Integers) -> Seconds:
        """Per class-two server: until when jobs may run on it."""
        until = np.full(len(fits), math.inf)
        if self._reserved is not None:
            until[fits == self._reserved.server] = self._reserved.from_s
        return until

    def _first_in_time(
        self, shape: Shape, now_s: float, until_s: float, fits: Integers
    ) -> int | None:
        """The place in line of the first job that ends in time, or has its reserved server here."""
        held = self._reserved
        reserved_key = held.key if held is not None and held.server in fits else None
        for place, (key, job) in enumerate(shape.line):
            if now_s + job.duration_s <= until_s or key == reserved_key:
                return place
        self._shortest_s[shape.place] = min(job.duration_s for _, job in shape.line)
        return None

    def _lift(self, lines: list[tuple[Key, int]]) -> None:
        """The reserved job has started: others may use its server."""
        if self._reserved is None:
            return
        server, self._reserved = self._reserved.server, None
        opened = {place for _, place in lines}
        for place in np.flatnonzero(self._fits[server]).tolist():
            if self._shapes[place].line and place not in opened:
                heapq.heappush(lines, (self._shapes[place].line[0][0], place))

    def _reserve_for_head(self, ends: Ends, before: Key | None) -> None:
        """Reserve a server for the head of all lines, if it stands before `before`."""
        while self._reserved is None and self._heads:
            key, place = self._heads[0]
            if key not in self._keys:
                heapq.heappop(self._heads)
                continue
            if before is not None and key >= before:
                return
            self._reserved = self._earliest(key, self._shapes[place], ends)
            if self._reserved is None:  # what never ends is in its way, so it would wait for ever
                heapq.heappop(self._heads)

    def _earliest(self, key: Key, shape: Shape, ends: Ends) -> _Reserved | None:
        """Where and when there is room for a job first, if nothing else is started."""
        need, may = shape.kind.need, self._may[:, shape.place]
        room: dict[int, Room] = {}
        for end_s, _, server, placement in ends:
            if math.isinf(end_s):
                break
            if not may[server] or self._one[server]:
                continue
            if server not in room:
                room[server] = Room(self._capacity, server)
            room[server].give(placement)
            if room[server].fits(need):
                return _Reserved(key, shape.place, server, end_s)
        return None
