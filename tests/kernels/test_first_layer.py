"""Kernels of first layers against the definition in float64."""

from __future__ import annotations

import pytest

from ort_optim.kernels.base import Tile
from ort_optim.kernels.first_layer import FirstLayer
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from tests.kernels.convolutions import ALL_LAYOUTS, check
from tests.kernels.harness import AVX2, AVX512

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
FIRST_LAYER = FirstLayer()
FROM_IMAGE = ("nchw", "blocked")
SMALL = Tile((("mr", 4), ("nv", 2), ("px", 32)))


@ISAS
@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec(3, 33, (3, 3), pads=(1, 1, 1, 1)),
        ConvSpec(3, 24, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
        ConvSpec(1, 5, (5, 5), pads=(2, 0, 1, 4)),
        ConvSpec(4, 17, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1)),
        ConvSpec(2, 16, (9, 9), strides=(1, 3), pads=(4, 4, 4, 4)),
        ConvSpec(3, 8, (1, 1), strides=(2, 2)),
        ConvSpec(3, 8, (3, 3), dilations=(2, 2), pads=(2, 2, 2, 2)),
        ConvSpec(1, 8, (2, 3), pads=(0, 9, 0, 20)),
    ],
    ids=str,
)
def test_kernels_strides_and_pads(isa: Isa, spec: ConvSpec) -> None:
    for size in [(2, 19, 33), (1, 9, 16), (1, 9, 9)]:
        for threads in (1, 4):
            check(FIRST_LAYER, spec, isa, size, tile=SMALL, layouts=FROM_IMAGE, threads=threads)


@ISAS
def test_sizes_that_straddle_the_tile_and_empty_ones(isa: Isa) -> None:
    spec = ConvSpec(3, 20, (3, 3), pads=(1, 1, 1, 1))
    for size in [(1, 3, W) for W in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33)] + [(0, 5, 5), (5, 2, 2)]:
        check(FIRST_LAYER, spec, isa, size, tile=SMALL, layouts=FROM_IMAGE)


@ISAS
@pytest.mark.parametrize("layouts", ALL_LAYOUTS, ids="-".join)
def test_layouts(isa: Isa, layouts: tuple[str, str]) -> None:
    for Cout in (16, 40):
        spec = ConvSpec(3, Cout, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        for tile in list(FIRST_LAYER.tiles(spec, isa))[:3]:
            check(FIRST_LAYER, spec, isa, (2, 9, 23), tile=tile, layouts=layouts, any_width=False)


def test_what_it_refuses() -> None:
    for spec, reason in [
        (ConvSpec(5, 8, (3, 3)), "5 input channels, more than 4"),
        (ConvSpec(4, 8, (3, 3), group=2), "2 groups"),
        (ConvSpec(3, 8, (3, 3), transposed=True), "transposed"),
    ]:
        assert FIRST_LAYER.supports(spec, AVX512) == reason
