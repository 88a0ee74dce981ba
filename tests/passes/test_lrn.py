from __future__ import annotations

import pytest

from ort_optim.engine import Engine
from ort_optim.passes import lrn
from tests.passes.harness import check, model_of

PASSES = (lrn.PASS,)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize(("beta", "roots"), [(0.75, 2), (0.5, 1), (1.0, 0), (0.6, 0)])
def test_every_window_and_power_agrees(engine: Engine, size: int, beta: float, roots: int) -> None:
    model = model_of(
        f"""g (float[2, 7, 4, 3] x) => (float[2, 7, 4, 3] y) {{
            y = LRN<size={size}, alpha=0.5, beta={beta}, bias=2.0>(x)
        }}"""
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops["LRN"] == 0
    assert outcome.ops["Conv"] == 1
    assert outcome.ops["Sqrt"] == roots


@pytest.mark.parametrize("opset", [7, 13, 21])
def test_defaults_and_symbolic_sizes(engine: Engine, opset: int) -> None:
    model = model_of(
        "g (float[N, 6, H, W] x) => (float[N, 6, H, W] y) { y = LRN<size=3>(x) }", opset=opset
    )
    assert check(engine, model, PASSES).ops["LRN"] == 0


def test_unknown_channels_negative_bias_and_large_bands_stay(engine: Engine) -> None:
    unknown = model_of("g (float[1, C, 4, 4] x) => (float[1, C, 4, 4] y) { y = LRN<size=3>(x) }")
    assert check(engine, unknown, PASSES).ops == {"LRN": 1}
    negative = model_of(
        """g (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y) {
            y = LRN<size=3, bias=-1.0, beta=2.0>(x)
        }"""
    )
    assert check(engine, negative, PASSES).ops == {"LRN": 1}
    large = model_of("g (float[1, 64, 2, 2] x) => (float[1, 64, 2, 2] y) { y = LRN<size=3>(x) }")
    outcome = check(engine, large, PASSES, max_growth_bytes=1 << 12)
    assert outcome.ops == {"LRN": 1}
    assert "grow" in outcome.reasons[0]


def test_named_nodes_keep_distinct_names(engine: Engine) -> None:
    model = model_of("g (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y) { y = LRN<size=3>(x) }")
    model.graph.node[0].name = "lrn"
    names = [node.name for node in check(engine, model, PASSES).model.graph.node]
    assert len(set(names)) == len(names)
    assert "lrn" in names
