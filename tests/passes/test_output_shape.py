from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from ort_optim.engine import Engine
from ort_optim.passes import output_shape
from tests.passes.harness import Outcome, check, model_of

PASSES = (output_shape.PASS,)


def transposed(
    x: str, kernel: tuple[int, ...], attributes: str, *, opset: int = 17
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    axes = ", ".join(f"Y{axis}" for axis in range(len(kernel)))
    return model_of(
        f"g (float[{x}] x) => (float[{axes}] y) {{ y = ConvTranspose<{attributes}>(x, w, b) }}",
        opset=opset,
        weights={
            "w": rng.standard_normal(kernel).astype(np.float32),
            "b": rng.standard_normal(kernel[1]).astype(np.float32),
        },
    )


def attributes_of(outcome: Outcome) -> dict[str, list[int]]:
    (node,) = outcome.model.graph.node
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize("auto_pad", ["", ', auto_pad = "VALID"', ', auto_pad = "SAME_UPPER"'])
@pytest.mark.parametrize(
    ("attributes", "pads", "more"),
    [
        ("strides = [2, 2], output_shape = [13, 11]", [0, 0, 0, 0], None),
        ("strides = [2, 2], output_shape = [11, 9]", [1, 1, 1, 1], None),
        ("strides = [2, 2], output_shape = [14, 9]", [0, 1, 0, 1], [1, 0]),
        ("strides = [3, 3], output_shape = [20, 17]", [0, 0, 0, 0], [2, 2]),
        ("strides = [1, 2], dilations = [2, 1], output_shape = [6, 7]", [2, 2, 2, 2], None),
        (
            "strides = [2, 2], output_padding = [1, 1], output_shape = [12, 10]",
            [1, 1, 1, 1],
            [1, 1],
        ),
    ],
)
def test_a_shape_is_the_padding_that_gives_it(
    engine: Engine,
    opset: int,
    auto_pad: str,
    attributes: str,
    pads: list[int],
    more: list[int] | None,
) -> None:
    model = transposed("2, 3, 6, 5", (3, 4, 3, 3), attributes + auto_pad, opset=opset)
    found = attributes_of(check(engine, model, PASSES))
    assert found["pads"] == pads
    assert found.get("output_padding") == more
    assert not {"output_shape", "auto_pad"} & found.keys()


def test_one_and_three_axes(engine: Engine) -> None:
    one = transposed("1, 2, 6", (2, 3, 4), "strides = [2], output_shape = [12]")
    assert attributes_of(check(engine, one, PASSES))["pads"] == [1, 1]
    three = transposed(
        "1, 2, 3, 3, 3", (2, 3, 3, 3, 3), "strides = [2, 2, 2], output_shape = [8, 7, 5]"
    )
    found = attributes_of(check(engine, three, PASSES))
    assert (found["pads"], found["output_padding"]) == ([0, 0, 1, 0, 0, 1], [1, 0, 0])


@pytest.mark.parametrize(
    ("x", "attributes", "reason"),
    [
        ("2, 3, 6, W", "strides = [2, 2], output_shape = [13, 11]", "not known"),
        ("2, 3, 6, 5", "strides = [2, 2], output_shape = [12, 11]", "12 of 13 on spatial axis 0"),
    ],
)
def test_others_stay(engine: Engine, x: str, attributes: str, reason: str) -> None:
    model = transposed(x, (3, 4, 3, 3), attributes)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 6, 5)).astype(np.float32)}
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert "output_shape" in attributes_of(outcome)
    assert reason in outcome.reasons[0]
