"""Random small graphs out of the operators that the passes touch, valid by construction.

    graphs()      a hypothesis strategy of `RandomGraph`: a model, and inputs that fit it

The builder keeps the concrete shape of every tensor, so each step adds only nodes that run; sizes
of inputs may be symbolic in the file all the same. Steps that would turn a rounding error into a
different answer (rounding, comparing, dividing by what may be zero) are left out or kept away from
floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
from onnx import helper

from tests.random_graphs import control, elementwise, layers, movement
from tests.random_graphs.builder import Builder, F, UnfitError, Value

NEWEST_IR = {8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 17: 8, 18: 8, 20: 9, 21: 10}
MOST_ELEMENTS = 600
MOST_RANK = 5
MOST_OUTPUTS = 3

STEPS = (*elementwise.STEPS, *movement.STEPS, *layers.STEPS, *layers.STEPS, *control.STEPS)
INPUT_SHAPES = (
    *((1, 3, 4, 4), (2, 4, 3, 3), (1, 2, 5, 4), (2, 6, 6, 5)),
    *((2, 3, 4), (3, 4), (1, 6), (4,), (2, 1)),
)


@dataclass(frozen=True)
class RandomGraph:
    """A model, and one set of inputs that it runs on."""

    model: onnx.ModelProto
    feeds: dict[str, np.ndarray[Any, Any]]


@st.composite
def graphs(draw: st.DrawFn) -> RandomGraph:
    """Random graphs of up to about 40 nodes, most of which an output depends on."""
    b = Builder(draw)
    shapes = draw(st.lists(st.sampled_from(INPUT_SHAPES), min_size=1, max_size=2))
    inputs = [b.add(f"x{i}", shape) for i, shape in enumerate(shapes)]
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=10)):
        newest, *older = reversed(b.values[-6:])
        for x in [newest, *draw(st.permutations(older))]:
            if x.rank > MOST_RANK or x.size > MOST_ELEMENTS:
                continue
            mark = b.mark()
            try:
                step(b, x)
                break
            except UnfitError:
                b.back(mark)
    if len(b.values) == len(inputs):
        elementwise.identity(b, inputs[0])
    read = {name for node in b.nodes for name in node.input}
    made = b.values[len(inputs) :]
    loose = [value for value in made if value.name not in read] or made[-1:]
    return RandomGraph(
        _model(b, inputs, loose[-MOST_OUTPUTS:]),
        {value.name: b.rng.uniform(-2, 2, value.shape).astype(np.float32) for value in inputs},
    )


def _model(b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.ModelProto:
    symbolic = b.pick(True, False)
    graph = helper.make_graph(
        b.nodes,
        "random",
        [
            helper.make_tensor_value_info(
                value.name,
                F,
                [
                    f"{value.name}_{i}" if symbolic and i != 1 else d
                    for i, d in enumerate(value.shape)
                ],
            )
            for value in inputs
        ],
        [
            helper.make_tensor_value_info(
                value.name, F, [None] * value.rank if symbolic else value.shape
            )
            for value in outputs
        ],
        b.weights,
    )
    if NEWEST_IR[b.opset] < 4:  # weights are graph inputs then
        graph.input.extend(
            helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in b.weights
        )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", b.opset)],
        ir_version=NEWEST_IR[b.opset],
    )
