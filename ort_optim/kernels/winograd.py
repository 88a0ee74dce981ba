"""Winograd convolution: 3x3, stride 1, with 2.25 (F(2x2)) or 4 times (F(4x4)) fewer products.

WinogradTemplate      the template; `winograd_f23` and `winograd_f43` are its instances
winograd_kernel       the code of one step
winograd_packing      the weights' transform
winograd_transforms   the matrices

What was tried on Zen 5, one core, and is no better (ms): F(4x4) for 512@7, whose 38 MB of weights
come from memory for four tiles, 1.25, F(2x2) 0.65, ONNX Runtime 1.04; all panels in one group, so
that V of one position stays in the second cache, 512@28 4.5 to 5.1 instead of 4.4; F(6x6), 64@56
0.31 instead of 0.30 with 7 times the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ort_optim.kernels.base import Demand, Launch, Packing, Tile
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout
from ort_optim.kernels.winograd_kernel import (
    WinogradKernel,
    register_tile_cost,
)
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
        return None

    def tiles(self, conv: ConvSpec, isa: Isa) -> Iterator[Tile]:
        """As `ConvTemplate`: the register tile and the run that the model below takes for best;
        then other runs, other groups, and the next best register tile."""
        found: dict[Tile, None] = {}
        for nv, mr in _register_tiles(conv, isa)[:2]:
            panels = -(-conv.Cout // (nv * isa.lanes))
            best = self._run(conv, mr, nv * isa.lanes)
            runs = [best, *(T for T in (best // 2, best * 2) if 2 * mr <= T <= _MOST_TILES)]
            found |= dict.fromkeys(_tile(T, nv, mr, 1) for T in runs)
            found[_tile(best, nv, mr, min(panels, _MOST_TILES))] = None
        yield from found

    def _run(self, conv: ConvSpec, mr: int, nr: int) -> int:
        """T: as many tiles as the second cache has room for, but four register tiles and 48, as
        weights are read once a run; where sizes are pinned, what leaves the least remainder."""
        row_bytes = self.transform.positions * (conv.Cin + nr) * FLOAT_BYTES
        most = min(max(_L2_BYTES // row_bytes, 4 * mr, 48), _MOST_TILES) // mr * mr
        tiles = self._tiles(conv)
        if not tiles:
            return most
        return _best_run(tiles, min(tiles, most), mr)

    def _tiles(self, conv: ConvSpec) -> int | None:
        """Tiles in all where H and W are pinned; of one image where N is not."""
        if conv.OH is None or conv.OW is None:
            return None
        m = self.transform.m
        return (1 if conv.N is None else conv.N) * -(-conv.OH // m) * -(-conv.OW // m)

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
        packing = self._packing(conv, tile, True)
        tiles = self._tiles(replace(conv, N=1))
        tasks = None if tiles is None else -(-tiles // tile["T"])
        nr = tile["nv"] * isa.lanes
        return Demand(
            registers=_registers(tile),
            l1_bytes=(nr + tile["mr"]) * _L1_DEPTH * FLOAT_BYTES,
            l2_bytes=(nr + tile["T"]) * conv.Cin * FLOAT_BYTES,
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
        return WinogradPacking(self.transform, conv.Cin, conv.Cout, tile["nv"], tile["group"], bias)

    def _heights(self, conv: ConvSpec, tile: Tile) -> tuple[int, ...]:
        """Register tiles for every length of a run, or for those there are, if sizes are pinned."""
        mr, tiles = tile["mr"], self._tiles(conv)
        if conv.N is None or not tiles:
            return tuple(sorted({max(1, round(mr * share)) for share in _HEIGHTS}))
        runs = {min(tile["T"], tiles), tiles % tile["T"]} - {0}
        return tuple(sorted({_height(run, mr) for run in runs}))


_HEIGHTS = (1.0, 0.77, 0.62, 0.31)
"""Heights of register tiles for runs of any length, as shares of the highest: 13 10 8 4. Each
is a micro-kernel of its own, of 15 ms to compile."""

_L2_BYTES = 3 << 18
"""What a task's V and M may fill of the second cache: 768 KB, as 1 MB is common where it is small
for AVX-512. A miss costs little (weights are asked for ahead, V and M are read in order): 256@56 on
Zen 5 takes the same 4.5 ms for T from 52 to 196, though V alone is 7 MB at 196."""


_L1_DEPTH = 64
"""Channels of a register tile's rows and of its panel that the first cache must hold at once: what
is in flight and was asked for ahead. The second holds V at one position, and the panel: both are
read again for each register tile. More of V and M there does not pay (see `_L2_BYTES`)."""


@cache
def _best_run(tiles: int, most: int, mr: int) -> int:
    """The length of runs, two register tiles to `most`, in which that many tiles cost least."""
    runs = range(most, min(tiles, 2 * mr) - 1, -1)
    return min(runs, key=lambda run: tiles // run * _cost(run, mr) + _cost(tiles % run, mr))


@cache
def _height(count: int, mr: int) -> int:
    """The register tile that does `count` rows soonest (as `winograd_kernel` finds it)."""
    return min(range(mr, 0, -1), key=lambda h: register_tile_cost(count, h))


def _cost(count: int, mr: int) -> int:
    """Of a run, in sixteenths of a row; a task costs some rows to begin and end."""
    return register_tile_cost(count, _height(count, mr)) + 64 if count else 0


def _register_tiles(conv: ConvSpec, isa: Isa) -> list[tuple[int, int]]:
    """(nv, mr), best first: vectors that are computed for nothing count most; low register tiles
    read more weights for a product; loads are at most one for a multiplication."""
    vectors = -(-conv.Cout // isa.lanes)

    def cost(shape: tuple[int, int]) -> float:
        nv, mr = shape
        waste = -(-vectors // nv) * nv / vectors
        loads = max(1.0, (mr + nv) / (mr * nv))
        return waste * loads * (1 + 0.4 / mr)

    return sorted(((nv, _most_rows(nv, isa)) for nv in range(1, min(5, vectors) + 1)), key=cost)


def _most_rows(nv: int, isa: Isa) -> int:
    """Of 32 registers 3 stay free: with 14x2, which takes 31, LLVM spills an accumulator, and 64@56
    takes 0.36 ms instead of 0.31. With 16 the numbers that are spread are memory operands."""
    free = 3 if isa.registers >= 32 else 0
    return (isa.registers - free - 1 - nv) // nv


def _tile(T: int, nv: int, mr: int, group: int) -> Tile:  # noqa: N803
    return Tile((("T", T), ("nv", nv), ("mr", mr), ("group", group)))


def _registers(tile: Tile) -> int:
    return tile["mr"] * tile["nv"] + tile["nv"] + 1


def _packed_floats(packing: WinogradPacking, isa: Isa) -> int:
    return packing.factors(isa.lanes) + packing.tasks(isa.lanes) * isa.lanes


winograd_f23 = WinogradTemplate(F23)
winograd_f43 = WinogradTemplate(F43)
