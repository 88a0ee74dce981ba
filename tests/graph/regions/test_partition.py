from __future__ import annotations

import random
from collections.abc import Collection
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.graph.regions.partition import components, convex_groups, fringes

Dag = tuple[list[set[int]], list[int]]


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    """Successors of up to eleven nodes in topological order, and which are members."""
    count = draw(st.integers(1, 11))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    successors: list[set[int]] = [set() for _ in range(count)]
    for a, b in chosen:
        successors[a].add(b)
    return successors, sorted(draw(st.sets(st.integers(0, count - 1))))


def reachable(successors: list[set[int]]) -> list[set[int]]:
    """For each node all that a path of at least one edge leads to."""
    found: list[set[int]] = [set() for _ in successors]
    for node in reversed(range(len(successors))):
        for other in successors[node]:
            found[node] |= {other} | found[other]
    return found


def is_convex(successors: list[set[int]], group: Collection[int]) -> bool:
    reach = reachable(successors)
    outside = set(range(len(successors))) - set(group)
    return not any(
        out in reach[a] and b in reach[out] for out in outside for a in group for b in group
    )


def hangs_together(successors: list[set[int]], group: Collection[int]) -> bool:
    todo, seen = [next(iter(group))], set[int]()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += [b for b in successors[node] if b in group]
            todo += [a for a in group if node in successors[a]]
    return seen == set(group)


def can_be_contracted(successors: list[set[int]], groups: list[list[int]]) -> bool:
    place = {node: node for node in range(len(successors))}
    place |= {node: group[0] for group in groups for node in group}
    edges = {(place[a], place[b]) for a, after in enumerate(successors) for b in after}
    edges = {(a, b) for a, b in edges if a != b}
    left = set(place.values())
    while free := {node for node in left if not any(b == node for _, b in edges)}:
        left -= free
        edges = {(a, b) for a, b in edges if a not in free}
    return not left


@given(dags())
@settings(max_examples=400, deadline=None)
def test_groups_are_convex_connected_and_contract_without_a_cycle(dag: Dag) -> None:
    successors, members = dag
    groups = convex_groups(successors, members)
    assert sorted(node for group in groups for node in group) == members
    assert groups == sorted(sorted(group) for group in groups)
    for group in groups:
        assert is_convex(successors, group)
        assert hangs_together(successors, group)
    assert can_be_contracted(successors, groups)


@given(dags())
@settings(max_examples=300, deadline=None)
def test_no_union_of_groups_could_be_one(dag: Dag) -> None:
    successors, members = dag
    groups = convex_groups(successors, members)
    for count in range(2, len(groups) + 1):
        for some in combinations(groups, count):
            union = [node for group in some for node in group]
            assert not (hangs_together(successors, union) and is_convex(successors, union)), some


@given(dags(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_without_fringes_a_group_is_convex_and_every_node_follows_an_anchor(
    dag: Dag, rng: random.Random
) -> None:
    successors, members = dag
    predecessors: list[set[int]] = [set() for _ in successors]
    for a, after in enumerate(successors):
        for b in after:
            predecessors[b].add(a)
    anchors = {node for node in members if rng.random() < 0.4}
    trailers = {node for node in members if rng.random() < 0.5}
    for group in convex_groups(successors, members):
        dropped = fringes(
            successors, predecessors, group, anchors.__contains__, lambda n, _: n in trailers
        )
        assert not dropped & anchors
        reach = reachable(successors)
        for part in components(successors, set(group) - dropped):
            assert is_convex(successors, part)
            assert anchors & set(part)
            for node in set(part) - anchors:
                assert any(node in reach[a] for a in anchors & set(part))
                assert node in trailers or reach[node] & anchors & set(group)


def test_a_diamond_that_leaves_the_members_is_cut_where_it_comes_back() -> None:
    #   0 -> 1 -> 3 -> 4,  0 -> 2 -> 3  with 2 outside: 0 and 1 come before it, 3 and 4 after
    assert convex_groups([{1, 2}, {3}, {3}, {4}, set()], [0, 1, 3, 4]) == [[0, 1], [3, 4]]


def test_a_branch_that_never_left_joins_the_group_it_leads_to() -> None:
    # 0 -> out 1 -> 2 -> 4,  3 -> 4: node 3 has left nothing, yet may be merged with 2 and 4
    assert convex_groups([{1}, {2}, {4}, {4}, set()], [0, 2, 3, 4]) == [[0], [2, 3, 4]]


def test_a_merge_that_opens_the_way_for_another_is_followed_up() -> None:
    # 0 leaves by 1 to 2; 3 reaches 4 by itself and over 5 after it; all of 3, 4, 5 are one
    successors = [{1}, {2}, {5}, {4, 5}, {5}, set()]
    assert convex_groups(successors, [0, 2, 3, 4, 5]) == [[0], [2, 3, 4, 5]]


def test_a_graph_of_5000_nodes_gives_the_same_groups_each_time() -> None:
    rng = random.Random(3)
    successors: list[set[int]] = [set() for _ in range(5000)]
    for node in range(1, 5000):
        for _ in range(2):
            successors[rng.randrange(max(0, node - 200), node)].add(node)
    members = [node for node in range(5000) if rng.random() < 0.9]
    groups = convex_groups(successors, members)
    assert groups == convex_groups([set(after) for after in successors], members[::-1])
    assert can_be_contracted(successors, groups)
