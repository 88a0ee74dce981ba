"""Convex groups of a directed acyclic graph, on plain numbers.

convex_groups   the members of a graph in as few, as large groups as can be merged pairwise
fringes         which nodes of a group it gains nothing from
components      a set of nodes, split where no edge joins them

A group is convex if no path leaves it and comes back: only then can it become one node. Nodes are
numbered in topological order, so every edge leads from a smaller number to a larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

Edges = Sequence[Collection[int]]
"""The successors (or the predecessors) of each node."""


def convex_groups(successors: Edges, members: Collection[int]) -> list[list[int]]:
    """Connected convex groups that cover `members`, each sorted, in the order of their first nodes.

    Maximal: no two of them, nor any more that hang together, make a convex group. All groups can
    be contracted at once without a cycle.

    (1) The stage of a node is the largest number of times that a path to it leaves the members.
        It never falls along a path, and members of one stage that hang together are convex: a
        path between them stays in the stage, and what it passes there is joined to them.
    (2) Groups of different stages that an edge joins are merged where that edge is the only way
        from the one to the other. Any convex union of several groups has such an edge, one of
        those that no longer path stands for, so merging pairs until none can be is enough.
    """
    inside = set(members)
    stage = [0] * len(successors)
    for node, following in enumerate(successors):
        for other in following:
            least = stage[node] + (node in inside and other not in inside)
            stage[other] = max(stage[other], least)
    sets = _DisjointSets(len(successors))
    across: list[tuple[int, int]] = []
    for node in sorted(inside):
        for other in sorted(successors[node]):
            if other not in inside:
                continue
            if stage[other] == stage[node]:
                sets.join(node, other)
            else:
                across.append((node, other))
    if across:
        _merge_across(successors, sets, across)
    groups: dict[int, list[int]] = {}
    for node in sorted(inside):
        groups.setdefault(sets.find(node), []).append(node)
    return list(groups.values())


def components(successors: Edges, nodes: Collection[int]) -> list[list[int]]:
    """The parts of `nodes` that edges between them hold together; convex if `nodes` is."""
    inside = set(nodes)
    sets = _DisjointSets(len(successors))
    for node in inside:
        for other in successors[node]:
            if other in inside:
                sets.join(node, other)
    parts: dict[int, list[int]] = {}
    for node in sorted(inside):
        parts.setdefault(sets.find(node), []).append(node)
    return list(parts.values())


def fringes(
    successors: Edges,
    predecessors: Edges,
    group: Sequence[int],
    is_anchor: Callable[[int], bool],
    may_trail: Callable[[int, Collection[int]], bool],
) -> set[int]:
    """The nodes of a sorted convex `group` without which it is convex still, and no worse.

    (1) nodes that no anchor of the group leads to
    (2) nodes that lead to no anchor of the group, unless `may_trail(node, group without fringes)`,
        and what comes after them
    """
    inside = set(group)
    fed: set[int] = set()
    for node in group:
        if is_anchor(node) or any(before in fed for before in predecessors[node]):
            fed.add(node)
    leading: set[int] = set()
    for node in reversed(group):
        if is_anchor(node) or any(after in leading for after in successors[node]):
            leading.add(node)
    kept: set[int] = set()
    for node in group:
        if node not in fed:
            continue
        if node in leading or (
            not any(p in fed and p not in kept for p in predecessors[node] if p in inside)
            and may_trail(node, kept)
        ):
            kept.add(node)
    return inside - kept


class _DisjointSets:
    """Union-find; the smallest number names a set."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, node: int) -> int:
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, a: int, b: int) -> None:
        first, second = sorted((self.find(a), self.find(b)))
        self._parent[second] = first


def _merge_across(
    successors: Edges, sets: _DisjointSets, across: Iterable[tuple[int, int]]
) -> None:
    """Merge groups along the edges `across` until none can be; `sets` is kept up to date."""
    graph = _Contracted(successors, sets)
    edges = list(across)
    merged = True
    while merged:  # a merge may open the way for edges of the merged group that stood before it
        merged = False
        waiting = []
        for source, target in edges:
            a, b = graph.place(source), graph.place(target)
            if a == b:
                continue
            if graph.is_only_way(a, b):
                graph.merge(a, b)
                sets.join(source, target)
                merged = True
            else:
                waiting.append((source, target))
        edges = waiting


class _Contracted:
    """The graph with each set as one node, and for each node the bits of all it reaches.

    A merged node keeps the number of its first part; the bit of the second says nothing any more.
    """

    def __init__(self, successors: Edges, sets: _DisjointSets) -> None:
        count = len(successors)
        self._places = [sets.find(node) for node in range(count)]
        self.after: list[set[int]] = [set() for _ in range(count)]
        self.before: list[set[int]] = [set() for _ in range(count)]
        for node, following in enumerate(successors):
            a = self._places[node]
            for other in following:
                b = self._places[other]
                if a != b:
                    self.after[a].add(b)
                    self.before[b].add(a)
        self._merged_into = list(range(count))
        self.reach = [0] * count
        for node in reversed(self._order()):
            bits = 0
            for other in self.after[node]:
                bits |= self.reach[other] | 1 << other
            self.reach[node] = bits

    def place(self, node: int) -> int:
        """The contracted node that holds `node`."""
        place = self._places[node]
        while self._merged_into[place] != place:
            place = self._merged_into[place]
        self._places[node] = place
        return place

    def is_only_way(self, a: int, b: int) -> bool:
        """Whether the edge from `a` to `b` is the only path between them."""
        return not any(self.reach[c] >> b & 1 for c in self.after[a] if c != b)

    def merge(self, a: int, b: int) -> None:
        """Make `b` part of `a`, which has an edge to it and no other path."""
        self._merged_into[b] = a
        for c in self.after[b]:
            self.before[c].discard(b)
            self.before[c].add(a)
            self.after[a].add(c)
        for c in self.before[b]:
            self.after[c].discard(b)
            if c != a:
                self.after[c].add(a)
                self.before[a].add(c)
        # Who reaches `a` reaches all of this already; who reached only `b` now does too.
        gained = self.reach[a] | 1 << a
        waiting = [c for c in self.before[b] if c != a]
        while waiting:
            c = waiting.pop()
            if not self.reach[c] >> a & 1:
                self.reach[c] |= gained
                waiting.extend(self.before[c])

    def _order(self) -> list[int]:
        missing = [len(before) for before in self.before]
        ready = [node for node, place in enumerate(self._places) if node == place]
        ready = [node for node in ready if not missing[node]]
        order = []
        while ready:
            node = ready.pop()
            order.append(node)
            for other in self.after[node]:
                missing[other] -= 1
                if not missing[other]:
                    ready.append(other)
        return order
