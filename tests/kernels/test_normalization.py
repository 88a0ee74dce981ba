"""The constants of a BatchNormalization are packed as factors and shifts."""

from __future__ import annotations

import numpy as np
import pytest

from ort_optim.kernels.isa import Isa
from ort_optim.kernels.normalization import launch_pack_normalization
from ort_optim.kernels.sizes import Sizes
from tests.kernels.harness import AVX2, AVX512, aligned
from tests.kernels.movement import GUARD, compiled, random

EPSILON = 2.0**-24  # half an ulp


@pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize("channels", [1, 7, 8, 9, 16, 17, 33, 64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.5])
def test_factors_and_shifts(isa: Isa, channels: int, epsilon: float) -> None:
    scale, bias, mean, root = (random((channels,), seed) for seed in range(4))
    variance = root * root + np.float32(1e-3)
    launch, size = launch_pack_normalization(isa, channels, epsilon, Sizes(1))
    packed = aligned(size // 4 + GUARD, np.nan)
    places = {"scale": scale, "bias": bias, "mean": mean, "variance": variance, "packed": packed}
    run = {name: int(array.ctypes.data) for name, array in places.items()}
    compiled(launch.kernel, isa).launch(launch, run)
    factors, shifts = packed[: size // 4].reshape(2, -1).astype(np.float64)
    assert len(factors) == -(-channels // isa.lanes) * isa.lanes
    wanted = scale / np.sqrt(variance.astype(np.float64) + epsilon)
    product = mean * wanted
    np.testing.assert_allclose(factors[:channels], wanted, rtol=6 * EPSILON)
    error = np.abs(shifts[:channels] - (bias - product))
    assert (error <= 8 * EPSILON * (np.abs(bias) + np.abs(product))).all()
    assert not factors[channels:].any()
    assert not shifts[channels:].any()
    assert np.isnan(packed[size // 4 :]).all()
