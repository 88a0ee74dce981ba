"""Pad over height and width gives what NumPy's pad gives."""

from __future__ import annotations

import numpy as np
import pytest

from ort_optim.kernels.isa import Isa
from ort_optim.kernels.padding import PadMode, launch_pad
from ort_optim.kernels.sizes import Sizes
from tests.kernels.harness import AVX2, AVX512
from tests.kernels.movement import Tensor, random, run


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("pads", [(1, 2, 3, 4), (0, 0, 0, 1), (4, 5, 2, 0)])
def test_padding_is_numpys(isa: Isa, mode: PadMode, pads: tuple[int, int, int, int]) -> None:
    top, left, bottom, right = pads
    sizes = Sizes(2)
    values = random((2, 19, 6, 7))
    x = Tensor(sizes, values.shape, isa, values=values)
    y = Tensor(sizes, (2, 19, 6 + top + bottom, 7 + left + right), isa, (1, 0, 0, 1))
    launch = launch_pad(x.layout, y.layout, sizes.const(top), sizes.const(left), mode)
    run(launch, isa, x=x, y=y)
    np.testing.assert_array_equal(
        y.read(), np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)), mode)
    )


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
def test_negative_padding_cuts(isa: Isa) -> None:
    sizes = Sizes(1)
    values = random((1, 8, 6, 7))
    x = Tensor(sizes, values.shape, isa, values=values)
    y = Tensor(sizes, (1, 8, 5, 4), isa)
    launch = launch_pad(x.layout, y.layout, sizes.const(1), sizes.const(-3))
    run(launch, isa, x=x, y=y)
    wanted = np.pad(values, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :5, 3:]
    np.testing.assert_array_equal(y.read(), wanted)


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
def test_a_number_that_is_not_zero_stays_out_of_the_last_lanes(isa: Isa) -> None:
    sizes = Sizes(1)
    values = random((1, 19, 2, 2))
    x = Tensor(sizes, values.shape, isa, values=values)
    y = Tensor(sizes, (1, 19, 4, 4), isa)
    one = sizes.const(1)
    run(launch_pad(x.layout, y.layout, one, one, number=-np.inf), isa, x=x, y=y)
    wanted = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    np.testing.assert_array_equal(y.read(), wanted)
    assert not y.read_all()[:, 19:].any()
