"""Winograd convolution: 3x3, stride 1, with 2.25 (F(2x2)) or 4 times (F(4x4)) fewer products.

WinogradTemplate      the template; `winograd_f23` and `winograd_f43` are its instances
winograd_kernel       the code of one step
winograd_packing      the weights' transform
winograd_transforms   the matrices
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.builder import FLOAT_BYTES, Isa
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout
from ort_optim.kernels.winograd_kernel import UNROLL, WinogradKernel
from ort_optim.kernels.winograd_packing import WinogradPacking
from ort_optim.kernels.winograd_transforms import F23, F43, TAPS, Transform

_KEYS = ("T", "nv", "mr", "group")
_MOST_TILES = 1024
_BLOCKED = frozenset({"blocked"})


@dataclass(frozen=True)
class WinogradTemplate:
    """F(m x m, 3 x 3).

    Tile sizes: `T` tiles of m x m outputs in a task; a register tile of at most `mr` of them by
    `nv` vectors of output channels; `group` panels of nv vectors between two output transforms.
    """

    transform: Transform

    @property
    def name(self) -> str:
        """Such as "winograd_f43"."""
        return f"winograd_{self.transform.name}"

    @property
    def error_class(self) -> int:
        """As `ConvTemplate`."""
        return self.transform.error_class

    def supports(self, conv: ConvSpec, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if conv.transposed:
            return "transposed"
        if conv.kernel != (TAPS, TAPS):
            return f"kernel {conv.KH}x{conv.KW} is not 3x3"
        if conv.strides != (1, 1):
            return f"strides {conv.strides} are not 1"
        if conv.dilations != (1, 1):
            return f"dilations {conv.dilations} are not 1"
        if conv.group != 1:
            return f"group {conv.group} is not 1"
        if isa.lanes % UNROLL:
            return f"{isa.lanes} lanes are no multiple of {UNROLL}"
        return None

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """As `ConvTemplate`."""
        yield Tile((("T", 56), ("nv", 2), ("mr", 14 if isa.registers >= 32 else 6), ("group", 1)))

    def check(self, conv: ConvSpec, tile: Tile, isa: Isa) -> str | None:
        """As `ConvTemplate`."""
        if tuple(name for name, _ in tile.sizes) != _KEYS:
            return f"tile sizes are {', '.join(_KEYS)}"
        if min(size for _, size in tile.sizes) < 1:
            return "a tile size is below 1"
        if max(tile["T"], tile["group"]) > _MOST_TILES:
            return f"T or group is above {_MOST_TILES}"
        if _registers(tile) > isa.registers:
            return f"{_registers(tile)} vector registers, of which there are {isa.registers}"
        return None

    def demand(self, conv: ConvSpec, tile: Tile, isa: Isa) -> Demand:
        """As `ConvTemplate`."""
        kernel, packing = self._kernel(conv, tile, Epilogue()), self._packing(conv, tile, True)
        per_row, more = kernel.scratch_floats(isa.lanes)
        tasks = None
        if conv.OH is not None and conv.OW is not None:
            m = self.transform.m
            tasks = -(-(-(-conv.OH // m) * -(-conv.OW // m)) // tile["T"])
        nr = tile["nv"] * isa.lanes
        return Demand(
            registers=_registers(tile),
            l1_bytes=(min(nr, conv.Cout) + tile["mr"]) * conv.Cin * FLOAT_BYTES,
            l2_bytes=(per_row * tile["T"] + more) * FLOAT_BYTES,
            packed_bytes=_packed_floats(packing, isa) * FLOAT_BYTES,
            tasks=tasks,
        )

    def layouts(
        self, conv: ConvSpec, tile: Tile, isa: Isa
    ) -> tuple[frozenset[str], frozenset[str]]:
        """As `ConvTemplate`."""
        return _BLOCKED, _BLOCKED

    def halo(self, conv: ConvSpec, tile: Tile, H: Size, W: Size) -> Halo:  # noqa: N803
        """The padding, and what the last tiles read beyond it."""
        sizes, m, zero = H.sizes, self.transform.m, H.sizes.const(0)
        top, left, bottom, right = conv.pads

        def end(size: Size, before: int, after: int) -> Size:
            outputs = (size + (before + after - TAPS + 1)).max(zero)
            return (outputs.ceildiv(m) * m + (TAPS - 1 - before) - size).max(zero)

        return Halo(sizes.const(top), sizes.const(left), end(H, top, bottom), end(W, left, right))

    def packing(self, conv: ConvSpec, tile: Tile, isa: Isa, *, bias: bool, sizes: Sizes) -> Packing:
        """As `ConvTemplate`."""
        kernel = self._packing(conv, tile, bias)
        scratch = sizes.const(kernel.scratch_floats(isa.lanes) * FLOAT_BYTES)
        launch = Launch(kernel, {}, sizes.const(kernel.tasks(isa.lanes)), scratch)
        return Packing(launch, _packed_floats(kernel, isa) * FLOAT_BYTES)

    def launch(
        self, conv: ConvSpec, tile: Tile, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout
    ) -> Launch:
        """As `ConvTemplate`."""
        sizes, m = y.H.sizes, self.transform.m
        kernel = self._kernel(conv, tile, epilogue)
        across, down = y.W.ceildiv(m), y.H.ceildiv(m)
        tiles = x.N * across * down
        threads, one = sizes.threads(), sizes.const(1)
        runs = tiles.ceildiv(tile["T"]).max(one)
        # Runs for every thread, but none so short that weights are read for few tiles.
        even = runs.ceildiv(threads) * threads
        runs = even.min(runs.max(tiles // min(tile["T"], 2 * tile["mr"])))
        run = tiles.ceildiv(runs).max(one)
        blocks = tiles.ceildiv(run)
        parts = threads.ceildiv(blocks.max(one)).min(sizes.const(kernel.panels(isa.lanes)))
        rows = run.max(sizes.const(kernel.heights[-1]))
        per_row, more = kernel.scratch_floats(isa.lanes)
        values = {
            **x.values("x"),
            **y.values("y"),
            "tiles": tiles,
            "run": run,
            "rows": rows,
            "across": across,
            "down": down,
            "OH": y.H,
            "OW": y.W,
            "parts": parts,
        }
        scratch = (rows * per_row + more) * FLOAT_BYTES
        return Launch(kernel, values, blocks * parts, scratch)

    def reference(
        self, conv: ConvSpec, tile: Tile, x: np.ndarray, w: np.ndarray, b: np.ndarray | None
    ) -> np.ndarray:
        """As `ConvTemplate`."""
        m, n = self.transform.m, self.transform.n
        AT, G, BT = (
            each.astype(np.float32)
            for each in (self.transform.AT, self.transform.G, self.transform.BT)
        )
        top, left, bottom, right = conv.pads
        N, Cin, H, W = x.shape
        OH, OW = max(0, H + top + bottom - 2), max(0, W + left + right - 2)
        y = np.empty((N, conv.Cout, OH, OW), np.float32)
        down, across = -(-OH // m), -(-OW // m)
        padded = np.zeros(
            (N, Cin, max(H + top, down * m + 2), max(W + left, across * m + 2)), np.float32
        )
        padded[:, :, top : top + H, left : left + W] = x
        U = np.einsum("ik,ockl,jl->ijoc", G, w, G, dtype=np.float32)  # (n, n, Cout, Cin)
        for image in range(N):
            for row in range(0, OH, m):
                for column in range(0, OW, m):
                    d = padded[image, :, row : row + n, column : column + n]
                    V = BT @ d @ BT.T  # (Cin, n, n)
                    M = np.einsum("ijoc,cij->oij", U, V)  # (Cout, n, n)
                    out = AT @ M @ AT.T  # (Cout, m, m)
                    if b is not None:
                        out = out + b[:, None, None]
                    part = y[image, :, row : row + m, column : column + m]
                    part[:] = out[:, : part.shape[1], : part.shape[2]]
        return y

    def _kernel(self, conv: ConvSpec, tile: Tile, epilogue: Epilogue) -> WinogradKernel:
        return WinogradKernel(
            transform=self.transform,
            Cin=conv.Cin,
            Cout=conv.Cout,
            top=conv.pads[0],
            left=conv.pads[1],
            heights=self._heights(conv, tile),
            nv=tile["nv"],
            group=tile["group"],
            epilogue=epilogue,
        )

    def _packing(self, conv: ConvSpec, tile: Tile, bias: bool) -> WinogradPacking:
        return WinogradPacking(self.transform, conv.Cin, conv.Cout, tile["nv"], bias)

    def _heights(self, conv: ConvSpec, tile: Tile) -> tuple[int, ...]:
        """Register tiles for every length of a run, or for those there are, if sizes are pinned."""
        mr = tile["mr"]
        if conv.N is not None and conv.OH is not None and conv.OW is not None:
            m = self.transform.m
            tiles = conv.N * -(-conv.OH // m) * -(-conv.OW // m)
            runs = {min(tile["T"], tiles), tiles % tile["T"]} - {0}
            return tuple(sorted({best_height(run, range(1, mr + 1)) for run in runs})) or (mr,)
        return tuple(range(mr, 0, -2))[::-1]


def best_height(count: int, heights: range) -> int:
    """The register tile that does `count` rows soonest."""
    return min(reversed(heights), key=lambda h: -(-count // h) * (16 * h + 12))


def _registers(tile: Tile) -> int:
    return tile["mr"] * tile["nv"] + tile["nv"] + 1


def _packed_floats(packing: WinogradPacking, isa: Isa) -> int:
    return packing.factors(isa.lanes) + packing.tasks(isa.lanes) * isa.lanes


winograd_f23 = WinogradTemplate(F23)
winograd_f43 = WinogradTemplate(F43)
