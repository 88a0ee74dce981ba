from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from ort_optim.engine import Engine
from ort_optim.verify.frontier import find_frontier, mute_outputs
from ort_optim.verify.inputs import InputPlan, find_inputs
from ort_optim.verify.judge import NOT_EXERCISED, Verifier
from ort_optim.verify.origins import Origin
from tests.verify.models import parse


def detector(scale: float = 1.0, threshold: float = 100.0, name: str = "boxes") -> ModelProto:
    """Rows of x, scaled, whose sum exceeds the threshold: none of those that the tests feed."""
    return parse(
        f"""
        g (float[3, 4] x) => (float[M, 4] found, int64[M] rows)
        <float[1] s = {{{scale}}}, float[1] least = {{{threshold}}}, int64[1] axes = {{1}},
         int64[1] flat = {{-1}}>
        {{
            {name} = Mul(x, s)
            total = ReduceSum<keepdims = 0>({name}, axes)
            good = Greater(total, least)
            where = NonZero(good)
            rows = Reshape(where, flat)
            found = Gather({name}, rows)
        }}
        """
    )


FEEDS = [{"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}]


def test_a_detector_that_finds_nothing_is_judged_by_what_it_looked_at(engine: Engine) -> None:
    verifier = Verifier(engine, detector(), FEEDS)
    same = verifier.check(detector())
    assert same.passed
    assert same.exercised
    assert same.reason == ""
    assert {comparison.name for comparison in same.inner} == {"boxes", "total"}
    wrong = verifier.check(detector(scale=0.5))
    assert not wrong.passed
    assert "inner tensor 'total'" in wrong.reason
    assert wrong.max_abs > 0


def test_renamed_tensors_are_found_by_what_reads_them(engine: Engine) -> None:
    verifier = Verifier(engine, detector(), FEEDS)
    assert verifier.check(detector(name="renamed")).passed
    assert not verifier.check(detector(scale=0.9, name="renamed")).passed


def test_where_outputs_tell_enough_nothing_else_is_looked_at(engine: Engine) -> None:
    model = parse("g (float[3, 4] x) => (float[3, 4] y) { y = Relu(x) }")
    assert Verifier(engine, model, FEEDS).check(model).inner == ()


def test_an_argmax_that_stays_the_same_does_not_hide_wrong_scores(engine: Engine) -> None:
    template = """
        g (float[3, 4] x) => (int64[3] best) <float[1] s = {{{0}}}>
        {{ scores = Mul(x, s)  best = ArgMax<axis = 1, keepdims = 0>(scores) }}
    """
    verifier = Verifier(engine, parse(template.format(1.0)), FEEDS)
    assert verifier.check(parse(template.format(1.00001))).passed
    assert not verifier.check(parse(template.format(1.05))).passed


@pytest.mark.parametrize(
    "graph",
    [
        "g (float[3, 4] x) => (float[3, 4] y) { y = Log(x) }",
        "g (float[3, 4] x) => (float[0, 4] y) <int64[1] e = {0}> { y = Slice(x, e, e, e) }",
    ],
)
def test_a_model_whose_outputs_hold_nothing_is_not_exercised(engine: Engine, graph: str) -> None:
    model = parse(graph)
    verdict = Verifier(engine, model, [{"x": np.full((3, 4), -1, np.float32)}]).check(model)
    assert verdict.passed
    assert not verdict.exercised
    assert verdict.reason == NOT_EXERCISED


def test_shape_arithmetic_is_no_jump() -> None:
    model = parse(
        """
        g (float[1, 1, N, N] x) => (int64[1, 1, M, M] y)
        <float half = {0.5}, float[4] s = {1, 1, 0.5, 0.5}>
        {
            shape = Shape(x)
            real = Cast<to = 1>(shape)
            less = Mul(real, s)
            whole = Floor(less)
            sizes = Cast<to = 7>(whole)
            small = Resize(x, , , sizes)
            scores = Mul(small, half)
            y = ArgMax<axis = 1>(scores)
        }
        """
    )
    (cut,) = find_frontier(model.graph, model.graph, ["y"])
    assert cut.reference == cut.candidate == "scores"


def test_mute_are_empty_outputs_and_integers_behind_jumps() -> None:
    outputs = {"a": np.zeros(0), "b": np.zeros(1), "c": np.zeros(1, int), "d": np.zeros(1, int)}
    origins = {name: Origin(jumps=name != "d") for name in outputs}
    assert mute_outputs(outputs, origins) == ["a", "c"]


def test_inputs_are_drawn_again_until_outputs_hold_something(engine: Engine) -> None:
    model = parse(
        """
        g (float[2, 3] x) => (float[M] y) <float least = {2.2}>
        { hit = Greater(x, least)  y = Compress(x, hit) }
        """
    )
    found = find_inputs(engine, engine.open(model), model, seed=0)
    assert isinstance(found, InputPlan)
    value = found.outputs[0]["y"]
    assert isinstance(value, np.ndarray)
    assert value.size > 0


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_the_shipped_detector_with_other_weights_fails(
    engine: Engine, own_models: Path, scale: float
) -> None:
    model = onnx.load(own_models / "shapes_detector.onnx")
    found = find_inputs(engine, engine.open(model), model, count=1)
    assert isinstance(found, InputPlan)
    broken = ModelProto()
    broken.CopyFrom(model)
    for tensor in broken.graph.initializer:
        if len(tensor.dims) == 4:
            changed = numpy_helper.to_array(tensor) * np.float32(scale)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    verifier = Verifier(engine, model, found.feeds, found.outputs)
    assert verifier.check(model).passed
    assert not verifier.check(broken).passed
