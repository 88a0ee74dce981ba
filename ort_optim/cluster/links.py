"""Which job waits for which, and how long the chains of them take."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping, Sequence

from ort_optim.cluster.jobs import Job


class Links:
    """`after` of all jobs, as they end.

    Attributes:
        waits_for: Per job: those that have not ended and that it waits for.
    """

    def __init__(self, jobs: Sequence[Job], end_of: Mapping[str, float], now_s: float) -> None:
        """`end_of`: when jobs end that run or are planned; it may grow. Raises CycleError."""
        self._end_of = end_of
        self._duration_s = {job.id: job.duration_s for job in jobs}
        known = self._duration_s.keys() | end_of.keys()
        self._after = {job.id: tuple(each for each in job.after if each in known) for job in jobs}
        self.waits_for = {name: set(after) for name, after in self._after.items()}
        self._followers: dict[str, list[str]] = {}
        for name, after in self._after.items():
            for each in dict.fromkeys(after):
                self._followers.setdefault(each, []).append(name)
        self._ready_s: dict[str, float] = {}
        for name in graphlib.TopologicalSorter(self._after).static_order():
            if name in self._after:
                self._ready_s[name] = max(
                    (
                        self._end_at_least(each, self._ready_s.get(each, now_s))
                        for each in self._after[name]
                    ),
                    default=now_s,
                )

    def ended(self, name: str) -> list[str]:
        """A job has ended: those that wait for nothing any more."""
        ready = []
        for follower in self._followers.get(name, ()):
            self.waits_for[follower].discard(name)
            if not self.waits_for[follower]:
                ready.append(follower)
        return ready

    def ready_at_least(self, name: str, now_s: float) -> float:
        """A lower bound of when a waiting job becomes ready."""
        ends = (self._end_at_least(each, now_s) for each in self.waits_for[name])
        return max(self._ready_s[name], max(ends, default=now_s))

    def all_after(self, names: Iterable[str]) -> set[str]:
        """All jobs to be planned that wait for any of these, directly or not."""
        found: set[str] = set()
        reached = list(names)
        while reached:
            new = [each for each in self._followers.get(reached.pop(), ()) if each not in found]
            found.update(new)
            reached += new
        return found

    def _end_at_least(self, name: str, start_s: float) -> float:
        if name in self._end_of:
            return self._end_of[name]
        return start_s + self._duration_s[name]


def chains_s(jobs: Sequence[Job]) -> dict[str, float]:
    """Per job: its duration and that of the longest chain of those among `jobs` that wait for it.

    Ids in `after` that are not among them don't count. Raises CycleError.
    """
    duration_s = {job.id: job.duration_s for job in jobs}
    chains = dict(duration_s)
    after = {job.id: [each for each in job.after if each in duration_s] for job in jobs}
    for name in reversed([*graphlib.TopologicalSorter(after).static_order()]):
        for each in after[name]:
            chains[each] = max(chains[each], duration_s[each] + chains[name])
    return chains
