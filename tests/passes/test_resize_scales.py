"""Sizes of a Resize that shape-folding turns into scales."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ort_optim.engine import Engine
from ort_optim.passes import constant_folding, dead_code, shape_folding
from tests.passes.harness import Outcome, check, model_of

PASSES = (dead_code.PASS, constant_folding.PASS, shape_folding.PASS)


def resized(
    x: str, sizes: str, *, attributes: str = 'mode = "linear"', opset: int = 13
) -> onnx.ModelProto:
    """Resize to `sizes`, lines that make the tensor `sizes` from the vectors `shape` of x and
    `half`, the second half of it."""
    return model_of(
        f"""g (float[{x}] x) => (float[A, B, C, D] y) {{
            shape = Shape(x)
            first = Slice(shape, zero, two, zero)
            half = Slice(shape, two, four, zero)
            {sizes}
            y = Resize<{attributes}>(x, none, none, sizes)
        }}""",
        opset=opset,
        weights={
            "zero": np.array([0]),
            "two": np.array([2]),
            "four": np.array([4]),
            "none": np.array([], np.float32),
            "given": np.array([14, 15]),
            "times": np.array([2, 3]),
        },
    )


GIVEN = "sizes = Concat<axis = 0>(first, given)"
TIMES = "more = Mul(half, times)  sizes = Concat<axis = 0>(first, more)"


def scales_of(outcome: Outcome) -> list[float]:
    (node,) = (each for each in outcome.model.graph.node if each.op_type == "Resize")
    weights = {each.name: numpy_helper.to_array(each) for each in outcome.model.graph.initializer}
    assert len(node.input) == 3
    return [float(each) for each in weights[node.input[2]]]


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize(
    "attributes",
    [
        'mode = "linear"',
        'mode = "linear", coordinate_transformation_mode = "align_corners"',
        'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
        'mode = "cubic", coordinate_transformation_mode = "pytorch_half_pixel"',
    ],
)
def test_sizes_beside_an_open_batch_become_scales(
    engine: Engine, opset: int, attributes: str
) -> None:
    model = resized("N, 3, 7, 5", GIVEN, attributes=attributes, opset=opset)
    outcome = check(engine, model, PASSES)
    assert scales_of(outcome) == [1, 1, 2, 3]
    assert outcome.ops == {"Resize": 1}


def test_a_quotient_that_is_no_whole_number(engine: Engine) -> None:
    outcome = check(engine, resized("N, 3, 9, 11", GIVEN), PASSES)
    assert scales_of(outcome) == [
        1,
        1,
        float(np.float32(14) / np.float32(9)),
        float(np.float32(15) / np.float32(11)),
    ]


def test_open_sizes_times_a_number(engine: Engine) -> None:
    outcome = check(engine, resized("N, 3, H, W", TIMES), PASSES)
    assert scales_of(outcome) == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("x", "sizes"),
    [
        ("N, 3, H, 5", GIVEN),
        ("N, 3, H, W", "other = Add(half, times)  sizes = Concat<axis = 0>(first, other)"),
    ],
    ids=["an open size", "a sum"],
)
def test_what_is_no_known_multiple_stays(engine: Engine, x: str, sizes: str) -> None:
    outcome = check(engine, resized(x, sizes), PASSES)
    (node,) = (each for each in outcome.model.graph.node if each.op_type == "Resize")
    assert len(node.input) == 4
    assert "a size is no known multiple of the input's" in outcome.reasons


@pytest.mark.parametrize(
    "attributes",
    ['mode = "nearest", keep_aspect_ratio_policy = "not_larger"'],
)
def test_other_policies_stay(engine: Engine, attributes: str) -> None:
    outcome = check(engine, resized("N, 3, 7, 5", GIVEN, attributes=attributes, opset=18), PASSES)
    (node,) = (each for each in outcome.model.graph.node if each.op_type == "Resize")
    assert len(node.input) == 4


def test_every_small_pair_of_sizes_is_given_back() -> None:
    for size in range(1, 200):
        for wanted in range(1, 200):
            scale = shape_folding._scale(wanted, size)
            if scale is not None:
                assert int(np.float32(size) * np.float32(scale)) == wanted
                assert np.float32(scale) == np.float32(wanted) / np.float32(size)
    assert shape_folding._scale(0, 3) is None
    assert shape_folding._scale(3, 0) is None
    assert shape_folding._scale(None, 3) is None
