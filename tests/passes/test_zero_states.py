from __future__ import annotations

import numpy as np

from ort_optim.engine import Engine
from ort_optim.passes import dead_code, zero_states
from tests.passes.harness import check, model_of

PASSES = (zero_states.PASS, dead_code.PASS)
RNG = np.random.default_rng(0)


def weights(gates: int, hidden: int = 3, width: int = 4) -> dict[str, np.ndarray]:
    return {
        "w": RNG.standard_normal((1, gates * hidden, width)).astype(np.float32),
        "r": RNG.standard_normal((1, gates * hidden, hidden)).astype(np.float32),
        "b": RNG.standard_normal((1, 2 * gates * hidden)).astype(np.float32),
    }


def test_zero_states_computed_from_the_batch_are_left_out_and_their_shape_dies(
    engine: Engine,
) -> None:
    model = model_of(
        """g (float[5, 2, 4] x) => (float[5, 1, 2, 3] y) {
            shape = Shape <start = 1, end = 2> (x)
            full = Concat <axis = 0> (one, shape, three)
            zeros = ConstantOfShape(full)
            y, h, c = LSTM <hidden_size = 3> (x, w, r, b, , zeros, zeros)
        }""",
        weights={"one": np.array([1]), "three": np.array([3]), **weights(4)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"LSTM": 1}
    assert list(outcome.model.graph.node[0].input) == ["x", "w", "r", "b"]


def test_peepholes_behind_zero_states_stay_in_place(engine: Engine) -> None:
    model = model_of(
        """g (float[5, 2, 4] x) => (float[5, 1, 2, 3] y) {
            y, h, c = LSTM <hidden_size = 3> (x, w, r, b, , zeros, zeros, p)
        }""",
        weights={
            "zeros": np.zeros((1, 2, 3), np.float32),
            "p": RNG.standard_normal((1, 9)).astype(np.float32),
            **weights(4),
        },
    )
    outcome = check(engine, model, PASSES)
    assert list(outcome.model.graph.node[0].input) == ["x", "w", "r", "b", "", "", "", "p"]
    assert "zeros" not in {tensor.name for tensor in outcome.model.graph.initializer}


def test_a_state_that_is_not_zero_stays(engine: Engine) -> None:
    model = model_of(
        "g (float[5, 2, 4] x) => (float[1, 2, 3] h) "
        "{ y, h = GRU <hidden_size = 3> (x, w, r, b, , s) }",
        weights={"s": np.full((1, 2, 3), 0.5, np.float32), **weights(3)},
    )
    assert not check(engine, model, PASSES).context.rewrites


def test_a_bias_of_zeros_is_left_out(engine: Engine) -> None:
    model = model_of(
        "g (float[1, 2, 5, 5] x) => (float[1, 3, 3, 3] y) { y = Conv(x, w, b) }",
        weights={
            "w": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
            "b": np.zeros(3, np.float32),
        },
    )
    assert list(check(engine, model, PASSES).model.graph.node[0].input) == ["x", "w"]


def test_gemm_keeps_its_c_where_the_operator_set_demands_it(engine: Engine) -> None:
    text = "g (float[2, 3] x) => (float[2, 4] y) { y = Gemm(x, w, c) }"
    constants = {
        "w": RNG.standard_normal((3, 4)).astype(np.float32),
        "c": np.zeros(4, np.float32),
    }
    new = check(engine, model_of(text, weights=constants), PASSES)
    assert list(new.model.graph.node[0].input) == ["x", "w"]
    old = check(engine, model_of(text, opset=9, weights=constants), PASSES)
    assert list(old.model.graph.node[0].input) == ["x", "w", "c"]
    assert "not optional" in old.reasons[0]
