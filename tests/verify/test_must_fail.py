"""Real networks with one weight changed: verification must see it, whatever weight it is.

Only weights are changed that some output depends on: input 1 of a layer, reached from the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ort_optim.engine import Engine
from ort_optim.verify.inputs import InputPlan, find_inputs
from ort_optim.verify.judge import Verifier

ROOT = Path(__file__).parents[2]
MODELS = sorted(path.name for path in (ROOT / "models").glob("*.onnx"))
WEIGHTS_PER_MODEL = 4
LAYERS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": -1, "LSTM": 1, "DequantizeLinear": 0}
"""By op, the axis of output channels in the weight."""


@dataclass(frozen=True)
class Weight:
    """A weight of a model: the initializer's name, and its axis of output channels."""

    name: str
    axis: int


def weights_of(model: ModelProto) -> list[Weight]:
    """Weights of layers of the main graph, in a random order that is always the same."""
    matrices = {t.name for t in model.graph.initializer if len(t.dims) >= 2}
    found = {
        name: Weight(name, _output_axis(node))
        for node in model.graph.node
        if node.op_type in LAYERS
        for name in node.input[:2]
        if name in matrices
    }
    order = np.random.default_rng(0).permutation(len(found))
    return [list(found.values())[i] for i in order]


def _output_axis(node: NodeProto) -> int:
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return 0 if transposed else 1
    return LAYERS[node.op_type]


def changed(model: ModelProto, weight: Weight, change: str) -> ModelProto:
    """A copy of the model with one weight zeroed, scaled, reversed along its output channels."""
    copy = ModelProto()
    copy.CopyFrom(model)
    tensor: TensorProto = next(t for t in copy.graph.initializer if t.name == weight.name)
    values = numpy_helper.to_array(tensor)
    if change == "zeroed":
        values = np.zeros_like(values)
    elif change == "scaled":
        values = (values * 1.05).astype(values.dtype)
    elif change == "permuted":
        values = np.flip(values, weight.axis)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    return copy


@pytest.mark.parametrize("name", MODELS)
def test_a_changed_weight_is_seen(engine: Engine, own_models: Path, name: str) -> None:
    model = onnx.load(own_models / name)
    session = engine.open(model)
    found = find_inputs(engine, session, model)
    engine.close(session)
    assert isinstance(found, InputPlan)
    verifier = Verifier(engine, model, found.feeds, found.outputs)
    weights = weights_of(model)[:WEIGHTS_PER_MODEL]
    assert weights
    same = verifier.check(changed(model, weights[0], "not at all"))
    assert same.passed
    assert same.exercised
    for weight in weights:
        for change in ("zeroed", "scaled", "permuted"):
            verdict = verifier.check(changed(model, weight, change))
            assert not verdict.passed, (weight.name, change)
            assert verdict.outputs, verdict.reason  # it ran
