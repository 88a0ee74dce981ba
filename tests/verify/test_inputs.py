from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from ort_optim.engine import Engine
from ort_optim.verify.inputs import InputFailure, InputPlan, find_inputs, generate
from tests.verify.models import parse
from tests.verify.mortal import Mortal


def plan_for(engine: Engine, model: ModelProto, **options: object) -> InputPlan:
    session = engine.open(model)
    try:
        found = find_inputs(engine, session, model, **options)  # type: ignore[arg-type]
    finally:
        engine.close(session)
    assert isinstance(found, InputPlan), found
    return found


EMBEDDING = """
    g (int64[batch, seq] ids, int64[batch, seq] mask) => (float[batch, seq, 2] y)
    <float[3, 2] table = {1, 2, 3, 4, 5, 6}>
    {
        e = Gather(table, ids)
        m = Cast<to = 1>(mask)
        axis = Constant<value = int64[1] {-1}>()
        m3 = Unsqueeze(m, axis)
        y = Mul(e, m3)
    }
"""


def test_a_model_with_dynamic_dimensions_runs_on_several_sizes(engine: Engine) -> None:
    plan = plan_for(engine, parse(EMBEDDING))
    assert len(plan.feeds) == len(plan.outputs) == len(plan.shapes) == len(plan.seconds) == 3
    assert plan.shapes[0]["ids"][0] == 1
    assert plan.shapes[1]["ids"][0] == 2
    assert all(shapes["ids"] == shapes["mask"] for shapes in plan.shapes)
    assert any("open dimensions" in note for note in plan.notes)


def test_the_same_seed_gives_the_same_inputs(engine: Engine) -> None:
    first, second = (plan_for(engine, parse(EMBEDDING), seed=5) for _ in range(2))
    for a, b in zip(first.feeds, second.feeds, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    other = plan_for(engine, parse(EMBEDDING), seed=6)
    assert not np.array_equal(first.feeds[0]["ids"], other.feeds[0]["ids"])


def test_pinned_shapes_are_kept_in_all_sets(engine: Engine) -> None:
    plan = plan_for(engine, parse(EMBEDDING), pins={"ids": (3, 5)})
    assert all(shapes == {"ids": (3, 5), "mask": (3, 5)} for shapes in plan.shapes)


def test_sizes_are_tried_until_the_reference_accepts_them(engine: Engine) -> None:
    model = parse(
        """
        g (float[n] x) => (float[2, k] y)
        <int64[2] shape = {2, 7}>
        { y = Reshape(x, shape) }
        """
    )
    session = engine.open(model)
    found = find_inputs(engine, session, model)
    engine.close(session)
    assert isinstance(found, InputFailure)
    assert found.tries > 1
    assert "Reshape" in found.reason
    accepting = parse(
        "g (float[n] x) => (float[k, 3] y) <int64[2] s = {-1, 3}> { y = Reshape(x, s) }"
    )
    assert plan_for(engine, accepting).shapes[0]["x"][0] % 3 == 0


def test_values_that_give_nan_are_drawn_again_from_narrower_ranges(engine: Engine) -> None:
    model = parse(
        "g (float[50] x) => (float[50] y) <float c = {0.05}> { a = Sub(x, c) b = Relu(a) "
        "d = Mul(b, a) e = Div(d, b) f = Mul(e, e) y = Sub(f, c) }"
    )
    plan = plan_for(engine, model)
    assert all(np.isfinite(outputs["y"]).all() for outputs in plan.outputs)


def test_a_reference_that_is_nan_anyway_is_taken_with_a_note(engine: Engine) -> None:
    model = parse("g (float[5] x) => (float[5] y) { z = Sub(x, x) y = Div(z, z) }")
    plan = plan_for(engine, model)
    assert np.isnan(plan.outputs[0]["y"]).all()
    assert any("NaN" in note for note in plan.notes)


def test_both_branches_are_taken_over_the_sets(engine: Engine) -> None:
    model = parse(
        """
        g (bool c) => (float[1] y)
        {
            y = If(c) <
                then_branch = t () => (float[1] a) { a = Constant<value = float[1] {1}>() },
                else_branch = e () => (float[1] b) { b = Constant<value = float[1] {2}>() }
            >
        }
        """
    )
    plan = plan_for(engine, model, count=2)
    assert {float(outputs["y"][0]) for outputs in plan.outputs} == {1.0, 2.0}


def test_a_model_without_inputs_has_one_set(engine: Engine) -> None:
    model = parse("g () => (float[1] y) { y = Constant<value = float[1] {1}>() }")
    assert plan_for(engine, model).feeds == ({},)


def test_no_time_means_one_set(engine: Engine) -> None:
    model = parse("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    plan = plan_for(engine, model, budget_s=0.0)
    assert len(plan.feeds) == 1


@pytest.mark.parametrize(
    "graph",
    [
        "(float[2,3] x, int64[n] s) => (float[a,b] y) { y = Reshape(x, s) }",
        "(float[1,3] x, int64[2] s) => (float[a,b] y) { y = Expand(x, s) }",
        "(float[2,5] x, int64[1] k) => (float[2,a] v, int64[2,a] i) { v, i = TopK(x, k) }",
        "(int64 a, int64 b, int64 c) => (int64[n] y) { y = Range(a, b, c) }",
        "(float[1,1,4,4] x, int64[4] s) => (float[a,b,c,d] y) { y = Resize(x, , , s) }",
        "(float[1,1,4,4] x, float[4] s) => (float[a,b,c,d] y) { y = Resize(x, , s) }",
        "(float[3,4] x, int64[2] p) => (float[a,b] y) "
        "{ y0, y1 = Split<axis = 1>(x, p)  y = Concat<axis = 1>(y0, y1) }",
        "(float[3,4] x, int64[4] p) => (float[a,b] y) { y = Pad(x, p) }",
        "(float[3,4] x, int64[1] b, int64[1] e) => (float[n,m] y) { y = Slice(x, b, e) }",
        "(float[3,4] x, int64[2,2] i) => (float[n] y) { y = GatherND(x, i) }",
        "(float[3,4] x, int64[3,4] i, float[3,4] u) => (float[3,4] y) "
        "{ y = ScatterElements(x, i, u) }",
        "(int64[3] i, int64 d) => (float[3,n] y) <float[2] v = {0, 1}> { y = OneHot(i, d, v) }",
        "(float[1,6,4] b, float[1,2,6] s, int64[1] n, float[1] t, float[1] u) => "
        "(int64[k,3] y) { y = NonMaxSuppression(b, s, n, t, u) }",
        "(float[2,3] x, float s, uint8 z) => (uint8[2,3] y) { y = QuantizeLinear(x, s, z) }",
        "(float[6,2,3] x, int64[2] n) => (float[6,2,3] y) "
        "{ y = ReverseSequence<batch_axis = 1, time_axis = 0>(x, n) }",
        "(seq(float[2]) s) => (float[n] y) { y = ConcatFromSequence<axis = 0>(s) }",
        "(int64[1] k) => (float[n] y) { y = ConstantOfShape(k) }",
        "(float[1,4] x) => (float[1,n] y) { a = Log(x) b = Sqrt(a) y = Relu(b) }",
    ],
)
def test_inputs_that_are_sizes_indices_or_scales_get_values_that_run(
    engine: Engine, graph: str
) -> None:
    assert len(plan_for(engine, parse(f"g {graph}")).feeds) >= 1


def test_generate_needs_no_engine(engine: Engine) -> None:
    model = parse(EMBEDDING)
    session = engine.open(model)
    infos = engine.inputs(session)
    sets = generate(infos, model, 0, 2, shapes={"ids": (2, 4)})
    outputs = [engine.run(session, feeds)["y"] for feeds in sets]
    engine.close(session)
    assert [output.shape for output in outputs] == [(2, 4, 2)] * 2


def test_a_reference_that_crashes_ort_is_a_failure_not_an_error() -> None:
    model = parse(EMBEDDING)
    with Mortal(deaths={1}) as mortal:
        found = find_inputs(mortal, mortal.open(model), model)
    assert isinstance(found, InputFailure)
    assert "SIGSEGV" in found.reason


def test_a_crash_on_a_further_set_keeps_the_first() -> None:
    model = parse(EMBEDDING)
    with Mortal(deaths={2}) as mortal:
        found = find_inputs(mortal, mortal.open(model), model)
    assert isinstance(found, InputPlan)
    assert len(found.feeds) == 1
    assert found.session_lost
