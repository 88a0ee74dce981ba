"""Inputs and outputs stay what they were."""

from __future__ import annotations

from pathlib import Path

from tests.passes.harness import model_of
from tests.pipeline.models import Optimize, Same, floats, loaded, passed
from tests.toolbox import ops


def test_several_inputs_and_outputs_keep_their_order_and_unused_inputs_stay(
    tmp_path: Path, optimize: Optimize, same: Same
) -> None:
    model = model_of(
        "g (float[4] b, float[4] unused, float[4] a) => (float[4] z, float[4] y, float[4] x)"
        "{ i = Identity(a)\n x = Add(i, b)\n z = Neg(i)\n y = Relu(x) }"
    )
    passed(optimize(model))
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == ["b", "unused", "a"]
    assert [value.name for value in result.graph.output] == ["z", "y", "x"]
    same(a=floats(4), b=floats(4), unused=floats(4))


def test_one_tensor_under_two_output_names(tmp_path: Path, optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y, float[4] z, float[4] w)"
        "{ a = Relu(x)\n y = Identity(a)\n z = Identity(a)\n w = Identity(x)\n d = Neg(x) }"
    )
    passed(optimize(model))
    assert "Neg" not in ops(tmp_path / "out.onnx")
    same(x=floats(4))


def test_outputs_that_are_constants(optimize: Optimize, same: Same) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[3] k, float[3] w2)"
        "{ i = Identity(x)\n y = Neg(i)\n k = Abs(w)\n w2 = Identity(w) }",
        weights={"w": floats(3)},
    )
    passed(optimize(model))
    same(x=floats(2))


def test_a_graph_without_nodes(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of("g (float[2] x) => (float[2] w) { }", weights={"w": floats(2)})
    report = optimize(model)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
    assert not report.decision.kept


def test_an_output_that_is_an_input_passes_through(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of("g (float[2] x) => (float[2] x) { d = Identity(x) }")
    report = optimize(model)
    assert report.verification.status in ("passed", "unverified")


def test_random_operators_are_compared_by_shape(optimize: Optimize) -> None:
    model = model_of(
        "g (float[3,4] x) => (float[3,4] y, float[3,4] z)"
        "{ i = Identity(x)\n r = RandomNormalLike(i)\n y = Add(r, i)\n z = Neg(i) }"
    )
    report = optimize(model)
    passed(report)
    assert report.decision.kept
