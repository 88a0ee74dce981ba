"""Minimum cut of a directed network, by Dinic's algorithm.

Source: E. A. Dinic, "Algorithm for solution of a problem of maximum flow in networks with power
estimation", Soviet Math. Doklady 11 (1970). With unit capacities on the edges that matter, as
here, the number of phases is small and each takes time linear in the number of edges.
"""

from __future__ import annotations

from collections import deque

INFINITE = 1 << 40


class Network:
    """Nodes are numbered from 0 in the order of `add_node`; capacities are natural numbers."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = []  # node -> its edges; edge e and e ^ 1 are a pair
        self._head: list[int] = []
        self._room: list[int] = []

    def add_node(self) -> int:
        """The number of a new node."""
        self._edges.append([])
        return len(self._edges) - 1

    def add_edge(self, tail: int, head: int, capacity: int) -> None:
        """An edge that costs `capacity` if `tail` is on the source's side and `head` is not."""
        for start, end, room in ((tail, head, capacity), (head, tail, 0)):
            self._edges[start].append(len(self._head))
            self._head.append(end)
            self._room.append(room)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The smallest set of nodes on the source's side of a minimum cut."""
        while True:
            level = self._levels(source)
            if sink not in level:
                return set(level)
            tried = [0] * len(self._edges)
            while self._augment(source, sink, level, tried):
                pass

    def _levels(self, source: int) -> dict[int, int]:
        level = {source: 0}
        waiting = deque([source])
        while waiting:
            node = waiting.popleft()
            for edge in self._edges[node]:
                head = self._head[edge]
                if self._room[edge] and head not in level:
                    level[head] = level[node] + 1
                    waiting.append(head)
        return level

    def _augment(self, source: int, sink: int, level: dict[int, int], tried: list[int]) -> bool:
        """Send flow along one shortest path; False if none is left."""
        path: list[int] = []
        node = source
        while node != sink:
            edges = self._edges[node]
            while tried[node] < len(edges):
                edge = edges[tried[node]]
                head = self._head[edge]
                if self._room[edge] and level.get(head, -1) == level[node] + 1:
                    path.append(edge)
                    node = head
                    break
                tried[node] += 1
            else:
                if not path:
                    return False
                node = self._head[path.pop() ^ 1]
                tried[node] += 1
        flow = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= flow
            self._room[edge ^ 1] += flow
        return True
