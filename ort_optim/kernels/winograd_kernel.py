"""The Winograd kernel: one step from x to y, transforms and matrix products fused.

A task takes a run of T tiles (m x m outputs, numbered row by row over all images) and a range of
panels (nr = nv vectors of output channels):

    V[pos][Cin/v][T][v]    = B^T d B    of every tile and input channel           (scratch)
    M[channel/v][T][pos][v] = V[pos] . U[panel][pos]   for a group of panels       (scratch)
    y                      = epilogue(A^T M A + bias)  clipped at the image's end

T is a number of the launch. `rows`, at least T and the register tile's height, spaces the tiles in
scratch, so that a register tile higher than a run only computes rows that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ort_optim.kernels.builder import Code
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.memory import Address
from ort_optim.kernels.tensors import Place, tensor_place, tensor_values
from ort_optim.kernels.values import Int, Vec
from ort_optim.kernels.winograd_transforms import Transform, pairs, times

_AHEAD = 2
"""A register tile asks for one part in so many of the next panel's weights: 256@56 on Zen 5 takes
4.5 ms with, 5.3 ms without; a whole panel at a time is slower where weights come from memory."""

_TILES_AHEAD = 4
"""x and y of the tile so many on are asked for: 64@224 takes 5.5 ms with, 5.8 ms without."""

_LINE = 64 // FLOAT_BYTES


Count = TypeVar("Count", int, Int)


def register_tile_cost(count: Count, height: int) -> Count:
    """Of `count` rows in register tiles of a height, in sixteenths of a row: each register tile
    costs some sixteenths to begin and end."""
    return (count + (height - 1)) // height * (16 * height + 12)


@dataclass(frozen=True)
class WinogradKernel:
    """A Winograd convolution. Sizes are arguments.

    Attributes:
        transform: F(m x m, 3 x 3).
        Cin, Cout: Channels.
        top, left: Padding.
        heights: Tiles in a register tile: the micro-kernels there are, ascending.
        nv: Vectors of output channels in a register tile.
        group: Panels whose products are kept before they are transformed back.
        epilogue: What follows the convolution.
    """

    transform: Transform
    Cin: int
    Cout: int
    top: int
    left: int
    heights: tuple[int, ...]
    nv: int
    group: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        """As `Kernel`."""
        activations = "".join(f"_{each.kind}" for each in self.epilogue.operations)
        tile = f"{self.heights[-1]}x{self.nv}"
        return f"winograd_{self.transform.name}_c{self.Cin}x{self.Cout}_{tile}{activations}"

    @property
    def pointers(self) -> tuple[str, ...]:
        """As `Kernel`."""
        return ("x", "w", "y", *self.epilogue.pointers)

    @property
    def values(self) -> tuple[str, ...]:
        """As `Kernel`: tiles in all, in a task and their spacing; tiles across and down an image;
        the output's size; and into how many parts the panels are split."""
        own = ("tiles", "run", "rows", "across", "down", "OH", "OW", "parts")
        return (*tensor_values("x"), *tensor_values("y"), *self.epilogue.values, *own)

    def panels(self, lanes: int) -> int:
        """Panels of nr output channels."""
        return -(-self.Cout // (self.nv * lanes))

    def spacing(self, lanes: int) -> tuple[int, int]:
        """Floats of V for one position: (for each row, in addition). The addition keeps the
        positions of a tile, which are written together, from falling into one cache set."""
        return -(-self.Cin // lanes) * lanes, 5 * lanes

    def scratch_floats(self, lanes: int) -> tuple[int, int]:
        """Floats of scratch: (for each row, in addition)."""
        positions = self.transform.positions
        per_row, more = self.spacing(lanes)
        sums = self.group * self.nv * lanes * positions
        edge = self.transform.m**2 * lanes
        return per_row * positions + sums, more * positions + edge

    def write(self, isa: Isa) -> Code:
        """As `Kernel`."""
        return _Writer(self, isa).write()


@dataclass(frozen=True)
class _Scratch:
    """Where V, M and a tile that is cut lie, and what separates neighbours (floats)."""

    V: Address
    M: Address
    edge: Address
    position: Int
    block: Int
    channels: Int


class _Writer:
    """The kernel being written."""

    def __init__(self, kernel: WinogradKernel, isa: Isa) -> None:
        self.kernel = kernel
        self.transform = kernel.transform
        self.code = Code(kernel.name, isa, kernel.pointers, kernel.values)
        self.v = isa.lanes
        self.panels = kernel.panels(isa.lanes)

    def write(self) -> Code:
        """The whole."""
        code, kernel, v = self.code, self.kernel, self.v
        parts, run, rows = (code.value(each) for each in ("parts", "run", "rows"))
        first = (code.task // parts) * run
        part = code.task % parts
        count = code.min(code.value("tiles") - first, run)
        positions = self.transform.positions
        per_row, more = kernel.spacing(v)
        position = rows * per_row + more
        scratch = _Scratch(
            V=code.scratch.at((self.transform.m**2) * v),
            M=code.scratch.at((self.transform.m**2) * v).at(position * positions),
            edge=code.scratch,
            position=position,
            block=rows * v,
            channels=rows * (positions * v),
        )
        self._inputs(scratch, first, count)
        products = {h: self._products(h, scratch, count) for h in kernel.heights}
        height = self._height(count)
        last = ((part + 1) * self.panels) // parts
        start = (part * self.panels) // parts
        with code.loop(last.ceildiv(kernel.group), start // kernel.group) as group:
            begin = group * kernel.group
            panel = code.max(start, begin)
            some = code.min(last, begin + kernel.group) - panel
            packed = code.min(code.integer(self.panels) - begin, kernel.group)
            U = code.pointer("w").at(begin * self._panel_floats + (panel - begin) * self._slice)
            for h, multiply in products.items():
                with code.when(height.equals(h)):
                    multiply(
                        scratch.V,
                        U,
                        scratch.M,
                        scratch.position,
                        scratch.block,
                        scratch.channels,
                        count,
                        some,
                        packed,
                    )
            self._outputs(scratch, first, count, panel, some)
        return code

    @property
    def _panel_floats(self) -> int:
        return self.transform.positions * self.kernel.Cin * self.kernel.nv * self.v

    @property
    def _slice(self) -> int:
        """Floats of U for one panel and position."""
        return self.kernel.Cin * self.kernel.nv * self.v

    def _height(self, count: Int) -> Int:
        """The register tile that does `count` rows soonest."""
        code = self.code
        best, least = code.integer(0), code.integer(1 << 40)
        for h in self.kernel.heights:
            cost = register_tile_cost(count, h)
            better = cost <= least
            best, least = better.choose(code.integer(h), best), better.choose(cost, least)
        return best

    # Tiles

    def _each_tile(
        self, first: Int, count: Int, body: Callable[[Int, Int, Int, Int], None]
    ) -> None:
        """body(tile of the run, image, row of tiles, tile in that row) for a run of tiles."""
        code = self.code
        across, down = code.value("across"), code.value("down")
        image = code.variable(first // (across * down))
        row = code.variable((first // across) % down)
        column = code.variable(first % across)
        zero = code.integer(0)
        with code.loop(count) as t:
            i, r, c = image.get_int(), row.get_int(), column.get_int()
            body(t, i, r, c)
            end_of_row = (c + 1).equals(across)
            r_next = end_of_row.choose(r + 1, r)
            end_of_image = r_next.equals(down)
            column.set(end_of_row.choose(zero, c + 1))
            row.set(end_of_image.choose(zero, r_next))
            image.set(end_of_image.choose(i + 1, i))

    def _ask_ahead(self, corner: Place) -> None:
        """Ask for m x m pixels of the tile some tiles on. Where the row of tiles ends before that,
        it is memory that nobody needs."""
        m = self.transform.m
        for i in range(m):
            for j in range(m):
                corner.at(row=i, pixel=_TILES_AHEAD * m + j).address.prefetch(3)

    # Input

    def _inputs(self, scratch: _Scratch, first: Int, count: Int) -> None:
        """V of all input channels."""
        code, kernel, v = self.code, self.kernel, self.v
        m, n = self.transform.m, self.transform.n
        x = tensor_place(code, "x").at(row=-kernel.top, pixel=-kernel.left)
        with code.loop(-(-kernel.Cin // v)) as block:
            source, target = x.at(plane=block), scratch.V.at(block * scratch.block)

            def tile(t: Int, image: Int, row: Int, column: Int) -> None:
                corner = source.at(image=image, row=row * m, pixel=column * m)
                self._ask_ahead(corner.at(row=n - m))
                self._input(corner, target.at(t * v), scratch.position)

            self._each_tile(first, count, tile)

    def _input(self, x: Place, V: Address, position: Int) -> None:  # noqa: N803
        """B^T d B of one tile and v channels.

        The n x n intermediate numbers do not fit the registers; a pair of rows does, and reading d
        again for each pair is cheaper than storing them.
        """
        n, BT = self.transform.n, self.transform.BT
        lines = [x.at(row=i) for i in range(n)]
        for pair in pairs(BT):
            columns = [
                times(
                    self.code, BT[list(pair)], [line.at(pixel=c).address.load() for line in lines]
                )
                for c in range(n)
            ]
            for row, found in zip(pair, zip(*columns, strict=True), strict=True):
                target = V.at(position * (row * n))
                for j, each in enumerate(times(self.code, BT, found)):
                    target.at(position * j).store(each)

    # Products

    def _products(self, height: int, scratch: _Scratch, count: Int) -> Callable[..., None]:
        """M = V . U for all positions and a group of panels, `height` tiles at a time."""
        code, kernel, v = self.code, self.kernel, self.v
        positions = self.transform.positions

        def body(
            V: Address,  # noqa: N803
            U: Address,  # noqa: N803
            M: Address,  # noqa: N803
            position: Int,
            block: Int,
            channels: Int,
            count: Int,
            some: Int,
            packed: Int,
        ) -> None:
            last = code.max(count - height, 0)
            with code.loop(positions) as pos, code.loop(some) as panel:
                factors = U.at((pos * packed + panel) * self._slice)
                sums = M.at(panel * kernel.nv * channels + pos * v)
                with code.loop(count, 0, height) as start:
                    row = code.min(start, last)
                    done = code.min(start // height, _AHEAD - 1)
                    self._micro(
                        height,
                        V.at(pos * position + row * v),
                        factors,
                        sums.at(row * (positions * v)),
                        block,
                        channels,
                        factors.at(self._slice + done * (self._slice // _AHEAD)),
                    )

        shown = (scratch.V, scratch.V, scratch.M, scratch.position, scratch.block)
        return code.function(
            f"products{height}", (*shown, scratch.channels, count, count, count), body
        )

    def _micro(
        self,
        height: int,
        V: Address,  # noqa: N803
        U: Address,  # noqa: N803
        M: Address,  # noqa: N803
        block: Int,
        channels: Int,
        ahead: Address,
    ) -> None:
        """`height` tiles by nr output channels, over all input channels.

        Unrolling by 2 or 4 wins nothing (64@56, 256@28, 512@14 on Zen 5), and compiles longer.
        """
        code, kernel, v = self.code, self.kernel, self.v
        nv, nr = kernel.nv, kernel.nv * v
        sums = [[code.variable(code.vec(0.0)) for _ in range(nv)] for _ in range(height)]

        def step(rows: Address, factors: Address) -> None:
            weights = [factors.at(j * v).load() for j in range(nv)]
            for i in range(height):
                number = rows.at(i * v).fill()
                for j in range(nv):
                    sums[i][j].set(code.fma(number, weights[j], sums[i][j].get()))

        full, tail = divmod(kernel.Cin, v)
        with code.loop(full) as b:
            rows, factors = V.at(b * block), U.at(b * (v * nr))
            with code.loop(v) as c:
                step(rows.at(c), factors.at(c * nr))
                for line in range(0, nr // _AHEAD, _LINE):
                    ahead.at((b * v + c) * (nr // _AHEAD) + line).prefetch()
        if tail:
            rows, factors = V.at(block * full), U.at(full * v * nr)
            with code.loop(tail) as c:
                step(rows.at(c), factors.at(c * nr))
        for i in range(height):
            for j in range(nv):
                target = M.at(channels * j + i * (self.transform.positions * v))
                target.store(sums[i][j].get())

    # Output

    def _outputs(self, scratch: _Scratch, first: Int, count: Int, panel: Int, some: Int) -> None:
        """y of a group of panels."""
        code, kernel, v = self.code, self.kernel, self.v
        m, positions = self.transform.m, self.transform.positions
        OH, OW = code.value("OH"), code.value("OW")
        bias = code.pointer("w").at(self.panels * self._panel_floats)
        y, operands = tensor_place(code, "y"), kernel.epilogue.operands(code)
        start = panel * kernel.nv
        vectors = code.min(code.integer(-(-kernel.Cout // v)) - start, some * kernel.nv)
        with code.loop(vectors) as q:
            sums = scratch.M.at(q * scratch.channels)
            plane = start + q
            offset = bias.at(plane * v)
            places = [each.at(plane=plane) for each in (y, *operands)]

            def tile(t: Int, image: Int, row: Int, column: Int) -> None:
                here = [each.at(image=image, row=row * m, pixel=column * m) for each in places]
                self._ask_ahead(here[0])
                high, wide = OH - row * m, OW - column * m
                done = self._output(sums.at(t * (positions * v)), offset)
                with code.either((high >= m) & (wide >= m)) as (whole, cut):
                    with whole:
                        for i in range(m):
                            for j in range(m):
                                self._finish(done[i][j], [p.at(row=i, pixel=j) for p in here])
                    with cut:
                        for i in range(m):
                            for j in range(m):
                                scratch.edge.at((i * m + j) * v).store(done[i][j])
                        with code.loop(code.min(high, m)) as r, code.loop(code.min(wide, m)) as q:
                            found = scratch.edge.at((r * m + q) * v).load()
                            self._finish(found, [p.at(row=r, pixel=q) for p in here])

            self._each_tile(first, count, tile)

    def _finish(self, vector: Vec, places: Sequence[Place]) -> None:
        done = self.kernel.epilogue.apply(self.code, vector, places[1:])
        places[0].address.store(done)

    def _output(self, M: Address, bias: Address) -> list[list[Vec]]:  # noqa: N803
        """A^T M A + bias of one tile and v channels: rows of outputs."""
        n, AT, v = self.transform.n, self.transform.AT, self.v
        columns = [
            times(self.code, AT, [M.at((k * n + c) * v).load() for k in range(n)]) for c in range(n)
        ]
        offset = bias.load()
        rows = [times(self.code, AT, row) for row in zip(*columns, strict=True)]
        return [[each + offset for each in row] for row in rows]
