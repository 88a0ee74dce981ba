"""What the tests of shape folding share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from ort_optim.engine import Engine
from ort_optim.passes import constant_folding, constant_nodes, dead_code, shape_folding
from tests.passes.harness import Outcome, check

PASSES = (dead_code.PASS, constant_nodes.PASS, constant_folding.PASS, shape_folding.PASS)

BATCHED = """g (float[n, 4, 6] x) => (float[a, b, c] y) {
    s = Shape(x)
    i = Gather(s, zero)
    u = Unsqueeze(i, first)
    t = Concat<axis = 0>(u, rest)
    y = Reshape(x, t)
}"""


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def check_sizes(engine: Engine, model: onnx.ModelProto, shapes: Sequence[Sequence[int]]) -> Outcome:
    """Check a model with the one float input x at each of these shapes of x."""
    outcome = None
    for shape in shapes:
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        outcome = check(engine, model, PASSES, feeds={"x": x})
    assert outcome is not None
    return outcome


def target(outcome: Outcome) -> list[int]:
    """The only integer initializer of a result."""
    [found] = [t for t in outcome.model.graph.initializer if t.data_type == TensorProto.INT64]
    return onnx.numpy_helper.to_array(found).tolist()
