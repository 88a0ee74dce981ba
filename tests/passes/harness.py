"""How the passes are tested: on a small model, run before and after, off against off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, parser

from ort_optim.engine import Engine
from ort_optim.graph.importing import view
from ort_optim.graph.merge import is_changed, merge
from ort_optim.passes.base import Context, Pass
from ort_optim.passes.driver import run_passes
from ort_optim.passes.measure import measure

RTOL = 1e-5  # a pass reorders a handful of fp32 operations, no long sums


@dataclass(frozen=True)
class Outcome:
    """What the passes made of a model."""

    model: onnx.ModelProto
    ops: Counter[str]
    context: Context

    @property
    def reasons(self) -> list[str]:
        return [refusal.reason for refusal in self.context.refusals]


def model_of(
    text: str, *, opset: int = 17, weights: Mapping[str, np.ndarray[Any, Any]] | None = None
) -> onnx.ModelProto:
    """A model from ONNX's text form of a graph, with these initializers added to it."""
    graph = parser.parse_graph(text)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in (weights or {}).items()
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def feeds_for(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs for a model whose inputs have static shapes."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value or 2 for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if tensor.elem_type == TensorProto.BOOL:
            feeds[value.name] = rng.integers(0, 2, shape).astype(bool)
        elif np.issubdtype(dtype, np.integer):
            feeds[value.name] = rng.integers(1, 4, shape).astype(dtype)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def apply(
    engine: Engine, model: onnx.ModelProto, passes: Sequence[Pass], **context: Any
) -> Outcome:
    """Apply passes to a fixed point without running the model."""
    root = view(model, Path())
    ctx = Context(engine, **context)
    run_passes(root, ctx, passes)
    merged = merge(root)
    ops: Counter[str] = Counter()
    for graph in root.walk():
        ops.update(node.op for node in graph.nodes)
    return Outcome(merged, ops, ctx)


def check(
    engine: Engine,
    model: onnx.ModelProto,
    passes: Sequence[Pass],
    *,
    rtol: float = RTOL,
    feeds: Mapping[str, np.ndarray[Any, Any]] | None = None,
    **context: Any,
) -> Outcome:
    """Apply passes, hold the result against the original, and see that a second run does nothing.

    Asserts that the result passes the ONNX checker, keeps inputs and outputs, that all outputs
    agree in shape, type and value, and that the passes lower the measure and are idempotent.
    """
    outcome = apply(engine, model, passes, **context)
    onnx.checker.check_model(outcome.model, full_check=True)
    assert [i.name for i in outcome.model.graph.input] == [i.name for i in model.graph.input]
    assert [o.name for o in outcome.model.graph.output] == [o.name for o in model.graph.output]
    inputs = dict(feeds if feeds is not None else feeds_for(model))
    before, after = _run(engine, model, inputs), _run(engine, outcome.model, inputs)
    for name, wanted in before.items():
        got = after[name]
        assert got.dtype == wanted.dtype, name
        assert got.shape == wanted.shape, name
        if wanted.dtype.kind in "fV":
            wide_wanted, wide_got = wanted.astype(np.float64), got.astype(np.float64)
            scale = np.max(np.abs(wide_wanted), initial=1e-30)
            np.testing.assert_allclose(wide_got, wide_wanted, rtol=rtol, atol=rtol * scale)
        else:
            np.testing.assert_array_equal(got, wanted)
    again = view(outcome.model, Path())
    run_passes(again, Context(engine, **context), passes)
    assert not is_changed(again), "a second run still changes the model"
    if outcome.context.rewrites:
        assert measure(view(outcome.model, Path())) < measure(view(model, Path()))
    return outcome


def _run(
    engine: Engine, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, Any]:
    handle = engine.open(model)
    try:
        return engine.run(handle, feeds)
    finally:
        engine.close(handle)
