"""Channels of blocked tensors are copied to where the vectors do not line up."""

from __future__ import annotations

import numpy as np
import pytest

from ort_optim.kernels.channels import launch_copy_channels
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Sizes
from tests.kernels.harness import AVX2, AVX512
from tests.kernels.movement import Tensor, random, run

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])


@ISAS
@pytest.mark.parametrize(
    ("channels", "source", "target"),
    [
        (1, 0, 0),
        (5, 0, 3),
        (24, 0, 24),
        (3, 14, 15),
        (17, 7, 31),
        (40, 9, 1),
        (16, 1, 16),
        (7, 33, 25),
        (9, 3, 3),
        (32, 16, 0),
    ],
)
def test_channels_are_copied_and_others_left_alone(
    isa: Isa, channels: int, source: int, target: int
) -> None:
    for last in (False, True):
        sizes = Sizes(2)
        x = Tensor(sizes, (2, 50, 3, 5), isa, (1, 1, 1, 1), random((2, 50, 3, 5)))
        before = random((2, 64, 3, 5), 2)
        y = Tensor(sizes, (2, 64, 3, 5), isa, (0, 1, 0, 1), before)
        wanted = before.copy()
        stop = target + channels
        wanted[:, target:stop] = x.read()[:, source : source + channels]
        if last:
            wanted[:, stop : -(-stop // isa.lanes) * isa.lanes] = 0
        launch = launch_copy_channels(isa, x.layout, y.layout, channels, source, target, last=last)
        run(launch, isa, x=x, y=y)
        np.testing.assert_array_equal(y.read(), wanted)


@ISAS
def test_a_concat_of_odd_channel_counts(isa: Isa) -> None:
    sizes = Sizes(1)
    parts = [random((1, count, 2, 9), count) for count in (5, 24, 13)]
    y = Tensor(sizes, (1, 42, 2, 9), isa)
    start = 0
    for part in parts:
        x = Tensor(sizes, part.shape, isa, values=part)
        count = part.shape[1]
        is_last = start + count == 42
        launch = launch_copy_channels(isa, x.layout, y.layout, count, 0, start, last=is_last)
        run(launch, isa, x=x, y=y)
        start += count
    np.testing.assert_array_equal(y.read_all()[:, :42], np.concatenate(parts, 1))
    assert not y.read_all()[:, 42:].any()
