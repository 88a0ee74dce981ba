"""What enters a region in NCHW leaves it unchanged, and halos are zero."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ort_optim.kernels.base import Kernel
from ort_optim.kernels.borders import launch_clear_halo, launch_export, launch_import
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.tensors import Halo, Layout, blocked, nchw
from tests.kernels.harness import AVX2, AVX512, Compiled, aligned, known, origin, to_blocked

GUARD = 64
ISAS = [AVX512, AVX2]
SHAPES = [
    (1, 3, 1, 1),
    (2, 16, 7, 7),
    (1, 17, 5, 15),
    (3, 33, 2, 16),
    (1, 8, 3, 17),
    (2, 31, 1, 33),
    (5, 40, 9, 8),
    (1, 16, 23, 53),
    (1, 29, 32, 32),
    (2, 16, 16, 64),
    (0, 16, 3, 3),
    (1, 5, 0, 4),
    (1, 5, 4, 0),
]
_compiled: dict[tuple[Kernel, Isa], Compiled] = {}


def compiled(kernel: Kernel, isa: Isa) -> Compiled:
    if (kernel, isa) not in _compiled:
        _compiled[kernel, isa] = Compiled(kernel, isa)
    return _compiled[kernel, isa]


def layouts(
    shape: tuple[int, ...], isa: Isa, halo: tuple[int, int, int, int], threads: int = 1
) -> tuple[Layout, Layout]:
    sizes = Sizes(threads)
    N, C, H, W = shape
    n, h, w = sizes.const(N), sizes.const(H), sizes.const(W)
    return nchw(n, C, h, w), blocked(n, C, h, w, isa.lanes, Halo(*map(sizes.const, halo)))


def random(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS, ids=["avx512", "avx2"])
@pytest.mark.parametrize("halo", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0)])
@pytest.mark.parametrize("threads", [1, 7])
def test_import_writes_a_whole_blocked_tensor_and_nothing_else(
    isa: Isa, halo: tuple[int, int, int, int], threads: int
) -> None:
    for shape in SHAPES:
        outer, inner = layouts(shape, isa, halo, threads)
        x = random(shape)
        memory = aligned(known(inner.floats) + 2 * GUARD, np.nan)
        launch = launch_import(isa, outer, inner)
        start = origin(memory, inner) + 4 * GUARD
        compiled(launch.kernel, isa).launch(launch, {"x": x.ctypes.data, "y": start})
        if min(shape) > 0:
            np.testing.assert_array_equal(memory[GUARD:-GUARD], to_blocked(x, inner))
        assert np.isnan(memory[:GUARD]).all()
        assert np.isnan(memory[len(memory) - GUARD :]).all()


@pytest.mark.parametrize("isa", ISAS, ids=["avx512", "avx2"])
@pytest.mark.parametrize("halo", [(0, 0, 0, 0), (1, 0, 2, 1)])
@pytest.mark.parametrize("threads", [1, 7])
def test_export_gives_back_what_was_imported(
    isa: Isa, halo: tuple[int, int, int, int], threads: int
) -> None:
    for shape in SHAPES:
        outer, inner = layouts(shape, isa, halo, threads)
        x = random(shape)
        memory = to_blocked(x, inner)
        found = np.full(x.size + 2 * GUARD, np.nan, np.float32)
        launch = launch_export(isa, inner, outer)
        places = {"x": origin(memory, inner), "y": found.ctypes.data + 4 * GUARD}
        compiled(launch.kernel, isa).launch(launch, places)
        np.testing.assert_array_equal(found[GUARD : GUARD + x.size].reshape(shape), x)
        assert np.isnan(found[:GUARD]).all()
        assert np.isnan(found[GUARD + x.size :]).all()


@pytest.mark.parametrize("isa", ISAS, ids=["avx512", "avx2"])
def test_clearing_a_halo_leaves_the_image_alone(isa: Isa) -> None:
    for shape, halo, threads in itertools.product(SHAPES, [(1, 1, 1, 1), (0, 3, 2, 0)], [1, 7]):
        if min(shape) == 0:
            continue
        _, inner = layouts(shape, isa, halo, threads)
        x = random(shape)
        full = (shape[0], inner.planes * isa.lanes, *shape[2:])
        lanes = np.concatenate([x, np.ones((shape[0], full[1] - shape[1], *shape[2:]), "f")], 1)
        wanted = to_blocked(lanes, inner_of(inner, full[1]))
        memory = np.where(wanted == 0, np.float32(7), wanted)
        launch = launch_clear_halo(isa, inner)
        compiled(launch.kernel, isa).launch(launch, {"x": origin(memory, inner)})
        np.testing.assert_array_equal(memory, wanted)


def inner_of(layout: Layout, channels: int) -> Layout:
    return blocked(layout.N, channels, layout.H, layout.W, layout.lanes, layout.halo)
