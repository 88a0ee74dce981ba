from __future__ import annotations

import onnx

from ort_optim.verify.uses import Extent, Use, find_uses
from tests.verify.models import parse


def uses_of(graph: str, name: str, opset: int = 17) -> list[Use]:
    return find_uses(parse(graph, opset), [name]).uses[name]


def test_token_ids_are_followed_to_their_table() -> None:
    (use,) = uses_of(
        """
        g (int32[N, S] ids) => (float[N, S, 2] y)
        <float[5, 2] table = {0,1,2,3,4,5,6,7,8,9}>
        { wide = Cast<to = 7>(ids)  same = Identity(wide)  y = Gather(table, same) }
        """,
        "ids",
    )
    assert (use.kind, use.limit) == ("index", 5)


def test_an_offset_on_the_way_to_the_table_is_kept() -> None:
    (use,) = uses_of(
        """
        g (int64[N] pos) => (float[N, 1] y)
        <float[7, 1] table = {0,1,2,3,4,5,6}, int64 two = {2}>
        { shifted = Add(pos, two)  y = Gather(table, shifted) }
        """,
        "pos",
    )
    assert (use.limit, use.scale, use.shift) == (7, 1, 2)


def test_a_table_that_is_computed_is_named() -> None:
    (use,) = uses_of(
        """
        g (float[4, 6] x, int64[2] i) => (float[4, 2] y)
        { r = Relu(x)  y = Gather<axis = 1>(r, i) }
        """,
        "i",
    )
    assert use.limit == Extent("r", 1)


def test_uses_inside_branches_and_loop_bodies_are_found() -> None:
    branch = uses_of(
        """
        g (bool c, int64[2] i) => (float[2, 1] y)
        <float[3, 1] table = {0, 1, 2}>
        {
            y = If(c) <
                then_branch = t () => (float[2, 1] a) { a = Gather(table, i) },
                else_branch = e () => (float[2, 1] b) { b = Gather(table, i) }
            >
        }
        """,
        "i",
    )
    assert {use.limit for use in branch} == {3}
    loop = uses_of(
        """
        g (int64 trips, bool go, int64 i) => (int64 last)
        <float[3, 1] table = {0, 1, 2}>
        {
            last, rows = Loop(trips, go, i) <
                body = b (int64 n, bool c, int64 k) => (bool c2, int64 k2, float[1] row)
                { c2 = Identity(c)  k2 = Identity(k)  row = Gather(table, k) }
            >
        }
        """,
        "i",
    )
    assert [(use.kind, use.limit) for use in loop] == [("index", 3)]


def test_a_name_that_a_body_hides_is_not_followed() -> None:
    found = uses_of(
        """
        g (int64 trips, bool go, int64 k) => (int64 last)
        <float[3, 1] table = {0, 1, 2}, int64 one = {1}>
        {
            last, rows = Loop(trips, go, one) <
                body = b (int64 n, bool c, int64 k) => (bool c2, int64 k2, float[1] row)
                { c2 = Identity(c)  k2 = Identity(k)  row = Gather(table, k) }
            >
        }
        """,
        "k",
    )
    assert found == []


def test_uses_inside_functions_are_found() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["": 17]>
        f (a) => (b) { b = Acosh(a) }
        """
    )
    (use,) = find_uses(model, ["x"]).uses["x"]
    assert use.low > 1


def test_a_mask_is_known_by_its_large_penalty() -> None:
    kinds = [
        use.kind
        for use in uses_of(
            """
            g (float[N, S] attention, float[N, S] scores) => (float[N, S] y)
            <float one = {1}, float penalty = {-10000}>
            { off = Sub(one, attention)  big = Mul(off, penalty)  y = Add(scores, big) }
            """,
            "attention",
        )
    ]
    assert kinds == ["mask"]


def test_a_condition_is_compared_with_its_constant() -> None:
    (use,) = uses_of(
        "g (int64 sr) => (bool y) <int64 rate = {16000}> { y = Equal(sr, rate) }", "sr"
    )
    assert use.kind == "compared"
    assert use.values[0] == 16000


def test_ranges_are_carried_back_through_arithmetic() -> None:
    (use,) = uses_of(
        "g (float[3] x) => (float[3] y) <float ten = {10}> { a = Mul(x, ten)  y = Asin(a) }", "x"
    )
    assert (use.low, use.high) == (-0.09, 0.09)


def test_weights_demand_dimensions_also_behind_a_transpose() -> None:
    model = parse(
        """
        g (float[N, H, W, C] x) => (float[N, 2, H, W] y)
        <float[2, 5, 1, 1] w = {0,1,2,3,4,5,6,7,8,9}>
        { t = Transpose<perm = [0, 3, 1, 2]>(x)  y = Conv(t, w) }
        """
    )
    assert find_uses(model, ["x"]).dims["x"] == {3: 5}
