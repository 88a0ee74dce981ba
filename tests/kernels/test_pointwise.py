"""Pointwise kernels against the definition in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ort_optim.kernels.base import Tile
from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.panel_kernel import PanelConv
from ort_optim.kernels.pointwise import Pointwise
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import blocked, no_halo
from tests.kernels.convolutions import ALL_LAYOUTS, check, pack, truth
from tests.kernels.harness import AVX2, AVX512, aligned
from tests.kernels.movement import Tensor, random, run

ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
POINTWISE = Pointwise()
SMALL = Tile((("mr", 4), ("nv", 2), ("px", 16)))


def conv(Cin: int, Cout: int, stride: int = 1) -> ConvSpec:  # noqa: N803
    return ConvSpec(Cin, Cout, (1, 1), strides=(stride, stride))


@ISAS
def test_sizes_that_straddle_the_tile(isa: Isa) -> None:
    for size in [
        *[(1, 1, W) for W in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33)],
        (5, 13, 11),
        (2, 4, 4),
        (0, 5, 5),
        (1, 0, 3),
    ]:
        for threads in (1, 3):
            check(POINTWISE, conv(19, 21), isa, size, tile=SMALL, threads=threads)


@ISAS
@pytest.mark.parametrize("Cin", [1, 3, 8, 16, 17, 33])
@pytest.mark.parametrize("Cout", [1, 7, 16, 33, 72])
def test_channels_that_straddle_the_vector(isa: Isa, Cin: int, Cout: int) -> None:  # noqa: N803
    check(POINTWISE, conv(Cin, Cout), isa, (2, 3, 5), bias=Cin != 3, any_width=False)


@ISAS
def test_every_tile(isa: Isa) -> None:
    spec = conv(24, 40)
    tiles = list(POINTWISE.tiles(spec, isa))
    assert len(set(tiles)) == len(tiles)
    for tile in tiles:
        demand = POINTWISE.demand(replace(spec, N=1, H=20, W=20), tile, isa)
        assert demand.registers <= isa.registers
        assert demand.tasks is not None
        check(POINTWISE, spec, isa, (1, 4, 14), tile=tile, any_width=False)


@ISAS
@pytest.mark.parametrize("layouts", ALL_LAYOUTS, ids="-".join)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strides_and_layouts(isa: Isa, layouts: tuple[str, str], stride: int) -> None:
    spec = conv(18, 37, stride)
    for size in [(2, 9, 17), (1, 5, 6), (1, 1, 1)]:
        check(POINTWISE, spec, isa, size, tile=SMALL, layouts=layouts)


@ISAS
def test_small_blocks_of_panels_and_pixels_for_many_threads(isa: Isa) -> None:
    spec = conv(32, 200)
    for threads in (1, 2, 16):
        check(POINTWISE, spec, isa, (1, 32, 33), threads=threads, any_width=False)


@ISAS
def test_an_epilogue_with_every_kind_of_operand(isa: Isa) -> None:
    spec = conv(21, 21)
    sizes = Sizes(2)
    values, w, b = random((2, 21, 9, 11)), random(spec.weight_shape, 2), random((21,), 3)
    x = Tensor(sizes, values.shape, isa, values=values)
    y = Tensor(sizes, values.shape, isa)
    other, gate = random(values.shape, 4), random((2, 21, 1, 1), 5)
    e1 = Tensor(sizes, gate.shape, isa, values=gate)
    slope = aligned(-(-21 // isa.lanes) * isa.lanes)
    slope[:21] = random((21,), 6)
    epilogue = Epilogue(
        (
            Operation("add", operand="tensor"),
            Operation("mul", operand="channel"),
            Operation("prelu", operand="constant"),
            Operation("clip", (-1.0, 2.0)),
        )
    )
    launch = POINTWISE.launch(spec, SMALL, isa, epilogue, x.layout, y.layout)
    packed = pack(POINTWISE, spec, SMALL, isa, w, b)
    wanted = (truth(spec, values, w, b) + other) * gate
    wanted = np.where(wanted < 0, wanted * slope[:21, None, None], wanted).clip(-1, 2)
    for halo in ((0, 0, 0, 0), (2, 1, 0, 0)):  # the operand as one row of pixels, and not
        e0 = Tensor(sizes, other.shape, isa, halo, other)
        values_of = {**launch.values, **e0.layout.values("e0"), **e1.layout.values("e1")}
        run(
            replace(launch, values=values_of),
            isa,
            x=x,
            w=int(packed.ctypes.data),
            y=y,
            e0=e0,
            e1=e1,
            e2=int(slope.ctypes.data),
        )
        np.testing.assert_allclose(y.read(), wanted, rtol=1e-5, atol=1e-5)


@ISAS
def test_nan_and_infinity_stay_in_their_pixel(isa: Isa) -> None:
    spec = conv(16, 24)
    sizes = Sizes(1)
    values, w = random((1, 16, 5, 5)), random(spec.weight_shape, 2)
    values[0, 3, 2, 2], values[0, 5, 4, 1] = np.nan, np.inf
    x, y = Tensor(sizes, values.shape, isa, values=values), Tensor(sizes, (1, 24, 5, 5), isa)
    launch = POINTWISE.launch(spec, SMALL, isa, Epilogue(), x.layout, y.layout)
    packed = pack(POINTWISE, spec, SMALL, isa, w, None)
    run(launch, isa, x=x, w=int(packed.ctypes.data), y=y)
    np.testing.assert_allclose(y.read(), truth(spec, values, w, None), rtol=1e-5, atol=1e-5)


def test_code_does_not_depend_on_sizes_that_are_not_known() -> None:
    spec = conv(32, 32)
    sizes = Sizes()
    tile = next(POINTWISE.tiles(spec, AVX512))
    N, H, W = (sizes.dim(0, axis) for axis in (0, 2, 3))
    x = blocked(N, 32, H, W, AVX512.lanes, no_halo(sizes))
    kernel = POINTWISE.launch(spec, tile, AVX512, Epilogue(), x, x).kernel
    assert isinstance(kernel, PanelConv)
    assert kernel.flat
    assert kernel.widths == tuple(range(1, tile["mr"] + 1))


def test_what_it_refuses() -> None:
    for spec, reason in [
        (ConvSpec(8, 8, (1, 1), group=2), "2 groups"),
        (ConvSpec(8, 8, (1, 1), transposed=True), "transposed"),
        (ConvSpec(8, 8, (3, 1)), "kernel 3x1 with pads (0, 0, 0, 0), not 1x1 without"),
        (ConvSpec(8, 8, (1, 1), pads=(1, 0, 0, 0)), "kernel 1x1 with pads (1, 0, 0, 0)"),
    ]:
        assert (POINTWISE.supports(spec, AVX512) or "").startswith(reason)
    for wrong in [
        {"mr": 16, "nv": 2, "px": 64},
        {"mr": 0, "nv": 2, "px": 64},
        {"mr": 4, "nv": 2, "px": 1 << 30},
        {"mr": 4, "nv": 2},
    ]:
        assert POINTWISE.check(conv(8, 8), Tile(tuple(wrong.items())), AVX512) is not None


def test_planes_in_one_set_of_the_cache_are_imported_for_several_panels() -> None:
    for Cin, Cout, H, W, is_read in [
        (40, 65, 160, 160, False),
        (40, 65, 160, 161, True),
        (32, 65, 160, 160, False),
        (16, 65, 160, 160, True),
        (64, 65, 32, 32, False),
        (64, 65, None, 32, True),
        (64, 64, 32, 32, True),
    ]:
        spec = ConvSpec(Cin, Cout, (1, 1), N=1, H=H, W=W)
        tile = next(iter(POINTWISE.tiles(spec, AVX512)))
        assert ("nchw" in POINTWISE.layouts(spec, tile, AVX512)[0]) == is_read
