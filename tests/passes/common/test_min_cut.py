from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.passes.common.min_cut import INFINITE, Network

SIZE = 6
edge = st.tuples(
    st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.sampled_from([1, 1, 2, INFINITE])
)


def _cost(side: set[int], edges: list[tuple[int, int, int]]) -> int:
    return sum(capacity for a, b, capacity in edges if a in side and b not in side)


@settings(max_examples=300, deadline=None)
@given(edges=st.lists(edge, max_size=14))
def test_no_cut_is_cheaper_and_no_cheapest_one_smaller(edges: list[tuple[int, int, int]]) -> None:
    network = Network()
    for _ in range(SIZE):
        network.add_node()
    for each in edges:
        network.add_edge(*each)
    found = network.source_side(0, SIZE - 1)
    inner = range(1, SIZE - 1)
    cuts = [
        {0, *chosen} for size in range(SIZE - 1) for chosen in itertools.combinations(inner, size)
    ]
    cheapest = min(_cost(cut, edges) for cut in cuts)
    if cheapest < INFINITE:
        assert _cost(found, edges) == cheapest
        assert all(found <= cut for cut in cuts if _cost(cut, edges) == cheapest)


def test_a_long_chain_takes_no_recursion() -> None:
    network = Network()
    for _ in range(5000):
        network.add_node()
    for node in range(4999):
        network.add_edge(node, node + 1, 1 if node == 2500 else INFINITE)
    assert network.source_side(0, 4999) == set(range(2501))
