"""Blocked tensors for tests of kernels that move or combine them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ort_optim.kernels.base import Kernel, Launch
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.tensors import Halo, Layout, blocked
from tests.kernels.harness import (
    Compiled,
    aligned,
    from_blocked,
    known,
    origin,
    to_blocked,
)

GUARD = 64
"""Floats around a tensor that must stay as they are."""


@cache
def compiled(kernel: Kernel, isa: Isa) -> Compiled:
    """A kernel, compiled once in a test run."""
    return Compiled(kernel, isa)


class Tensor:
    """A blocked tensor between two guards; NaN where nothing was written yet."""

    def __init__(
        self,
        sizes: Sizes,
        shape: tuple[int, ...],
        isa: Isa,
        halo: tuple[int, int, int, int] = (0, 0, 0, 0),
        values: NDArray[np.float32] | None = None,
    ) -> None:
        N, C, H, W = shape
        n, h, w = sizes.const(N), sizes.const(H), sizes.const(W)
        self.layout: Layout = blocked(n, C, h, w, isa.lanes, Halo(*map(sizes.const, halo)))
        self.memory = aligned(known(self.layout.floats) + 2 * GUARD, np.nan)
        if values is not None:
            self.memory[GUARD : len(self.memory) - GUARD] = to_blocked(values, self.layout)

    @property
    def address(self) -> int:
        """Of pixel (0, 0) of plane 0 of image 0."""
        return origin(self.memory, self.layout) + 4 * GUARD

    def read(self) -> NDArray[np.float32]:
        """(N, C, H, W), after a look at the guards."""
        self.check()
        return from_blocked(self.memory[GUARD:], self.layout)

    def read_all(self) -> NDArray[np.float32]:
        """(N, planes * v, H, W): with the last lanes."""
        layout = self.layout
        whole = blocked(
            layout.N, layout.planes * layout.lanes, layout.H, layout.W, layout.lanes, layout.halo
        )
        return from_blocked(self.memory[GUARD:], whole)

    def check(self) -> None:
        """Nothing was written outside, nor into the halo."""
        outside = self.memory.copy()
        inner = outside[GUARD:]
        layout = self.layout
        np.lib.stride_tricks.as_strided(
            inner[known(layout.origin) :],
            (known(layout.N), layout.planes, known(layout.H), known(layout.W), layout.lanes),
            [4 * known(each) for each in (layout.batch, layout.plane, layout.row)]
            + [4 * layout.lanes, 4],
        )[:] = np.nan
        halo_of_input = inner == 0
        assert (np.isnan(inner) | halo_of_input).all()
        assert np.isnan(outside[:GUARD]).all()
        assert np.isnan(outside[len(outside) - GUARD :]).all()


def run(launch: Launch, isa: Isa, **tensors: Tensor | int) -> None:
    """Run a launch on tensors (or addresses) by name."""
    places = {
        name: each.address if isinstance(each, Tensor) else each for name, each in tensors.items()
    }
    compiled(launch.kernel, isa).launch(launch, places)


def random(shape: tuple[int, ...], seed: int = 1) -> NDArray[np.float32]:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
