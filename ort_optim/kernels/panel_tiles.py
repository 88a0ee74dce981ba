"""Tile sizes of convolution by panels: what there is, what it demands, whether it is possible.

mr, nv      pixels and vectors of output channels of a register tile
px          pixels of a block, for which a panel's weights are read once
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ort_optim.kernels.base import Demand, Tile
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.panels import Panels
from ort_optim.kernels.spec import ConvSpec

SHAPES = {32: ((14, 2), (6, 4), (9, 3), (28, 1)), 16: ((6, 2), (4, 3), (12, 1))}
"""By vector registers, tiles (mr, nv) that fit: mr * nv sums, nv weights and one number of x. The
first reads weights least often, which counts where they come from L2."""

NARROW = {32: ((6, 4), (14, 2), (9, 3), (28, 1)), 16: ((6, 2), (4, 3), (12, 1))}
"""The same for short sums and for widths that are not known: more vectors share a number of x, and
there are fewer widths to write code for. (1x1 32->32 @52: 233 GFLOP/s with 6x4, 213 with 14x2.)"""

ONE_VECTOR = {32: ((14, 1), (28, 1)), 16: ((12, 1), (8, 1))}
"""The same where one vector holds all output channels: only more pixels give enough sums side by
side. (1x1 96->16 @112: 205 GFLOP/s with 14x1, 161 with 6x4.)"""

SHARED = {32: ((14, 1), (24, 1)), 16: ((8, 1), (10, 1))}
"""The same where groups share vectors: each vector then reads other numbers of x."""

FIRST = {32: ((8, 2), (10, 2), (14, 2)), 16: ((4, 2), (6, 2))}
"""The same for sums over few channels, taken one by one: the taps of a row fit in beside the sums.
(3x3 3->64 @224: 236 GFLOP/s with 8x2, 212 with 14x2.)"""

FIRST_VECTOR = {32: ((14, 1), (24, 1)), 16: ((8, 1), (10, 1))}
"""The same where one vector holds all output channels."""

DOTS = {32: (12, 12, 8, 6), 16: (12, 6, 4, 2)}
"""By vector registers, pixels of a tile for 1, 2, ... output channels whose sums are vectors over
input channels: else most lanes of a vector of output channels are idle."""

DOTS_CIN = 8
"""Input channels from which that pays."""

SHORT_SUM, FEW_PIXELS = 128, 3
"""Steps up to which a sum counts as short, and pixels of a row up to which a row does: its tiles
have too few sums side by side but for more vectors."""

BLOCK_FLOATS = 1 << 18
"""What a block reads of x: 1 MiB. x streams through L2 in any case; what counts is that a panel's
weights are read from memory once for many pixels. (1x1 192->128 @56: 237 GFLOP/s with 4096 pixels,
234 with 1024, 219 with 256.)"""

SMALLEST_BLOCK, LARGEST_BLOCK = 256, 1 << 14

STAGED_FLOATS = 1 << 16
"""The same for a first layer, whose rows of x are copied first: 256 KiB, which stay in L2."""


def panel_tiles(conv: ConvSpec, isa: Isa, *, single: bool = False) -> Iterator[Tile]:
    """Tile sizes, likely best first. `single` as in `Panels`."""
    if single:
        table = FIRST_VECTOR if conv.Cout <= isa.lanes else FIRST
    elif Panels(conv, 1, isa.lanes).shared:
        table = SHARED
    elif conv.Cout <= isa.lanes:
        table = ONE_VECTOR
    elif conv.Cin * conv.KH * conv.KW <= SHORT_SUM or conv.W is None or conv.W <= FEW_PIXELS:
        table = NARROW
    else:
        table = SHAPES
    whole = _block(conv, STAGED_FLOATS if single else BLOCK_FLOATS)
    few = DOTS[_row(DOTS, isa)]
    if not single and conv.group == 1 and conv.Cout <= len(few) and conv.Cin >= DOTS_CIN:
        sizes = (("mr", few[conv.Cout - 1]), ("nv", conv.Cout), ("px", whole), ("dots", 1))
        yield Tile(sizes)
    for mr, nv in table[_row(table, isa)]:
        for px in sorted({whole, max(whole // 4, SMALLEST_BLOCK)}, reverse=True):
            yield Tile((("mr", mr), ("nv", nv), ("px", px)))


def _row(table: Mapping[int, object], isa: Isa) -> int:
    """The key of a table for a number of vector registers."""
    return max(each for each in table if each <= isa.registers)


def _block(conv: ConvSpec, floats: int) -> int:
    """Pixels of a block that reads so many floats: a power of two."""
    reads = 1 if conv.transposed else conv.strides[0] * conv.strides[1]
    pixels = floats // (conv.Cin * reads)
    return min(max(1 << max(pixels, 1).bit_length() - 1, SMALLEST_BLOCK), LARGEST_BLOCK)


def panel_check(conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
    """None, or why these are no tile sizes of convolution by panels."""
    sizes = dict(tile.sizes)
    dots = sizes.pop("dots", 0)
    if dots not in (0, 1) or sorted(sizes) != ["mr", "nv", "px"]:
        return f"tile sizes {tile}, not mr, nv, px and perhaps dots=1"
    if dots and (tile["nv"] != conv.Cout or conv.group > 1 or conv.Cout > isa.lanes):
        return f"dots=1 with nv={tile['nv']} for {conv.Cout} output channels, {conv.group} groups"
    if min(sizes.values()) < 1 or sizes["px"] > LARGEST_BLOCK:
        return f"tile sizes {tile} out of range"
    if tile["nv"] > 1 and Panels(conv, 1, isa.lanes).shared:
        return "groups that share vectors need nv=1"
    registers = _registers(tile)
    if registers > isa.registers:
        return f"{registers} vector registers, {isa.registers} there"
    return None


def _registers(tile: Tile) -> int:
    return tile["mr"] * tile["nv"] + tile["nv"] + 1


def panel_demand(panels: Panels, conv: ConvSpec, tile: Tile) -> Demand:
    """What a kernel with these panels needs of the machine.

    The second cache must hold what each register tile reads again: the panel's weights, 9 bytes a
    cycle with 14x2 vectors on AVX-512. x is read once a panel, 4 bytes a cycle, which the last
    level gives (see `BLOCK_FLOATS`), so the size of a block demands nothing.
    """
    width = panels.nv * panels.v
    depth = min(panels.channels * conv.KH * conv.KW, _L2_DEPTH)
    per_tile = tile["mr"] * panels.v * min(conv.KW, 3) + width * panels.v
    tasks = None
    if conv.OH is not None and conv.OW is not None:
        tasks = -(-conv.OH * conv.OW // tile["px"]) * panels.groups * panels.per_group
    return Demand(
        registers=_registers(tile),
        l1_bytes=per_tile * FLOAT_BYTES,
        l2_bytes=depth * (width + tile["mr"] * (panels.v if panels.dots else 1)) * FLOAT_BYTES,
        packed_bytes=panels.floats * FLOAT_BYTES,
        tasks=tasks,
    )


_L2_DEPTH = 1024
"""Steps of a sum whose weights the second cache must hold. Of deeper panels, 4608 steps are 590 KB,
the rest is asked for ahead: 3x3 512->512 @28 runs at ORT's 240 GFLOP/s."""
