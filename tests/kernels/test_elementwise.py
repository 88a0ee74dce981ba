"""Functions of blocked tensors, with every kind of operand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ort_optim.kernels.elementwise import launch_elementwise, launch_pack_channels
from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Sizes
from tests.kernels.harness import AVX2, AVX512, aligned
from tests.kernels.movement import Tensor, compiled, random, run

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])


@ISAS
@pytest.mark.parametrize("shape", [(1, 16, 7, 7), (2, 19, 3, 33), (0, 8, 4, 4), (1, 8, 1, 1)])
def test_operands_of_every_kind(isa: Isa, shape: tuple[int, int, int, int]) -> None:
    N, C = shape[:2]
    sizes = Sizes(3)
    values, other, gate = random(shape), random(shape, 2), random((N, C, 1, 1), 3)
    constant = random((C,), 4)
    x = Tensor(sizes, shape, isa, (1, 1, 1, 1), values)
    y = Tensor(sizes, shape, isa, (0, 1, 2, 0))
    e0 = Tensor(sizes, shape, isa, (0, 0, 1, 1), other)
    e1 = Tensor(sizes, gate.shape, isa, values=gate)
    launch, size = launch_pack_channels(isa, C, sizes)
    packed = aligned(size // 4, np.nan)
    places = {"x": constant.ctypes.data, "packed": packed.ctypes.data}
    compiled(launch.kernel, isa).launch(launch, places)
    operations = (
        Operation("sub", operand="tensor", swapped=True),
        Operation("mul", operand="channel"),
        Operation("div", operand="constant"),
        Operation("relu"),
    )
    launch = launch_elementwise(Epilogue(operations), x.layout, y.layout)
    values_of = {**launch.values, **e0.layout.values("e0"), **e1.layout.values("e1")}
    e2 = int(packed.ctypes.data)
    run(replace(launch, values=values_of), isa, x=x, y=y, e0=e0, e1=e1, e2=e2)
    wanted = np.maximum((other - values) * gate / constant[:, None, None], 0)
    np.testing.assert_allclose(y.read(), wanted, rtol=1e-6)
    assert not y.read_all()[:, C:].any()


@ISAS
def test_lanes_beyond_the_channels_stay_numbers_where_one_tensor_divides_another(isa: Isa) -> None:
    sizes = Sizes(1)
    values, other = random((2, 21, 2, 5)), random((2, 21, 2, 5), 2)
    x = Tensor(sizes, values.shape, isa, values=values)
    e0 = Tensor(sizes, values.shape, isa, values=other)
    y = Tensor(sizes, values.shape, isa)
    epilogue = Epilogue((Operation("div", operand="tensor"),))
    launch = launch_elementwise(epilogue, x.layout, y.layout)
    launch = replace(launch, values={**launch.values, **e0.layout.values("e0")})
    run(launch, isa, x=x, y=y, e0=e0)
    np.testing.assert_array_equal(y.read(), values / other)
    assert not y.read_all()[:, 21:].any()


@ISAS
def test_in_place(isa: Isa) -> None:
    sizes = Sizes(1)
    values = random((1, 16, 3, 3))
    x = Tensor(sizes, values.shape, isa, values=values)
    launch = launch_elementwise(Epilogue((Operation("neg"),)), x.layout, x.layout)
    run(launch, isa, x=x, y=x)
    np.testing.assert_array_equal(x.read(), -values)
