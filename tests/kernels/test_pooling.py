"""Pools agree with ONNX Runtime's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from ort_optim.kernels.base import Launch
from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.pooling import GlobalPool, Pool, launch_global_pool, launch_pool
from ort_optim.kernels.sizes import Sizes
from tests.kernels.harness import AVX2, AVX512
from tests.kernels.movement import Tensor, random, run

Array = NDArray[np.float32]
ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])


def run_node(operator: str, x: Array, **attributes: Any) -> Array:
    """The node's output in ONNX Runtime."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        "pool",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    imports = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: Array = session.run(None, {"x": x})[0]
    return found


POOLS = [
    Pool("max", (3, 3), (2, 2), pads=(1, 1, 1, 1)),
    Pool("max", (2, 2), (2, 2)),
    Pool("max", (5, 5), pads=(2, 2, 2, 2)),
    Pool("max", (3, 2), (1, 2), (2, 3), (2, 1, 0, 1)),
    Pool("max", (18, 18), pads=(9, 9, 8, 8)),
    Pool("average", (3, 3), pads=(1, 1, 1, 1)),
    Pool("average", (3, 3), pads=(1, 1, 1, 1), count_pads=True),
    Pool("average", (2, 2), (2, 2)),
    Pool("average", (4, 3), (3, 2), pads=(1, 2, 2, 0), count_pads=True),
    Pool("average", (2, 2), (1, 1), (2, 2), (1, 0, 1, 1), count_pads=True),
]
SIZES = [(1, 17, 9, 31), (2, 16, 12, 13), (3, 5, 10, 7)]


@ISAS
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_pools_are_onnx_runtimes(isa: Isa, pool: Pool, ceil_mode: int) -> None:
    for shape in SIZES:
        values = random(shape)
        attributes: dict[str, Any] = {
            "kernel_shape": pool.kernel,
            "strides": pool.strides,
            "dilations": pool.dilations,
            "pads": pool.pads,
            "ceil_mode": ceil_mode,
        }
        if pool.kind == "average":
            attributes["count_include_pad"] = int(pool.count_pads)
        wanted = run_node(
            {"max": "MaxPool", "average": "AveragePool"}[pool.kind], values, **attributes
        )
        sizes = Sizes(shape[0])
        x = Tensor(sizes, shape, isa, (0, 1, 0, 0), values)
        y = Tensor(sizes, wanted.shape, isa, (1, 0, 1, 2))
        run(launch_pool(pool, x.layout, y.layout), isa, x=x, y=y)
        np.testing.assert_allclose(y.read(), wanted, rtol=1e-5, atol=1e-6)


@ISAS
def test_an_image_smaller_than_the_window(isa: Isa) -> None:
    pool = Pool("max", (5, 5), pads=(2, 2, 2, 2))
    values = random((1, 3, 2, 1))
    wanted = run_node("MaxPool", values, kernel_shape=(5, 5), pads=(2, 2, 2, 2))
    sizes = Sizes(1)
    x, y = Tensor(sizes, values.shape, isa, values=values), Tensor(sizes, values.shape, isa)
    run(launch_pool(pool, x.layout, y.layout), isa, x=x, y=y)
    np.testing.assert_array_equal(y.read(), wanted)


@ISAS
@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("shape", [(1, 16, 7, 7), (3, 33, 1, 1), (2, 5, 13, 31), (0, 8, 4, 4)])
def test_global_pools_are_onnx_runtimes(isa: Isa, kind: Any, shape: tuple[int, ...]) -> None:
    values = random(shape)
    sizes = Sizes(2)
    x = Tensor(sizes, shape, isa, (1, 1, 1, 1), values)
    y = Tensor(sizes, (*shape[:2], 1, 1), isa)
    run(launch_global_pool(GlobalPool(kind), x.layout, y.layout), isa, x=x, y=y)
    reduced = (
        values.max((2, 3), keepdims=True) if kind == "max" else values.mean((2, 3), keepdims=True)
    )
    np.testing.assert_allclose(y.read(), reduced, rtol=1e-5, atol=1e-6)


@ISAS
def test_nan_becomes_what_it_becomes_in_onnx_runtime(isa: Isa) -> None:
    values = random((1, 16, 12, 12))
    values[0, :, np.arange(1, 12, 2), np.arange(0, 12, 2)] = np.nan
    values[0, :, 3, 3] = np.inf
    pool = Pool("max", (3, 3), pads=(1, 1, 1, 1))
    wanted = run_node("MaxPool", values, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    sizes = Sizes(1)
    x, y = Tensor(sizes, values.shape, isa, values=values), Tensor(sizes, values.shape, isa)
    run(launch_pool(pool, x.layout, y.layout), isa, x=x, y=y)
    np.testing.assert_array_equal(y.read(), wanted)


@ISAS
def test_epilogues_of_pools(isa: Isa) -> None:
    epilogue = Epilogue((Operation("add", operand="tensor"), Operation("relu")))
    values, other = random((2, 9, 6, 6)), random((2, 9, 3, 3), 2)
    sizes = Sizes(1)
    x = Tensor(sizes, values.shape, isa, values=values)
    y = Tensor(sizes, other.shape, isa)
    e0 = Tensor(sizes, other.shape, isa, (1, 1, 1, 1), other)
    launch = launch_pool(Pool("max", (2, 2), (2, 2), epilogue=epilogue), x.layout, y.layout)
    run(with_operand(launch, e0), isa, x=x, y=y, e0=e0)
    pooled = values.reshape(2, 9, 3, 2, 3, 2).max((3, 5))
    np.testing.assert_array_equal(y.read(), np.maximum(pooled + other, 0))

    small = random((2, 9, 1, 1), 3)
    z = Tensor(sizes, small.shape, isa)
    e0 = Tensor(sizes, small.shape, isa, values=small)
    launch = launch_global_pool(GlobalPool("average", epilogue), x.layout, z.layout)
    run(with_operand(launch, e0), isa, x=x, y=z, e0=e0)
    wanted = np.maximum(values.mean((2, 3), keepdims=True) + small, 0)
    np.testing.assert_allclose(z.read(), wanted, rtol=1e-5, atol=1e-6)


def with_operand(launch: Launch, e0: Tensor) -> Launch:
    return replace(launch, values={**launch.values, **e0.layout.values("e0")})
