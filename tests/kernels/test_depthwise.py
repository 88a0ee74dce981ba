"""Depthwise kernels against the definition in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ort_optim.kernels.base import Tile
from ort_optim.kernels.depthwise import depthwise
from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.spec import ConvSpec
from tests.kernels.convolutions import ALL_LAYOUTS, Plain
from tests.kernels.harness import AVX2, AVX512, aligned, known
from tests.kernels.movement import Tensor, compiled, random, run

Array = NDArray[np.float32]
ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
EPSILON = 2.0**-24


def truth(conv: ConvSpec, x: NDArray[Any], w: NDArray[Any], b: NDArray[Any] | None) -> NDArray[Any]:
    """The definition, one output at a time, in the type of x."""
    top, left, bottom, right = conv.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spec = replace(conv, N=x.shape[0], H=x.shape[2], W=x.shape[3])
    y = np.zeros((x.shape[0], conv.Cin, spec.OH or 0, spec.OW or 0), x.dtype)
    for oh, ow in np.ndindex(y.shape[2:]):
        window = padded[
            :,
            :,
            oh * conv.strides[0] : oh * conv.strides[0] + conv.extent[0] : conv.dilations[0],
            ow * conv.strides[1] : ow * conv.strides[1] + conv.extent[1] : conv.dilations[1],
        ]
        y[:, :, oh, ow] = (window * w[:, 0]).sum((2, 3))
    return y if b is None else y + b[:, None, None]


def check(
    conv: ConvSpec,
    isa: Isa,
    size: tuple[int, int, int],
    tile: Tile | None = None,
    bias: bool = True,
    threads: int = 1,
) -> None:
    """Pack, run and compare, in all layouts; sizes in `conv` may be pinned to `size`."""
    N, H, W = size
    C = conv.Cin
    sizes = Sizes(threads)
    assert depthwise.supports(conv, isa) is None
    tile = tile or next(depthwise.tiles(conv, isa))
    assert depthwise.check(conv, tile, isa) is None
    x_values, w = random((N, C, H, W)), random(conv.weight_shape, 2)
    b = random((C,), 3) if bias else None
    halo = depthwise.halo(conv, tile, sizes.const(H), sizes.const(W))
    sides = tuple(known(each) for each in (halo.top, halo.left, halo.bottom, halo.right))
    shape = replace(conv, N=N, H=H, W=W)
    y_shape = (N, C, shape.OH or 0, shape.OW or 0)
    packed = pack(conv, tile, isa, w, b)
    wide = truth(conv, x_values.astype(np.float64), w.astype(np.float64), b)
    scale = truth(conv, np.abs(x_values), np.abs(w), None if b is None else np.abs(b))
    bound = (conv.KH * conv.KW + 1) * EPSILON * scale
    for x_kind, y_kind in ALL_LAYOUTS:
        x: Tensor | Plain = Tensor(sizes, x_values.shape, isa, sides, x_values)
        y: Tensor | Plain = Tensor(sizes, y_shape, isa, (1, 0, 0, 2))
        if x_kind == "nchw":
            x = Plain(sizes, x_values.shape, x_values)
        if y_kind == "nchw":
            y = Plain(sizes, y_shape)
        launch = depthwise.launch(conv, tile, isa, Epilogue(), x.layout, y.layout)
        run(launch, isa, x=x.address, w=int(packed.ctypes.data), y=y.address)
        assert (np.abs(y.read() - wide) <= bound).all()
        assert isinstance(y, Plain) or not y.read_all()[:, C:].any()
    reference = depthwise.reference(conv, tile, x_values, w, b)
    assert (np.abs(reference - wide) <= bound).all()


def pack(conv: ConvSpec, tile: Tile, isa: Isa, w: Array, b: Array | None) -> Array:
    packing = depthwise.packing(conv, tile, isa, bias=b is not None, sizes=Sizes())
    packed = aligned(packing.bytes // 4, np.nan)
    places = {"w": w.ctypes.data, "packed": packed.ctypes.data}
    if b is not None:
        places["b"] = b.ctypes.data
    compiled(packing.launch.kernel, isa).launch(packing.launch, places)
    return packed


def conv(channels: int, kernel: int | tuple[int, int], **more: Any) -> ConvSpec:
    pair = (kernel, kernel) if isinstance(kernel, int) else kernel
    return ConvSpec(channels, channels, pair, group=channels, **more)


@ISAS
@pytest.mark.parametrize("th", [1, 2])
def test_sizes_that_straddle_the_tile_and_the_vector(isa: Isa, th: int) -> None:
    tile = Tile((("th", th), ("tw", 4)))
    spec = {C: conv(C, 3, pads=(1, 1, 1, 1)) for C in (2, 8, 17, 33)}
    for C, size in [
        (2, (1, 1, 1)),
        (8, (2, 7, 3)),
        (17, (3, 8, 4)),
        (33, (1, 9, 5)),
        (17, (5, 2, 17)),
        (8, (1, 31, 33)),
        (8, (0, 5, 5)),
        (2, (1, 3, 128)),
    ]:
        check(spec[C], isa, size, tile, threads=1 + size[1] % 3)


@ISAS
@pytest.mark.parametrize(
    "spec",
    [
        conv(19, 3, strides=(2, 2), pads=(1, 1, 1, 1)),
        conv(16, 3, strides=(2, 2), pads=(0, 0, 1, 1)),
        conv(8, 5, pads=(2, 2, 2, 2)),
        conv(24, 5, strides=(2, 2), pads=(2, 1, 2, 2)),
        conv(8, 3, dilations=(2, 3), pads=(2, 3, 2, 3)),
        conv(9, 3, strides=(3, 1), pads=(0, 2, 1, 0)),
        conv(8, (1, 7), pads=(0, 3, 0, 3)),
        conv(8, (2, 4), strides=(1, 2)),
        conv(3, 7, pads=(3, 3, 3, 3)),
    ],
    ids=str,
)
def test_kernels_strides_dilations_and_pads(isa: Isa, spec: ConvSpec) -> None:
    for size in [(2, 13, 14), (1, 8, 31), (1, 7, 7)]:
        check(spec, isa, size, bias=size[0] == 1)


@ISAS
@pytest.mark.parametrize("side", [7, 14, 10, 5])
def test_pinned_sizes_in_every_tile(isa: Isa, side: int) -> None:
    spec = conv(20, 3, pads=(1, 1, 1, 1), N=1, H=side, W=side + 1)
    tiles = list(depthwise.tiles(spec, isa))
    assert len(set(tiles)) == len(tiles)
    for tile in (tiles[0], tiles[-1]):
        check(spec, isa, (1, side, side + 1), tile)


@ISAS
def test_an_output_smaller_than_its_kernel_is_padding_alone(isa: Isa) -> None:
    check(conv(16, 5, pads=(2, 2, 2, 2)), isa, (1, 1, 2))
    check(conv(16, 3, strides=(2, 2), pads=(1, 1, 1, 1)), isa, (2, 1, 1))


@ISAS
def test_an_epilogue_with_every_kind_of_operand(isa: Isa) -> None:
    spec = conv(21, 3, strides=(2, 2), pads=(1, 1, 1, 1))
    tile = next(depthwise.tiles(spec, isa))
    sizes = Sizes(2)
    values, w, b = random((2, 21, 9, 11)), random(spec.weight_shape, 2), random((21,), 3)
    x = Tensor(sizes, values.shape, isa, (1, 1, 1, 1), values)
    y = Tensor(sizes, (2, 21, 5, 6), isa, (0, 1, 1, 0))
    other = random((2, 21, 5, 6), 4)
    e0 = Tensor(sizes, other.shape, isa, (2, 1, 0, 0), other)
    gate = random((2, 21, 1, 1), 5)
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
    launch = depthwise.launch(spec, tile, isa, epilogue, x.layout, y.layout)
    values_of = {**launch.values, **e0.layout.values("e0"), **e1.layout.values("e1")}
    packed = pack(spec, tile, isa, w, b)
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
    wanted = (truth(spec, values, w, b) + other) * gate
    wanted = np.where(wanted < 0, wanted * slope[:21, None, None], wanted).clip(-1, 2)
    np.testing.assert_allclose(y.read(), wanted, rtol=1e-5, atol=1e-5)


@ISAS
def test_nan_and_infinity_go_where_the_definition_takes_them(isa: Isa) -> None:
    spec = conv(16, 3, pads=(1, 1, 1, 1))
    tile = next(depthwise.tiles(spec, isa))
    sizes = Sizes(1)
    values, w = random((1, 16, 9, 9)), random(spec.weight_shape, 2)
    values[0, 3, 4, 4], values[0, 5, 2, 7] = np.nan, np.inf
    x = Tensor(sizes, values.shape, isa, (1, 1, 1, 1), values)
    y = Tensor(sizes, values.shape, isa)
    packed = pack(spec, tile, isa, w, None)
    launch = depthwise.launch(spec, tile, isa, Epilogue(), x.layout, y.layout)
    run(launch, isa, x=x, w=int(packed.ctypes.data), y=y)
    np.testing.assert_allclose(y.read(), truth(spec, values, w, None), rtol=1e-5, atol=1e-5)


def test_what_it_refuses() -> None:
    for spec, reason in [
        (ConvSpec(16, 16, (3, 3), group=8), "group 8 is not the 16 input channels"),
        (ConvSpec(16, 32, (3, 3), group=16), "2 output channels for each input channel"),
        (conv(16, 8), "kernel 8x8 has more than 49 taps"),
        (ConvSpec(16, 16, (3, 3), group=16, transposed=True), "transposed"),
    ]:
        assert depthwise.supports(spec, AVX512) == reason
    spec = conv(16, 3)
    assert depthwise.check(spec, Tile((("th", 8), ("tw", 8))), AVX512) is not None
    assert depthwise.check(spec, Tile((("tw", 2), ("th", 2))), AVX512) is not None
    assert depthwise.check(spec, Tile((("th", 0), ("tw", 2))), AVX512) is not None
