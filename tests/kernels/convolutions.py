"""Runs a convolution template on arrays and compares with the definition in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ort_optim.kernels.base import ConvTemplate, Launch, Tile
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.panel_kernel import PanelConv
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import nchw
from tests.kernels.harness import aligned, known
from tests.kernels.movement import GUARD, Tensor, compiled, random, run

Array = NDArray[np.float32]
EPSILON = 2.0**-24
BLOCKED = ("blocked", "blocked")
ALL_LAYOUTS = [(x, y) for x in ("blocked", "nchw") for y in ("blocked", "nchw")]


class Plain:
    """An NCHW tensor between two guards; NaN where nothing was written yet."""

    def __init__(self, sizes: Sizes, shape: tuple[int, ...], values: Array | None = None) -> None:
        N, C, H, W = shape
        self.layout = nchw(sizes.const(N), C, sizes.const(H), sizes.const(W))
        self.shape = shape
        self.memory = aligned(known(self.layout.floats) + 2 * GUARD, np.nan)
        if values is not None:
            self.memory[GUARD : len(self.memory) - GUARD] = values.ravel()

    @property
    def address(self) -> int:
        """Of its first number."""
        return int(self.memory.ctypes.data) + 4 * GUARD

    def read(self) -> Array:
        """(N, C, H, W), after a look at the guards."""
        assert np.isnan(self.memory[:GUARD]).all()
        assert np.isnan(self.memory[len(self.memory) - GUARD :]).all()
        return self.memory[GUARD : len(self.memory) - GUARD].reshape(self.shape)


def sized(conv: ConvSpec, size: tuple[int, int, int]) -> ConvSpec:
    """The convolution of an image of this size (N, H, W)."""
    return replace(conv, N=size[0], H=size[1], W=size[2])


def truth(conv: ConvSpec, x: NDArray[Any], w: NDArray[Any], b: NDArray[Any] | None) -> NDArray[Any]:
    """The definition, tap by tap, in the type of x."""
    conv = sized(conv, (x.shape[0], *x.shape[2:]))
    y = np.zeros((x.shape[0], conv.Cout, conv.OH or 0, conv.OW or 0), x.dtype)
    for n, ih, iw in np.ndindex(x.shape[0], *(x.shape[2:] if conv.transposed else y.shape[2:])):
        for kh, kw in np.ndindex(conv.kernel):
            row = ih * conv.strides[0] + kh * conv.dilations[0] - conv.pads[0]
            col = iw * conv.strides[1] + kw * conv.dilations[1] - conv.pads[1]
            inside = y.shape[2:] if conv.transposed else x.shape[2:]
            if not (0 <= row < inside[0] and 0 <= col < inside[1]):
                continue
            here, there = ((ih, iw), (row, col)) if conv.transposed else ((row, col), (ih, iw))
            for g in range(conv.group):
                inputs = slice(g * conv.group_Cin, (g + 1) * conv.group_Cin)
                outputs = slice(g * conv.group_Cout, (g + 1) * conv.group_Cout)
                matrix = w[inputs, :, kh, kw].T if conv.transposed else w[outputs, :, kh, kw]
                y[n, outputs, *there] += matrix @ x[n, inputs, *here]
    return y if b is None else y + b[:, None, None]


def pack(template: ConvTemplate, conv: ConvSpec, tile: Tile, isa: Isa, w: Array, b: Any) -> Array:
    """Packed weights."""
    packing = template.packing(conv, tile, isa, bias=b is not None, sizes=Sizes())
    packed = aligned(packing.bytes // 4, np.nan)
    places = {"w": w.ctypes.data, "packed": packed.ctypes.data}
    if b is not None:
        places["b"] = b.ctypes.data
    compiled(packing.launch.kernel, isa).launch(packing.launch, places)
    assert not np.isnan(packed).any()
    return packed


def for_any_width(launch: Launch) -> Launch:
    """The launch with the code that is written where sizes are not known."""
    kernel = launch.kernel
    assert isinstance(kernel, PanelConv)
    return replace(launch, kernel=replace(kernel, widths=tuple(range(1, kernel.mr + 1))))


def check(
    template: ConvTemplate,
    conv: ConvSpec,
    isa: Isa,
    size: tuple[int, int, int],
    *,
    tile: Tile | None = None,
    layouts: tuple[str, str] = BLOCKED,
    bias: bool = True,
    threads: int = 1,
    any_width: bool = True,
) -> None:
    """Pack, run and compare with the definition; the NumPy reference too."""
    N, H, W = size
    sizes = Sizes(threads)
    assert template.supports(conv, isa) is None
    tile = tile or next(iter(template.tiles(conv, isa)))
    assert template.check(conv, tile, isa) is None
    reads, writes = template.layouts(conv, tile, isa)
    assert layouts[0] in reads
    assert layouts[1] in writes
    x_values, w = random((N, conv.Cin, H, W)), random(conv.weight_shape, 2)
    b = random((conv.Cout,), 3) if bias else None
    halo = template.halo(conv, tile, sizes.const(H), sizes.const(W))
    sides = tuple(known(each) for each in (halo.top, halo.left, halo.bottom, halo.right))
    shape = (N, conv.Cout, sized(conv, size).OH or 0, sized(conv, size).OW or 0)
    x: Tensor | Plain = Plain(sizes, x_values.shape, x_values)
    if layouts[0] == "blocked":
        x = Tensor(sizes, x_values.shape, isa, sides, x_values)  # type: ignore[arg-type]
    y: Tensor | Plain = Plain(sizes, shape)
    if layouts[1] == "blocked":
        y = Tensor(sizes, shape, isa, (0, 0, 1, 2) if W % 2 else (0, 0, 0, 0))
    packed = pack(template, conv, tile, isa, w, b)
    launch = template.launch(conv, tile, isa, Epilogue(), x.layout, y.layout)
    if any_width:
        launch = for_any_width(launch)
    run(launch, isa, x=x.address, w=int(packed.ctypes.data), y=y.address)
    found = y.read()
    wide = truth(conv, x_values.astype(np.float64), w.astype(np.float64), b)
    scale = truth(conv, np.abs(x_values), np.abs(w), None if b is None else np.abs(b))
    bound = (conv.group_Cin * conv.KH * conv.KW + 1) * EPSILON * scale
    assert (np.abs(found - wide) <= bound).all()
    if isinstance(y, Tensor):
        assert not y.read_all()[:, conv.Cout :].any()
    reference = template.reference(conv, tile, x_values, w, b)
    assert reference.shape == wide.shape
    assert (np.abs(reference - wide) <= bound).all()
