from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, reshape_chain, same_shape
from tests.passes.harness import check, model_of

PASSES = (reshape_chain.PASS, dead_code.PASS)


def _i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("body", "out", "constants"),
    [
        ("t = Reshape(x, c)\n y = Unsqueeze(t, d)", "6, 1, 4", {"c": _i64(6, 4), "d": _i64(1)}),
        ("t = Reshape(x, c)\n y = Reshape(t, d)", "8, 3", {"c": _i64(6, 4), "d": _i64(8, -1)}),
        ("t = Reshape(x, c)\n y = Reshape(t, d)", "6, 2, 2", {"c": _i64(6, 4), "d": _i64(0, 2, 2)}),
        ("t = Flatten(x)\n y = Unsqueeze(t, d)", "1, 2, 12", {"d": _i64(0)}),
        ("t = Transpose<perm = [1, 0, 2, 3]>(x)\n y = Reshape(t, c)", "6, 4", {"c": _i64(6, 4)}),
        ("t = Reshape(x, c)\n y = Transpose<perm = [0, 2, 1]>(t)", "6, 4, 1", {"c": _i64(6, 1, 4)}),
        ("t = ReduceMean<axes = [1], keepdims = 0>(x)\n y = Flatten(t)", "2, 12", {}),
        ("t = Gather<axis = 1>(x, c)\n y = Flatten<axis = 2>(t)", "6, 4", {"c": _i64(-1)[0]}),
    ],
)
def test_two_regroupings_become_one(
    engine: Engine, body: str, out: str, constants: dict[str, np.ndarray]
) -> None:
    model = model_of(f"g (float[2, 1, 3, 4] x) => (float[{out}] y) {{ {body} }}", weights=constants)
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Reshape": 1}
    assert len(outcome.model.graph.initializer) == 1


def test_a_chain_that_comes_back_to_the_shape_goes(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) {
            a = Neg(x)
            b = Flatten(a)
            c = Unsqueeze(b, i)
            d = Squeeze(c)
            e = Reshape(d, s)
            y = Abs(e)
        }""",
        weights={"i": _i64(1, 3), "s": _i64(2, 3, 4)},
    )
    outcome = check(engine, model, (*PASSES, same_shape.PASS))
    assert outcome.ops == {"Neg": 1, "Abs": 1}


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(("first", "second"), [("Squeeze", "Unsqueeze"), ("Unsqueeze", "Squeeze")])
def test_what_is_removed_and_added_again_needs_no_shape(
    engine: Engine, opset: int, first: str, second: str
) -> None:
    def call(op: str, source: str) -> str:
        return f"{op}<axes = [1]>({source})" if opset < 13 else f"{op}({source}, i)"

    model = model_of(
        "g (float[N, 1, M] x) => (float[A, B, C] y) "
        f"{{ a = {call(first, 'x')}\n b = {call(second, 'a')}\n y = Neg(b) }}",
        opset=opset,
        weights={"i": _i64(1)} if opset >= 13 else {},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.ones((2, 1, 3), np.float32)})
    assert outcome.ops[second] == 0


def test_squeeze_of_other_axes_than_were_added_stays_right(engine: Engine) -> None:
    model = model_of(
        "g (float[N, 1] x) => (float[A, B] y) { a = Unsqueeze(x, i)\n y = Squeeze(a, j) }",
        weights={"i": _i64(0), "j": _i64(2)},
    )
    check(engine, model, PASSES, feeds={"x": np.ones((4, 1), np.float32)})


@pytest.mark.parametrize("opset", [11, 17])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_consecutive_unsqueezes_or_squeezes_of_unknown_dimensions_become_one(
    engine: Engine, opset: int, data: st.DataObject
) -> None:
    inner = data.draw(st.sets(st.integers(0, 3), min_size=1, max_size=2), "inner")
    outer = data.draw(st.sets(st.integers(0, 5), min_size=1, max_size=2), "outer")
    total = 2 + len(inner) + len(outer)
    inner = {axis % (2 + len(inner)) for axis in inner}
    total = 2 + len(inner) + len(outer)
    outer = {axis % total for axis in outer}
    total = 2 + len(inner) + len(outer)
    if max(outer) >= total:
        return
    weights, parts = {}, []
    for name, op, source, target, axes in (
        ("i", "Unsqueeze", "x", "a", inner),
        ("j", "Unsqueeze", "a", "b", outer),
        ("k", "Neg", "b", "c", None),
        ("l", "Squeeze", "c", "d", outer),
        ("m", "Squeeze", "d", "y", inner),
    ):
        if axes is None:
            parts.append(f"{target} = {op}({source})")
        elif opset < 13:
            parts.append(f"{target} = {op}<axes = {sorted(axes)}>({source})")
        else:
            weights[name] = _i64(*axes)
            parts.append(f"{target} = {op}({source}, {name})")
    model = model_of(
        "g (float[N, M] x) => (float[A, B] y) { " + "\n".join(parts) + " }",
        opset=opset,
        weights=weights,
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.ones((2, 3), np.float32)})
    assert outcome.ops == {"Unsqueeze": 1, "Neg": 1, "Squeeze": 1}


def test_an_unknown_dimension_that_stays_in_place_is_written_as_zero(engine: Engine) -> None:
    model = model_of(
        "g (float[N, 3, M, 4] x) => (float[N, 3, P] y) { t = Reshape(x, c)\n y = Squeeze(t, d) }",
        weights={"c": _i64(0, 1, 3, -1), "d": _i64(1)},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.ones((2, 3, 2, 4), np.float32)})
    assert outcome.ops == {"Reshape": 1}
    assert numpy_helper.to_array(outcome.model.graph.initializer[0]).tolist() == [0, 3, -1]


def test_zero_and_minus_one_are_not_mixed_where_empty_tensors_worked(engine: Engine) -> None:
    model = model_of(
        "g (float[N, 1, M, 4] x) => (float[N, P, 4] y) "
        "{ t = Squeeze(x, d)\n u = Unsqueeze(t, e)\n y = Squeeze(u, f) }",
        weights={"d": _i64(1), "e": _i64(0), "f": _i64(0)},
    )
    outcome = check(engine, model, PASSES, feeds={"x": np.ones((0, 1, 2, 4), np.float32)})
    assert "Reshape" not in outcome.ops


def test_an_intermediate_that_is_read_elsewhere_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4] x) => (float[24] y, float[6, 4] z) "
        "{ t = Reshape(x, c)\n y = Reshape(t, d)\n z = Neg(t) }",
        weights={"c": _i64(6, 4), "d": _i64(-1)},
    )
    assert check(engine, model, PASSES).ops == {"Reshape": 2, "Neg": 1}


def test_all_regroupings_that_read_one_move_past_it_together(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4] x) => (float[24] y, float[6, 1, 4] z) "
        "{ t = Reshape(x, c)\n y = Reshape(t, d)\n z = Unsqueeze(t, e) }",
        weights={"c": _i64(6, 4), "d": _i64(-1), "e": _i64(1)},
    )
    assert check(engine, model, PASSES).ops == {"Reshape": 2}


def test_a_target_known_only_at_run_time_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4] x, int64[2] s) => (float[A, B, C] y) "
        "{ t = Reshape(x, s)\n y = Unsqueeze(t, c) }",
        weights={"c": _i64(0)},
    )
    feeds = {"x": np.ones((2, 3, 4), np.float32), "s": _i64(4, 6)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == {"Reshape": 1, "Unsqueeze": 1}
    assert outcome.reasons == ["no constant shape for the Unsqueeze after it is known"]


def test_a_transpose_that_moves_data_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[2, 3, 4] x) => (float[24] y) "
        "{ t = Transpose<perm = [0, 2, 1]>(x)\n y = Reshape(t, c) }",
        weights={"c": _i64(-1)},
    )
    assert check(engine, model, PASSES).ops == {"Transpose": 1, "Reshape": 1}


def test_a_chain_in_a_branch_that_reads_from_outside_is_left_apart(engine: Engine) -> None:
    model = model_of(
        """g (bool b, float[2, 3] x) => (float[6] y) {
            t = Reshape(x, c)
            y = If(b) <
                then_branch = t () => (float[6] p) { p = Reshape(t, d) },
                else_branch = e () => (float[6] q) { u = Reshape(x, c) q = Reshape(u, d) }
            >
        }""",
        weights={"c": _i64(3, 2), "d": _i64(6)},
    )
    assert check(engine, model, PASSES).ops == {"Reshape": 3, "If": 1}


def test_the_two_unsqueezes_of_an_attention_mask_stay(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 3] m) => (float[2, 1, 1, 3] y) {
            a = Unsqueeze(m, one)
            b = Unsqueeze(a, two)
            y = Sub(c, b)
        }""",
        weights={
            "one": np.array([1]),
            "two": np.array([2]),
            "c": np.array(1, np.float32),
        },
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Unsqueeze": 2, "Sub": 1}
    assert "attention" in outcome.reasons[0]
