"""Multiply-accumulates: the rules against figures worked out by hand, and the arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from ort_optim.graph.macs import MS, RULES, UNKNOWN, Macs, Shape, node_macs

dims = st.one_of(st.integers(0, 50), st.sampled_from(["N", "H", None]))
SYMBOL_VALUES = {"N": 3, "H": 5, UNKNOWN: 7}


def value(macs: Macs) -> int:
    """The count with numbers put in for the symbols."""
    total = 0
    for symbols, count in macs.terms:
        for symbol in symbols:
            count *= SYMBOL_VALUES[symbol]
        total += count
    return total


def count(
    op: str, inputs: list[Shape | None], output: Shape | None, domain: str = "", **attributes: Any
) -> Macs | None:
    names = [f"i{i}" for i in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    return node_macs(node, inputs, [output])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # 8 outputs of 6x6, each from 3 channels of 3x3
        (count("Conv", [(1, 3, 8, 8), (8, 3, 3, 3)], (1, 8, 6, 6)), 8 * 36 * 27),
        # depthwise: each output from one channel
        (count("Conv", [(2, 8, 8, 8), (8, 1, 3, 3)], (2, 8, 8, 8), group=8), 2 * 8 * 64 * 9),
        (count("QLinearConv", [(1, 3, 8, 8), (), (), (4, 3, 1, 1)], (1, 4, 8, 8)), 4 * 64 * 3),
        # each of 16 inputs goes to 2 output channels of 2x2
        (count("ConvTranspose", [(1, 4, 2, 2), (4, 2, 2, 2)], (1, 2, 4, 4)), 16 * 8),
        (count("Gemm", [(5, 7), (7, 3)], (5, 3)), 105),
        (count("Gemm", [(7, 5), (3, 7)], (5, 3), transA=1, transB=1), 105),
        (count("MatMul", [(2, 5, 7), (7, 3)], (2, 5, 3)), 210),
        (count("MatMul", [(7,), (7,)], ()), 7),
        (count("MatMul", [(2, 5, 7), (7, 3)], None), 210),
        (count("Einsum", [(2, 5, 7), (2, 7, 3)], None, equation="bij, bjk -> bik"), 210),
        (count("Einsum", [(2, 5), (1, 5)], None, equation="ab,ab"), 10),
        # T=4, N=2: each step multiplies by W (1, 12, 5) and R (1, 12, 3)
        (count("LSTM", [(4, 2, 5), (1, 12, 5), (1, 12, 3)], (4, 1, 2, 3)), 8 * (60 + 36)),
        (count("Attention", [(2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 5)], None), 2 * 4 * 6 * 9 * 13),
        (
            count("MultiHeadAttention", [(2, 6, 32), (2, 9, 32), (2, 9, 16)], None, MS),
            2 * 6 * 9 * 48,
        ),
        (
            count("Attention", [(2, 6, 16), (16, 48), (48,)], None, MS, num_heads=4),
            2 * 6 * 16 * 48 + 2 * (2 * 6 * 6 * 16),
        ),
    ],
)
def test_rules_give_the_counts_worked_out_by_hand(found: Macs | None, expected: int) -> None:
    assert found is not None
    assert found.symbols == frozenset()
    assert found.at_one == expected


def test_symbolic_sizes_stay_symbols() -> None:
    found = count("Conv", [("N", 3, None, 8), (8, 3, 3, 3)], ("N", 8, None, 6))
    assert found == Macs(((("?", "N"), 8 * 6 * 27),))


@pytest.mark.parametrize(
    "found",
    [
        count("Relu", [(1, 2)], (1, 2)),
        count("Conv", [(1, 3, 8, 8), None], (1, 8, 6, 6)),
        count("Conv", [(1, 3, 8, 8), (8, 3, 3, 3)], None),
        count("MatMul", [None, (7, 3)], (5, 3)),
        count("Einsum", [(2, 5), (5, 2)], None, equation="...a,ab"),
        count("Einsum", [(2, 5)], None, equation="ab->ba"),
        count("LSTM", [None, (1, 12, 5), (1, 12, 3)], None),
        count("Conv", [(1, 3, 8, 8), (8, 3, 3, 3)], (1, 8, 6, 6), domain="other"),
        count("Attention", [(2, 6, 16), (2, 9, 16), (2, 9, 16)], None, q_num_heads=4),
        count("Attention", [(2, 6, 16), (16, 48), (48,), (), (2, 2, 4, 5, 4)], None, MS),
    ],
)
def test_what_cannot_be_known_is_none_and_not_zero(found: Macs | None) -> None:
    assert found is None


@pytest.mark.parametrize(("domain", "op"), RULES)
@given(
    shapes=st.lists(st.none() | st.lists(dims, max_size=5).map(tuple), max_size=8),
    output=st.none() | st.lists(dims, max_size=5).map(tuple),
)
def test_no_rule_fails_on_shapes_that_make_no_sense(
    domain: str, op: str, shapes: list[Shape | None], output: Shape | None
) -> None:
    found = count(op, shapes, output, domain)
    assert found is None or found.at_one >= 0


@given(st.lists(dims, max_size=6))
def test_product_is_the_product(factors: list[int | str | None]) -> None:
    expected = 1
    for factor in factors:
        expected *= factor if isinstance(factor, int) else SYMBOL_VALUES[factor or UNKNOWN]
    assert value(Macs.product(*factors)) == expected


@given(st.lists(st.lists(dims, max_size=4), max_size=5))
def test_total_is_the_sum_and_has_each_term_once(parts: list[list[int | str | None]]) -> None:
    counts = [Macs.product(*part) for part in parts]
    total = Macs.total(counts)
    assert value(total) == sum(map(value, counts))
    symbols = [s for s, _ in total.terms]
    assert len(symbols) == len(set(symbols))
    assert value(total.times("H")) == 5 * value(total)
