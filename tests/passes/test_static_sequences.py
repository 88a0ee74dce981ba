from __future__ import annotations

import numpy as np
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import constant_nodes, dead_code, static_sequences
from tests.passes.harness import check, model_of

PASSES = (constant_nodes.PASS, static_sequences.PASS, dead_code.PASS)


def at(*positions: int) -> dict[str, np.ndarray]:
    return {f"i{number}": np.array(value, np.int64) for number, value in enumerate(positions)}


def test_an_element_of_a_known_sequence_is_taken_directly(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
            a = Neg(x)  b = Exp(x)
            s = SequenceConstruct(a, b)
            c = SequenceAt(s, i0)
            y = Relu(c)
            z = SequenceAt(s, i1)
        }""",
        weights=at(1, -2),
    )
    assert check(engine, model, PASSES).ops == {"Neg": 1, "Exp": 1, "Relu": 1, "Identity": 1}


def test_a_chain_of_inserts_and_erases_is_followed(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x, float[3] v) => (float[k] y) {
            e = SequenceEmpty()
            s1 = SequenceInsert(e, x)
            s2 = SequenceInsert(s1, v, i0)
            s3 = SequenceInsert(s2, x, i1)
            s4 = SequenceErase(s3, i2)
            y = ConcatFromSequence<axis = 0>(s4)
        }""",
        weights=at(0, -1, 0),
    )
    assert check(engine, model, PASSES).ops == {"Concat": 1}


def test_the_length_of_a_known_sequence_is_constant(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (int64 n) { s = SequenceConstruct(x, x)  n = SequenceLength(s) }"""
    )
    assert not check(engine, model, PASSES).ops


def test_stacking_a_sequence_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (float[k, 2] y) {
            s = SequenceConstruct(x, x)
            y = ConcatFromSequence<axis = 0, new_axis = 1>(s)
        }"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"SequenceConstruct": 1, "ConcatFromSequence": 1}
    assert outcome.reasons == ["each element would need an Unsqueeze"]


def test_a_computed_position_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x, int64 i) => (float[2] y) {
            s = SequenceConstruct(x, x)  y = SequenceAt(s, i)
        }"""
    )
    feeds = {"x": np.ones(2, np.float32), "i": np.array(1)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert outcome.ops == {"SequenceConstruct": 1, "SequenceAt": 1}


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("SplitToSequence<axis = 1>(x, list)", {}),
        ("SplitToSequence<axis = -1>(x, chunk)", {}),
        ("SplitToSequence<axis = 1, keepdims = 0>(x)", {"Squeeze": 2}),
    ],
)
def test_a_split_into_known_parts_needs_no_sequence(
    engine: Engine, opset: int, call: str, more: dict[str, int]
) -> None:
    model = model_of(
        f"""g (float[2, 7] x) => (float[a] y, float[b] z) {{
            s = {call}
            p = SequenceAt(s, i0)  q = SequenceAt(s, i1)
            y = Relu(p)  z = Neg(q)
        }}""",
        opset=opset,
        weights={**at(0, -1), "list": np.array([3, 0, 4]), "chunk": np.array(3, np.int64)},
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
        rank = 1 if more else 2
        for _ in range(rank):
            output.type.tensor_type.shape.dim.add()
    assert check(engine, model, PASSES).ops == {"Split": 1, "Relu": 1, "Neg": 1, **more}


def test_a_split_of_an_axis_of_unknown_length_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2, n] x) => (float[2, k] y) {
            s = SplitToSequence<axis = 1>(x, two)
            p = SequenceAt(s, i0)
            y = Relu(p)
        }""",
        weights={**at(0), "two": np.array(2, np.int64)},
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"SplitToSequence": 1, "SequenceAt": 1, "Relu": 1}
    assert outcome.reasons == ["the sizes of its parts are not known"]


def test_a_split_that_is_also_concatenated_stays(engine: Engine) -> None:
    model = model_of(
        """g (float[2, 4] x) => (float[2, 2] y, float[2, 4] z) {
            s = SplitToSequence<axis = 1>(x, two)
            p = SequenceAt(s, i0)
            y = Relu(p)
            z = ConcatFromSequence<axis = 1>(s)
        }""",
        weights={**at(0), "two": np.array(2, np.int64)},
    )
    assert check(engine, model, PASSES).ops["SplitToSequence"] == 1


def test_without_fuel_nothing_changes(engine: Engine) -> None:
    model = model_of(
        """g (float[2] x) => (int64 n) { s = SequenceConstruct(x, x)  n = SequenceLength(s) }"""
    )
    assert check(engine, model, PASSES, limit=0).ops["SequenceLength"] == 1
