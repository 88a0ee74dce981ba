from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from ort_optim.engine import Engine, EngineError, ModelSource
from ort_optim.verify.compare import (
    EXACT,
    NEAR_TIE,
    PLAIN,
    RANDOM,
    SNR,
    TWICE_OWN,
    Tolerance,
)
from ort_optim.verify.judge import NOT_EXERCISED, Verifier
from tests.verify.models import chain, parse
from tests.verify.mortal import Mortal

FEEDS = [
    {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)},
    {"x": np.linspace(1, 2, 6, dtype=np.float32).reshape(2, 3)},
]


def test_the_reference_agrees_with_itself_exactly(engine: Engine) -> None:
    verdict = Verifier(engine, chain(), FEEDS).check(chain())
    assert verdict.passed
    assert verdict.sets == 2
    assert verdict.max_abs == 0
    assert {comparison.decided_by for comparison in verdict.outputs} == {EXACT}


def test_a_model_may_come_as_a_source(engine: Engine) -> None:
    source = ModelSource(proto=chain().SerializeToString())
    assert Verifier(engine, source, FEEDS).check(source).passed


def test_rounding_passes_and_a_wrong_weight_does_not(engine: Engine) -> None:
    verifier = Verifier(engine, chain(), FEEDS)
    near = verifier.check(chain(scale=2.0001))
    assert near.passed
    assert near.outputs[0].decided_by == PLAIN
    wrong = verifier.check(chain(scale=2.1))
    assert not wrong.passed
    assert "'y'" in wrong.reason
    assert wrong.max_abs == pytest.approx(0.1, rel=1e-3)


def test_a_fault_that_shows_in_a_later_set_only_is_found(engine: Engine) -> None:
    verifier = Verifier(engine, chain("Relu"), FEEDS[::-1])  # negative numbers only in the second
    verdict = verifier.check(chain("Abs"))
    assert not verdict.passed
    assert verdict.outputs[0].set_index == 1


def test_the_check_ends_at_the_first_set_that_fails_unless_asked(engine: Engine) -> None:
    verifier = Verifier(engine, chain("Relu"), FEEDS)
    assert verifier.check(chain("Neg")).sets == 1
    assert verifier.check(chain("Neg"), all_sets=True).sets == 2


def test_given_outputs_are_not_computed_again(engine: Engine) -> None:
    outputs = [{"y": np.zeros((2, 3), np.float32)}] * 2
    assert not Verifier(engine, chain(), FEEDS, outputs).check(chain()).passed


def test_a_candidate_that_ort_refuses_fails_with_the_reason(engine: Engine) -> None:
    verdict = Verifier(engine, chain(), FEEDS).check(chain("NoSuchOp"))
    assert not verdict.passed
    assert "NoSuchOp" in verdict.reason
    assert verdict.outputs == ()


def test_a_candidate_that_cannot_run_fails_with_the_reason(engine: Engine) -> None:
    candidate = parse(
        "g (float[2, 3] x) => (float[2, 3] y) <int64[1] s = {7}> "
        "{ a = Shape(x)  b = Reshape(x, s)  y = Reshape(b, a) }"
    )
    verdict = Verifier(engine, chain(), FEEDS).check(candidate)
    assert not verdict.passed
    assert "can't be run" in verdict.reason


def test_a_changed_interface_fails(engine: Engine) -> None:
    renamed = parse("g (float[2, 3] x) => (float[2, 3] z) { z = Relu(x) }")
    verdict = Verifier(engine, chain(), FEEDS).check(renamed)
    assert not verdict.passed
    assert "outputs are z: tensor(float) instead of y: tensor(float)" in verdict.reason


def test_a_reference_that_fails_is_an_error(engine: Engine) -> None:
    with pytest.raises(EngineError):
        Verifier(engine, chain(), [{"x": np.zeros((5, 5), np.float32)}])


def with_noise(weight: float = 1.0, op: str = "RandomNormalLike", name: str = "r") -> ModelProto:
    """y = w (w x + noise), of which `op` makes the noise under the name `name`."""
    return parse(
        f"""
        g (float[2, 3] x) => (float[2, 3] y) <float w = {{{weight}}}>
        {{ mean = Mul(x, w) {name} = {op}(mean) z = Add(mean, {name}) y = Mul(z, w) }}
        """
    )


def test_models_that_keep_their_random_ops_are_judged_on_the_same_noise(engine: Engine) -> None:
    verifier = Verifier(engine, with_noise(), FEEDS)
    same = verifier.check(with_noise())
    assert same.passed
    assert same.exercised
    assert same.outputs[0].decided_by == EXACT
    assert verifier.check(with_noise(1.00001), optimize=True).outputs[0].decided_by == PLAIN
    assert not verifier.check(with_noise(1.1)).passed


@pytest.mark.parametrize(
    "candidate", [with_noise(9.0, op="RandomUniformLike"), with_noise(9.0, name="renamed")]
)
def test_without_their_random_ops_models_are_judged_by_shape_and_type(
    engine: Engine, candidate: ModelProto
) -> None:
    verdict = Verifier(engine, with_noise(), FEEDS).check(candidate)
    assert verdict.passed
    assert verdict.outputs[0].decided_by == RANDOM
    assert not verdict.exercised
    assert verdict.reason == NOT_EXERCISED


def test_the_odds_that_a_random_op_reads_are_compared(engine: Engine) -> None:
    template = """
        g (float[2, 3] x) => (float[2, 3] y) <float w = {{{0}}}>
        {{ p = Mul(x, w)  odds = Sigmoid(p)  y = Bernoulli(odds) }}
    """
    verifier = Verifier(engine, parse(template.format(1.0)), FEEDS)
    same = verifier.check(parse(template.format(1.0)))
    assert same.passed
    assert [c.name for c in same.outputs] == ["y"]
    assert [c.name for c in same.inner] == ["y (odds)"]
    assert not verifier.check(parse(template.format(1.1))).passed


def classifier(nudge: float, index: str = "ArgMax<axis = 1, keepdims = 0>") -> ModelProto:
    return parse(
        f"""
        g (float[2, 3] x) => (int64[2] y)
        <float[3] bias = {{0, {nudge}, 0}}>
        {{ scores = Add(x, bias)  y = {index}(scores) }}
        """
    )


TIE = [{"x": np.array([[1, 1, 0], [0, 2, 5]], np.float32)}]


def test_an_argmax_that_flips_on_a_near_tie_is_not_blamed(engine: Engine) -> None:
    verdict = Verifier(engine, classifier(0), TIE).check(classifier(1e-6))
    assert verdict.passed
    assert verdict.outputs[0].decided_by == NEAR_TIE


def test_an_argmax_whose_input_is_wrong_is_blamed(engine: Engine) -> None:
    verdict = Verifier(engine, classifier(0), TIE).check(classifier(0.1))
    assert not verdict.passed
    assert verdict.outputs[0].decided_by == EXACT


def test_an_argmax_that_is_itself_wrong_is_blamed(engine: Engine) -> None:
    wrong = classifier(1e-6, "ArgMin<axis = 1, keepdims = 0>")
    assert not Verifier(engine, classifier(0), TIE).check(wrong).passed


def selection(nudge: float, rename: str = "scores") -> ModelProto:
    return parse(
        f"""
        g (float[4] x) => (float[2] best, int64[2] where, float[2] doubled)
        <float[4] bias = {{0, {nudge}, 0, 0}}, int64[1] k = {{2}}, float two = {{2}},
         float[4] payload = {{10, 20, 30, 40}}>
        {{
            {rename} = Add(x, bias)
            best, where = TopK({rename}, k)
            picked = Gather(payload, where)
            doubled = Mul(picked, two)
        }}
        """
    )


def test_what_follows_from_a_near_tie_is_not_blamed_either(engine: Engine) -> None:
    feeds = [{"x": np.array([3, 3, 1, 0], np.float32)}]
    verifier = Verifier(engine, selection(0), feeds)
    verdict = verifier.check(selection(1e-6, rename="renamed"))
    assert verdict.passed
    decided = {comparison.name: comparison.decided_by for comparison in verdict.outputs}
    assert decided["where"] == decided["doubled"] == NEAR_TIE
    assert decided["best"] == PLAIN


def test_orts_own_noise_widens_no_tolerance_that_is_stated_unless_asked(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    model = parse(
        """
        g (float[1, 64, 9, 9] x) => (float[1, 8, 9, 9] y)
        <float[8, 64, 3, 3] w = {0}, float[8, 1, 1] s = {0}>
        { c = Conv<pads = [1, 1, 1, 1]>(x, w)  y = Mul(c, s) }
        """
    )
    for tensor in model.graph.initializer:
        values = rng.standard_normal(tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    feeds = [{"x": rng.standard_normal((1, 64, 9, 9)).astype(np.float32)}]
    exact = Tolerance(rtol=0.0, atol=2e-7)  # ORT fuses the Mul into the Conv: rounding differs
    strict = Verifier(engine, model, feeds, tolerance=exact)
    assert not strict.check(model, optimize=True).passed
    lenient = Verifier(engine, model, feeds, tolerance=exact, own_noise=True)
    verdict = lenient.check(model, optimize=True)
    assert verdict.passed
    assert verdict.outputs[0].decided_by in (TWICE_OWN, SNR)


def test_a_candidate_that_crashes_ort_fails_and_the_next_one_is_judged() -> None:
    with Mortal(deaths={3}) as mortal:
        verifier = Verifier(mortal, chain(), FEEDS)
        crashed = verifier.check(chain())
        assert not crashed.passed
        assert "SIGSEGV" in crashed.reason
        assert verifier.check(chain()).passed


def test_a_crash_of_the_references_optimized_session_is_not_the_candidates_fault() -> None:
    with Mortal(deaths={4}) as mortal:  # two runs of the reference, one of the candidate
        verifier = Verifier(mortal, chain(), FEEDS)
        verdict = verifier.check(chain(scale=2.1), all_sets=True)
        assert verdict.sets == 2
        assert "error" in verdict.reason
        assert verifier.check(chain()).passed
