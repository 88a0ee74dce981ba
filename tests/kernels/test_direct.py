"""Direct convolution kernels against the definition in float64."""

from __future__ import annotations

from typing import Any

import pytest

from ort_optim.kernels.base import Tile
from ort_optim.kernels.direct import Direct
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from tests.kernels.convolutions import ALL_LAYOUTS, check
from tests.kernels.harness import AVX2, AVX512

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
DIRECT = Direct()
SMALL = Tile((("mr", 4), ("nv", 2), ("px", 16)))


def conv(Cin: int, Cout: int, kernel: Any, **more: Any) -> ConvSpec:  # noqa: N803
    pair = (kernel, kernel) if isinstance(kernel, int) else kernel
    return ConvSpec(Cin, Cout, pair, **more)


@ISAS
@pytest.mark.parametrize(
    "spec",
    [
        conv(8, 16, 3, pads=(1, 1, 1, 1)),
        conv(17, 33, 3, strides=(2, 2), pads=(1, 1, 1, 1)),
        conv(5, 9, 5, strides=(3, 1), pads=(2, 0, 1, 3)),
        conv(7, 8, (1, 7), pads=(0, 3, 0, 3)),
        conv(7, 8, (3, 1), strides=(2, 1), pads=(0, 0, 2, 0)),
        conv(16, 16, 3, dilations=(2, 3), pads=(2, 3, 2, 3)),
        conv(3, 4, 2, strides=(2, 2)),
        conv(4, 5, 1, pads=(1, 0, 2, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("layouts", ALL_LAYOUTS, ids="-".join)
def test_kernels_strides_dilations_and_pads(
    isa: Isa, spec: ConvSpec, layouts: tuple[str, str]
) -> None:
    for size in [(2, 9, 13), (1, 7, 8), (1, 3, 2)]:
        check(DIRECT, spec, isa, size, tile=SMALL, layouts=layouts, threads=size[0] + 1)


@ISAS
def test_sizes_that_straddle_the_tile_and_empty_ones(isa: Isa) -> None:
    spec = conv(9, 10, 3, strides=(2, 2), pads=(1, 1, 1, 1))
    for size in [(1, 4, W) for W in (1, 7, 8, 9, 15, 16, 17)] + [(0, 5, 5), (3, 1, 1), (5, 3, 3)]:
        check(DIRECT, spec, isa, size, tile=SMALL)


@ISAS
def test_the_first_tiles(isa: Isa) -> None:
    spec = conv(16, 72, 3, pads=(1, 1, 1, 1))
    tiles = list(DIRECT.tiles(spec, isa))
    for tile in (tiles[0], tiles[2], tiles[-1]):
        demand = DIRECT.demand(spec, tile, isa)
        assert demand.registers <= isa.registers
        assert demand.tasks is None
        check(DIRECT, spec, isa, (1, 5, 14), tile=tile, any_width=False, bias=False)


@ISAS
@pytest.mark.parametrize(
    ("group", "Cin", "Cout"),
    [
        (2, 32, 32),  # groups of whole vectors
        (2, 64, 32),
        (8, 32, 32),  # several groups in a vector, lanes moved
        (16, 16, 16),  # depthwise
        (16, 16, 32),  # several groups in a vector, zeros between
        (4, 24, 112),
        (4, 136, 136),
        (2, 6, 10),
        (3, 3, 3),
    ],
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_groups(isa: Isa, group: int, Cin: int, Cout: int, kernel: int) -> None:  # noqa: N803
    pads = (kernel // 2,) * 4
    spec = conv(Cin, Cout, kernel, pads=pads, group=group)
    check(DIRECT, spec, isa, (2, 5, 9), any_width=False)


@ISAS
@pytest.mark.parametrize(
    "spec",
    [
        conv(16, 9, 2, strides=(2, 2), transposed=True),
        conv(5, 17, 4, strides=(2, 2), pads=(1, 1, 1, 1), transposed=True),
        conv(9, 3, 4, strides=(2, 2), pads=(3, 3, 3, 3), transposed=True),
        conv(8, 8, 3, strides=(2, 2), pads=(1,) * 4, output_padding=(1, 1), transposed=True),
        conv(4, 5, (3, 2), strides=(3, 3), output_padding=(2, 1), transposed=True),
        conv(4, 5, 3, dilations=(2, 2), pads=(1, 0, 2, 1), transposed=True),
        conv(4, 5, 1, strides=(2, 3), transposed=True),  # phases without a tap
        conv(12, 24, 4, strides=(2, 2), pads=(1, 2, 0, 1), group=3, transposed=True),
        conv(16, 16, 3, strides=(2, 1), pads=(1,) * 4, group=16, transposed=True),
        conv(4, 6, 5, strides=(1, 2), pads=(4, 4, 4, 4), transposed=True),
    ],
    ids=str,
)
def test_transposed(isa: Isa, spec: ConvSpec) -> None:
    for size in [(2, 5, 9), (1, 4, 4), (1, 1, 1)]:
        shared = spec.group > 1
        tile = None if shared else SMALL
        check(DIRECT, spec, isa, size, tile=tile, threads=size[0], any_width=not shared)


@ISAS
@pytest.mark.parametrize(
    "spec",
    [
        conv(16, 3, 5, pads=(2, 2, 2, 2)),
        conv(37, 1, 1, strides=(2, 2)),
        conv(8, 4, 3, pads=(1, 0, 1, 2)),
        conv(21, 2, (1, 3), dilations=(1, 2)),
    ],
    ids=str,
)
def test_few_output_channels_are_summed_over_vectors_of_input_channels(
    isa: Isa, spec: ConvSpec
) -> None:
    tile = next(DIRECT.tiles(spec, isa))
    assert tile["dots"]
    for size in [(2, 7, 17), (1, 5, 5)]:
        for layouts in (("blocked", "blocked"), ("blocked", "nchw")):
            check(DIRECT, spec, isa, size, layouts=layouts, any_width=False, bias=size[0] == 1)


@ISAS
@pytest.mark.parametrize("kernel", [2, 4])
def test_transposed_with_few_output_channels(isa: Isa, kernel: int) -> None:
    spec = conv(20, 3, kernel, strides=(2, 2), pads=(1, 0, 1, 0), transposed=True)
    assert next(DIRECT.tiles(spec, isa))["dots"]
    check(DIRECT, spec, isa, (2, 5, 9), any_width=False)


def test_what_it_refuses() -> None:
    spec = conv(8, 8, 3, strides=(2, 2), dilations=(2, 2), transposed=True)
    assert DIRECT.supports(spec, AVX512) == "transposed with strides and dilations"
    shared = conv(8, 8, 3, group=8)
    assert DIRECT.check(shared, SMALL, AVX512) == "groups that share vectors need nv=1"
    assert DIRECT.layouts(shared, SMALL, AVX512)[0] == {"blocked"}
    dots = Tile((("mr", 4), ("nv", 3), ("px", 16), ("dots", 1)))
    assert DIRECT.check(conv(8, 3, 3), dots, AVX512) is None
    assert DIRECT.check(conv(8, 4, 3), dots, AVX512) is not None
    assert DIRECT.check(shared, dots, AVX512) is not None
    assert DIRECT.layouts(conv(8, 3, 3), dots, AVX512)[0] == {"blocked"}
