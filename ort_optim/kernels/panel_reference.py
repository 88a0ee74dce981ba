"""Convolution by panels in NumPy: the same sums in the same order, panel by panel, tap by tap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ort_optim.kernels.base import Tile
from ort_optim.kernels.spec import ConvSpec

LANES = 16


def panel_reference(
    conv: ConvSpec,
    tile: Tile,
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    b: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """(N, Cin, H, W) -> (N, Cout, OH, OW), float32."""
    if conv.transposed:
        return _transposed(conv, tile, x, w, b)
    top, left, bottom, right = conv.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return _sum(conv, tile, padded, w, b)


def _sum(
    conv: ConvSpec,
    tile: Tile,
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    b: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """A plain convolution of x with its padding."""
    (dh, dw), (sh, sw) = conv.dilations, conv.strides
    rows = max(0, (x.shape[2] - conv.extent[0]) // sh + 1)
    cols = max(0, (x.shape[3] - conv.extent[1]) // sw + 1)
    y = np.zeros((x.shape[0], conv.Cout, rows, cols), np.float32)
    if b is not None:
        y += b[:, None, None]
    size, width = conv.group_Cout, tile["nv"] * LANES
    for group in range(conv.group):
        own = x[:, group * conv.group_Cin :][:, : conv.group_Cin]
        for first in range(group * size, (group + 1) * size, width):
            outputs = slice(first, min(first + width, (group + 1) * size))
            for kh in range(conv.KH):
                for kw in range(conv.KW):
                    window = own[:, :, kh * dh :, kw * dw :][:, :, ::sh, ::sw][:, :, :rows, :cols]
                    # (outputs, Cin) x (N, Cin, rows, cols) -> (N, outputs, rows, cols)
                    y[:, outputs] += np.einsum("oc,nchw->nohw", w[outputs, :, kh, kw], window)
    return y


def _transposed(
    conv: ConvSpec,
    tile: Tile,
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    b: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Each input pixel adds its weights to the outputs it meets; pads are cut off at the end."""
    (sh, sw), (dh, dw) = conv.strides, conv.dilations
    images, _, height, width = x.shape
    rows = (height - 1) * sh + conv.extent[0] + conv.output_padding[0]
    cols = (width - 1) * sw + conv.extent[1] + conv.output_padding[1]
    full = np.zeros((images, conv.Cout, rows, cols), np.float32)
    size = conv.group_Cout
    for group in range(conv.group):
        inputs = slice(group * conv.group_Cin, (group + 1) * conv.group_Cin)
        outputs = slice(group * size, (group + 1) * size)
        for kh in range(conv.KH):
            for kw in range(conv.KW):
                at = full[:, outputs, kh * dh :, kw * dw :][:, :, ::sh, ::sw]
                at[:, :, :height, :width] += np.einsum(
                    "co,nchw->nohw", w[inputs, :, kh, kw], x[:, inputs]
                )
    if b is not None:
        full += b[:, None, None]
    top, left, bottom, right = conv.pads
    return full[:, :, top : rows - bottom, left : cols - right]
