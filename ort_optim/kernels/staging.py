"""Rows of an NCHW image copied between zeros, so that what reads them checks no bounds."""

from __future__ import annotations

from ort_optim.kernels.builder import Code
from ort_optim.kernels.isa import FLOAT_BYTES
from ort_optim.kernels.memory import Address
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Place
from ort_optim.kernels.values import Int


def staged_bytes(conv: ConvSpec, rows: Size, width: Size, lanes: int) -> Size:
    """Scratch that holds what `rows` rows of the output read of an image `width` pixels wide."""
    height = (rows.max(1) - 1) * conv.strides[0] + conv.extent[0]
    wide = width + (conv.pads[1] + conv.pads[3])
    # a row is written in whole vectors, the last of which reaches beyond it
    return (height * wide * conv.Cin + 2 * lanes) * FLOAT_BYTES


def stage_rows(
    code: Code, conv: ConvSpec, x: Place, rows: tuple[Int, Int], scratch: Address
) -> Place:
    """Copy to scratch what the output rows [first, stop) read of x, an NCHW image.

    The sizes of x are the kernel's values "x.H" and "x.W". Scratch holds
    [Cin][rows][left + W + right].
    The result is what output pixel (0, 0) reads at its first tap, were all rows there.
    """
    top, left, _, right = conv.pads
    image_height, image_width = code.value("x.H"), code.value("x.W")
    wide = image_width + (left + right)
    height = (rows[1] - rows[0] - 1) * conv.strides[0] + conv.extent[0]
    begin = rows[0] * conv.strides[0] - top
    with code.loop(conv.Cin) as channel, code.loop(height) as i:
        to = scratch.at((channel * height + i) * wide)
        row = begin + i
        with code.either((row >= 0) & (row < image_height)) as (inside, outside):
            with inside:
                _clear(code, to, code.integer(left))
                _copy(code, x.at(plane=channel, row=row).address, to.at(left), image_width)
                _clear(code, to.at(image_width + left), code.integer(right))
            with outside:
                _clear(code, to, wide)
    start = scratch.at((rows[0] * wide) * -conv.strides[0])
    return Place(start, code.integer(0), height * wide, wide, 1)


def _clear(code: Code, to: Address, count: Int) -> None:
    """Zeros, in whole vectors: what is written too far is written again by what follows."""
    with code.loop(count, step=code.lanes) as i:
        to.at(i).store(code.vec(0.0))


def _copy(code: Code, source: Address, to: Address, count: Int) -> None:
    """Copy, and zeros to the end of the last vector."""
    whole = count // code.lanes * code.lanes
    with code.loop(whole, step=code.lanes) as i:
        to.at(i).store(source.at(i).load())
    with code.when(whole < count):
        rest = source.at(whole).load_first(code.lanes_below(count - whole))
        to.at(whole).store(rest)
