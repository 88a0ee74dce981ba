"""When class-one servers are free for whole machines: reservations that are never pushed back.

Each server is free in some gaps, half-open intervals of time, and from its tail on, for ever. A job
takes the earliest time at which enough servers are free for as long as it runs, before what was
reserved earlier where it fits (conservative backfilling: a later job never delays an earlier one).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ort_optim.cluster.placement.capacity import Integers, Inventory

Seconds = NDArray[np.float64]


class Timeline:
    """Reservations of whole servers; all times are in seconds.

    Attributes:
        tail: (S,) from when on each server is free for ever.
    """

    def __init__(self, inventory: Inventory, now_s: float) -> None:
        count = len(inventory.names)
        self.tail: Seconds = np.full(count, now_s, dtype=np.float64)
        self._devices = inventory.devices
        self._fragments_end: Seconds = np.full(count, now_s, dtype=np.float64)
        self._gaps: dict[int, list[tuple[float, float]]] = {}

    def occupy(self, server: int, end_s: float) -> None:
        """A whole-machine job runs on it now, until `end_s`."""
        self.tail[server] = max(self.tail[server], end_s)

    def share(self, server: int, end_s: float) -> None:
        """A fragment runs on it now: no whole-machine job before `end_s`."""
        self._fragments_end[server] = max(self._fragments_end[server], end_s)

    def reserve(
        self, servers: Integers, count: int, ready_s: float, duration_s: float
    ) -> tuple[float, Integers] | None:
        """Reserve `count` of `servers` as early as can be from `ready_s` on.

        Of those free at that time, the ones with the fewest devices, then the shortest idle time
        before, then the first are taken. None if there is no such time.
        """
        start_s = ready_s
        while True:
            starts = self._starts(servers, start_s, duration_s)
            free = servers[starts == start_s]
            if len(free) >= count:
                break
            start_s = float(np.partition(starts, count - 1)[count - 1])
            if math.isinf(start_s):
                return None
        idle = [start_s - self._free_from(int(server), start_s) for server in free]
        chosen = np.sort(free[np.lexsort((idle, self._devices[free]))[:count]])
        for server in chosen:
            self._take(int(server), start_s, start_s + duration_s)
        return start_s, chosen

    def limits(self, now_s: float) -> Seconds:
        """(S,) Until when each server stays free for fragments; `now_s` where it is not."""
        limits = np.where(self.tail <= now_s, math.inf, now_s)
        for server, gaps in self._gaps.items():
            for start, end in gaps:
                if start <= now_s < end:
                    limits[server] = end
        return limits

    def forget_before(self, now_s: float) -> None:
        """Drop the gaps that have passed."""
        for server, gaps in list(self._gaps.items()):
            if gaps[0][1] <= now_s:
                left = [gap for gap in gaps if gap[1] > now_s]
                if left:
                    self._gaps[server] = left
                else:
                    del self._gaps[server]

    def _starts(self, servers: Integers, from_s: float, duration_s: float) -> Seconds:
        """Per server: the earliest start from `from_s` on."""
        earliest = np.maximum(self._fragments_end[servers], from_s)
        starts = np.maximum(earliest, self.tail[servers])
        if self._gaps:
            for place, server in enumerate(servers.tolist()):
                for start, end in self._gaps.get(server, ()):
                    at = max(start, float(earliest[place]))
                    if at + duration_s <= end:
                        starts[place] = at
                        break
        return starts

    def _free_from(self, server: int, at_s: float) -> float:
        """Since when the server is free that is free at `at_s`."""
        tail = float(self.tail[server])
        if tail <= at_s:
            return tail
        return next(start for start, end in self._gaps[server] if start <= at_s < end)

    def _take(self, server: int, start_s: float, end_s: float) -> None:
        tail = float(self.tail[server])
        if start_s >= tail:
            if start_s > tail:
                self._gaps.setdefault(server, []).append((tail, start_s))
            self.tail[server] = end_s
            return
        gaps = self._gaps[server]
        place = next(i for i, (start, end) in enumerate(gaps) if start <= start_s and end_s <= end)
        start, end = gaps.pop(place)
        gaps[place:place] = [gap for gap in ((start, start_s), (end_s, end)) if gap[0] < gap[1]]
        if not gaps:
            del self._gaps[server]
