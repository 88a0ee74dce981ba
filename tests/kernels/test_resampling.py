"""Resize agrees with ONNX Runtime's, to the neighbour."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.resampling import ResampleMode, launch_resample
from ort_optim.kernels.sizes import Sizes
from tests.kernels.harness import AVX2, AVX512
from tests.kernels.movement import Tensor, random, run

Array = NDArray[np.float32]
ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def run_resize(x: Array, third: NDArray[Any], **attributes: Any) -> Array:
    """Resize in ONNX Runtime; `third` are scales (float32) or sizes (int64)."""
    names = ["x", "", "third"] if third.dtype == np.float32 else ["x", "", "", "third"]
    graph = helper.make_graph(
        [helper.make_node("Resize", names, ["y"], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(third, "third")],
    )
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: Array = session.run(None, {"x": x})[0]
    return found


def check(
    isa: Isa,
    x_values: Array,
    third: NDArray[Any],
    mode: ResampleMode,
    coordinates: str,
    rounding: str = "round_prefer_floor",
) -> None:
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding
    wanted = run_resize(x_values, third, **attributes)
    given = third.dtype == np.float32
    scales = (float(third[2]), float(third[3])) if given else None
    sizes = Sizes(2)
    x = Tensor(sizes, x_values.shape, isa, (1, 1, 0, 0), x_values)
    y = Tensor(sizes, wanted.shape, isa, (0, 0, 1, 1))
    launch = launch_resample(mode, coordinates, rounding, scales, Epilogue(), x.layout, y.layout)
    run(launch, isa, x=x, y=y)
    if mode == "nearest":
        np.testing.assert_array_equal(y.read(), wanted)
    else:
        np.testing.assert_allclose(y.read(), wanted, rtol=1e-6, atol=1e-6)


SCALES = [np.array([1, 1, *pair], np.float32) for pair in [(2, 2), (3, 1), (0.5, 2.5), (1.7, 0.6)]]
SIZES = [np.array([2, 9, *pair], np.int64) for pair in [(14, 22), (5, 37), (1, 1), (7, 40)]]


@ISAS
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(isa: Isa, coordinates: str, rounding: str) -> None:
    for third in (*SCALES[:: 1 if rounding == "floor" else 3], *SIZES):
        check(isa, random((2, 9, 7, 11)), third, "nearest", coordinates, rounding)


@ISAS
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_linear(isa: Isa, coordinates: str) -> None:
    for third in (*SCALES, *SIZES):
        check(isa, random((2, 9, 7, 11)), third, "linear", coordinates)


@ISAS
def test_images_of_one_pixel(isa: Isa) -> None:
    x = random((2, 9, 1, 1))
    for mode, coordinates in itertools.product(("nearest", "linear"), COORDINATES):
        check(isa, x, np.array([2, 9, 3, 4], np.int64), mode, coordinates)  # type: ignore[arg-type]


@ISAS
def test_an_infinite_pixel_at_the_edge_stays_infinite(isa: Isa) -> None:
    x = random((1, 8, 4, 4))
    x[:, :, -1, -1] = math.inf
    check(isa, x, SCALES[0], "linear", "half_pixel")


@ISAS
def test_an_epilogue(isa: Isa) -> None:
    sizes = Sizes(1)
    values = random((1, 8, 3, 3))
    x = Tensor(sizes, values.shape, isa, values=values)
    y = Tensor(sizes, (1, 8, 6, 6), isa)
    epilogue = Epilogue((Operation("relu"),))
    launch = launch_resample(
        "nearest", "asymmetric", "floor", (2.0, 2.0), epilogue, x.layout, y.layout
    )
    run(launch, isa, x=x, y=y)
    np.testing.assert_array_equal(y.read(), np.maximum(values, 0).repeat(2, 2).repeat(2, 3))
