from __future__ import annotations

import numpy as np
import onnx
import pytest

from ort_optim.engine import Engine
from ort_optim.passes import channel_shuffle, dead_code
from tests.passes.harness import check, model_of

PASSES = (channel_shuffle.PASS, dead_code.PASS)


def shuffled(
    x: str, parts: list[int], whole: list[int], *, perm: str = "0, 2, 1, 3, 4", opset: int = 13
) -> onnx.ModelProto:
    return model_of(
        f"""g (float[{x}] x) => (float[N, C, H, W] y) {{
            a = Relu(x)
            b = Reshape(a, parts)
            c = Transpose<perm = [{perm}]>(b)
            y = Reshape(c, whole)
        }}""",
        opset=opset,
        weights={"parts": np.array(parts), "whole": np.array(whole)},
    )


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize(
    ("x", "parts", "whole"),
    [
        ("2, 12, 3, 5", [2, 2, 6, 3, 5], [2, 12, 3, 5]),
        ("2, 12, 3, 5", [-1, 4, 3, 3, 5], [2, -1, 3, 5]),
        ("N, 12, 3, 5", [-1, 3, 4, 3, 5], [-1, 12, 3, 5]),
        ("N, 12, 3, 5", [0, 12, 1, 3, 5], [0, 12, 3, 5]),
    ],
)
def test_a_shuffle_is_a_gather_of_channels(
    engine: Engine, opset: int, x: str, parts: list[int], whole: list[int]
) -> None:
    outcome = check(engine, shuffled(x, parts, whole, opset=opset), PASSES)
    assert outcome.ops == {"Relu": 1, "Gather": 1}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (shuffled("2, 12, 3, 5", [2, 6, 2, 5, 3], [2, 12, 3, 5]), "not those of a shuffle"),
        (shuffled("2, 12, 3, 5", [2, 2, 6, 3, 5], [2, 12, 5, 3]), "not those of a shuffle"),
        (shuffled("2, 12, 3, 5", [4, 2, 3, 3, 5], [2, 12, 3, 5]), "not those of a shuffle"),
        (shuffled("2, 12, H, 5", [2, 2, 6, -1, 5], [2, 12, -1, 5]), "a size is not known"),
        (shuffled("2, 12, 3, 5", [2, 2, 6, 3, 5], [2, 12, 3, 5], perm="0, 2, 1, 4, 3"), ""),
        (shuffled("2, 12, 3, 5", [2, 2, 6, 15], [2, 12, 3, 5], perm="0, 2, 1, 3"), ""),
    ],
    ids=["turned", "other rows", "other batch", "open", "another order", "four axes"],
)
def test_what_is_no_shuffle_stays(engine: Engine, model: onnx.ModelProto, reason: str) -> None:
    outcome = check(engine, model, PASSES)
    assert outcome.ops == {"Relu": 1, "Reshape": 2, "Transpose": 1}
    assert [each for each in outcome.reasons if reason in each] or not reason


def test_what_something_else_reads_stays(engine: Engine) -> None:
    model = shuffled("2, 12, 3, 5", [2, 2, 6, 3, 5], [2, 12, 3, 5])
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [2, 6, 2, 3, 5])
    )
    outcome = check(engine, model, PASSES)
    assert outcome.ops["Reshape"] == 2
    assert outcome.reasons == ["something else reads a part of it"]


def parted(
    x: str = "1, 12, 3, 5",
    parts: tuple[int, ...] = (6, 2, 15),
    whole: tuple[int, ...] = (2, -1, 6, 3, 5),
    reader: str = "Gather<axis = 0>(d, one)",
) -> onnx.ModelProto:
    return model_of(
        f"""g (float[{x}] x) => (float y, float z) {{
            a = Relu(x)
            b = Reshape(a, parts)
            c = Transpose<perm = [1, 0, 2]>(b)
            d = Reshape(c, whole)
            y0 = Gather<axis = 0>(d, zero)
            z0 = {reader}
            y = ReduceSum<keepdims = 0>(y0)
            z = ReduceSum<keepdims = 0>(z0)
        }}""",
        weights={
            "parts": np.array(parts),
            "whole": np.array(whole),
            "zero": np.array(0),
            "one": np.array(-1),
            "both": np.array([0, 1]),
        },
    )


def test_parts_of_a_shuffle_are_gathers_of_channels(engine: Engine) -> None:
    outcome = check(engine, parted(), PASSES)
    assert outcome.ops == {"Relu": 1, "Gather": 2, "ReduceSum": 2}
    picked = {tuple(onnx.numpy_helper.to_array(e)) for e in outcome.model.graph.initializer}
    assert picked == {(0, 2, 4, 6, 8, 10), (1, 3, 5, 7, 9, 11)}


@pytest.mark.parametrize(
    "model",
    [
        parted("2, 12, 3, 5", (12, 2, 15), (2, -1, 12, 3, 5)),
        parted("N, 12, 3, 5"),
        parted(parts=(3, 4, 15), whole=(4, 1, 3, 5, 3)),
        parted(reader="Gather<axis = 0>(d, both)"),
        parted(reader="Gather<axis = 1>(d, zero)"),
        parted(reader="Neg(d)"),
    ],
    ids=["batch", "open batch", "turned", "two parts", "axis", "no part"],
)
def test_other_parts_stay(engine: Engine, model: onnx.ModelProto) -> None:
    feeds = {"x": np.random.default_rng(0).random((1, 12, 3, 5), np.float32)}
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2:
        feeds["x"] = np.repeat(feeds["x"], 2, axis=0)
    outcome = check(engine, model, PASSES, feeds=feeds)
    assert (outcome.ops["Reshape"], outcome.ops["Transpose"]) == (2, 1)
