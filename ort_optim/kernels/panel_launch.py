"""Convolution by panels with its sizes: the widths of tiles that occur, blocks, tasks."""

from __future__ import annotations

from ort_optim.kernels.base import Launch, Tile
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.panel_kernel import PanelConv
from ort_optim.kernels.panels import erased, is_dots, panels_of
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.staging import staged_bytes
from ort_optim.kernels.tensors import Layout

TASK_MACS = 500_000  # about 4 us: smaller tasks cost more to hand out than they bring
TASKS_PER_THREAD = 16
"""For each worker but one. With 8 of 60 us each, two workers that do not begin at the same time
wait for each other up to 60 us: 3x3 128->128 with stride 2 on 56x56 takes 565 us with 8 on two
threads, 510 with 16 or 24."""

MADE_FLOATS = 1 << 15
"""What a panel makes of a block before it is turned to NCHW: 128 KiB, which stay in L2."""


def widths_of(cols: int | None, mr: int) -> frozenset[int]:
    """The widths of tiles in a row of `cols` pixels; all up to mr where that is not known."""
    if cols is None:
        return frozenset(range(1, mr + 1))
    tiles = max(1, -(-cols // mr))
    return frozenset({cols // tiles, -(-cols // tiles)} - {0})


def panel_launch(
    template: str,
    conv: ConvSpec,
    tile: Tile,
    isa: Isa,
    epilogue: Epilogue,
    x: Layout,
    y: Layout,
    *,
    single: bool = False,
) -> Launch:
    """The convolution x -> y by panels, cut into tasks.

    A block has about tile["px"] pixels. Where there are several workers, blocks are cut into blocks
    of panels, then made smaller, until there are `TASKS_PER_THREAD` tasks for each worker or tasks
    become smaller than `TASK_MACS`.
    """
    mr, nv = tile["mr"], tile["nv"]
    panels = panels_of(conv, tile, isa.lanes, single=single)
    staged = x.kind == "nchw" and any(conv.pads)
    turned = y.kind == "nchw" and conv.Cout > isa.lanes
    flat = _is_flat(conv, x, y)
    height, width = (y.H, y.W)
    if conv.transposed:
        height, width = height.ceildiv(conv.strides[0]), width.ceildiv(conv.strides[1])
    known = [width] if not conv.transposed else [width, y.W // conv.strides[1]]
    # Operands with a halo, of which the sizes tell only when it runs: then row by row.
    perhaps_rows = flat and any(each.operand == "tensor" for each in epilogue.operations)
    if flat:
        known = [width * height]
    if perhaps_rows:
        known.append(width)
    widths = frozenset[int]().union(*(widths_of(each.known, mr) for each in known))
    kernel = PanelConv(
        template,
        erased(conv),
        mr,
        nv,
        tuple(sorted(widths)),
        flat,
        x.kind,
        y.kind,
        staged,
        turned,
        single,
        is_dots(tile),
        epilogue,
    )
    cols = width * height if flat else width
    units = cols.ceildiv(mr) if flat else height
    unit_pixels = x.N.sizes.const(mr) if flat else width
    enough = ((x.N.sizes.threads() - 1) * TASKS_PER_THREAD).max(1)
    macs = panels.channels * conv.KH * conv.KW * panels.groups * panels.vectors * isa.lanes
    work = x.N * height * width * macs // TASK_MACS
    target = enough.min(work).max(1)
    images = x.N.max(1)
    made_floats = turned * min(nv, panels.vectors) * isa.lanes  # of a pixel
    most = min(tile["px"], MADE_FLOATS // made_floats) if turned else tile["px"]
    per_block = (unit_pixels.max(1).sizes.const(most) // unit_pixels.max(1)).max(1)
    blocks = units.ceildiv(per_block).max(1)
    panel_blocks = target.ceildiv(images * blocks).min(panels.groups * panels.per_group)
    if staged:
        panel_blocks = x.N.sizes.const(1)
    blocks = blocks.max(target.ceildiv(images * panel_blocks)).min(units.max(1))
    values = {
        **x.values("x"),
        **y.values("y"),
        "H": y.H,
        "W": y.W,
        "blocks": blocks,
        "panel_blocks": panel_blocks,
    }
    pixels = units.ceildiv(blocks) * unit_pixels
    if perhaps_rows:
        pixels = pixels.max(height.ceildiv(blocks) * width)
    made = pixels * made_floats
    scratch = made * FLOAT_BYTES
    if staged:
        values |= {"x.H": x.H, "x.W": x.W, "made": made}
        scratch += staged_bytes(conv, units.ceildiv(blocks), x.W, isa.lanes)
    return Launch(kernel, values, x.N * blocks * panel_blocks, scratch)


def _is_flat(conv: ConvSpec, x: Layout, y: Layout) -> bool:
    """Whether pixel i of x, row by row, is what pixel i of y is made of, all at one distance."""
    plain = conv.kernel == (1, 1) and conv.strides == (1, 1) and not any(conv.pads)
    return plain and all(
        side.known == 0 for layout in (x, y) for side in (layout.halo.left, layout.halo.right)
    )
