"""All passes together on random graphs: what comes out computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

from ort_optim.engine import Engine, EngineError
from ort_optim.graph.importing import view
from ort_optim.graph.merge import merge
from ort_optim.graph.repair import repair
from ort_optim.passes import PASSES
from ort_optim.passes.base import Context
from ort_optim.passes.driver import run_passes
from tests.random_graphs import RandomGraph, graphs

RTOL = 1e-4  # up to 30 nodes in fp32, sums of up to 100 terms; of the largest value on the way
LARGEST = 1e4  # beyond it, cancellation may leave nothing that could be compared

QUIET = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


def run(engine: Engine, model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    handle = engine.open(model)
    try:
        return engine.run(handle, feeds)
    finally:
        engine.close(handle)


def largest_on_the_way(engine: Engine, model: onnx.ModelProto, feeds: dict[str, Any]) -> float:
    """The largest absolute value of any float tensor of the main graph; inf for NaN and Inf."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                watched.graph.output.add(name=name)
    largest = 0.0
    for value in run(engine, watched, feeds).values():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            largest = max(largest, float(np.max(np.abs(value), initial=0.0)))
            if not np.all(np.isfinite(value)):
                return float("inf")
    return largest


def check(engine: Engine, graph: RandomGraph) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    repair(model)
    try:
        scale = largest_on_the_way(engine, model, graph.feeds)
    except Exception as error:
        raise AssertionError(f"the graph itself does not run: {error}") from error
    assume(scale < LARGEST)
    try:
        wanted = run(engine, model, graph.feeds)
    except EngineError:  # ORT removes Casts that only a subgraph reads, whatever the level
        assume(False)
    root = view(model, Path())
    context = Context(engine)
    run_passes(root, context, PASSES)
    result = merge(root)
    told = "\n".join(f"{r.number} {r.pass_name} {r.node}: {r.detail}" for r in context.rewrites)
    shown = f"{onnx.printer.to_text(model)}\n{told}\n{onnx.printer.to_text(result)}"
    got = run(engine, result, graph.feeds)
    assert list(got) == list(wanted), shown
    for name, value in wanted.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape), shown
        np.testing.assert_allclose(
            got[name], value, rtol=RTOL, atol=RTOL * max(scale, 1.0), err_msg=shown
        )
    onnx.checker.check_model(result, full_check=True)
    again = Context(engine)
    run_passes(view(result, Path()), again, PASSES)
    assert not again.rewrites, f"a second run does {again.rewrites[0]}\n{shown}"


@settings(QUIET, max_examples=400, derandomize=True)
@given(graph=graphs())
def test_outputs_are_equal_before_and_after_all_passes(engine: Engine, graph: RandomGraph) -> None:
    check(engine, graph)


@pytest.mark.slow
@settings(QUIET, max_examples=5000)
@given(graph=graphs())
def test_outputs_are_equal_on_thousands_of_graphs(engine: Engine, graph: RandomGraph) -> None:
    check(engine, graph)
