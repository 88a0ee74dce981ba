"""Winograd kernels against the definition in float64."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from ort_optim.kernels.base import Kernel, Launch, Tile
from ort_optim.kernels.epilogue import Epilogue, Operation
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.tensors import Halo, Layout, blocked
from ort_optim.kernels.winograd import WinogradTemplate, winograd_f23, winograd_f43
from ort_optim.kernels.winograd_transforms import F23, F43, Transform
from tests.kernels.harness import AVX2, AVX512, Compiled, aligned, from_blocked, known, to_blocked

Array = NDArray[np.float32]

TEMPLATES = pytest.mark.parametrize(
    "template", [winograd_f23, winograd_f43], ids=lambda each: each.name
)
ISAS = pytest.mark.parametrize("isa", [AVX512, AVX2], ids=["avx512", "avx2"])
GUARD = 7.25
NUMBERS = np.random.default_rng(3)


class Threads(Sizes):
    """Sizes of a session with a known number of workers."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._threads = threads

    def threads(self) -> Size:
        return self.const(self._threads)


@cache
def compiled(kernel: Kernel, isa: Isa) -> Compiled:
    return Compiled(kernel, isa)


@dataclass(frozen=True)
class Run:
    """One convolution of random numbers."""

    x: Array
    w: Array
    b: Array | None
    y: Array
    extra: tuple[Array, ...]


def guarded(memory: Array, layout: Layout) -> tuple[Array, int]:
    """A tensor's memory with NaN before and behind it, and the address of its pixel (0, 0)."""
    around = aligned(len(memory) + 128, float("nan"))
    around[64 : 64 + len(memory)] = memory
    return around, int(around.ctypes.data) + 4 * (64 + known(layout.origin))


def run(
    template: WinogradTemplate,
    conv: ConvSpec,
    isa: Isa,
    size: tuple[int, int, int],
    epilogue: Epilogue | None = None,
    tile: Tile | None = None,
    threads: int = 1,
    bias: bool = True,
) -> Run:
    """Pack, run and read back; checks that nothing is written or read where it must not be."""
    N, H, W = size
    epilogue = epilogue or Epilogue()
    sizes = Threads(threads)
    tile = tile or next(iter(template.tiles(conv, isa)))
    assert template.supports(conv, isa) is None
    assert template.check(conv, tile, isa) is None
    x = NUMBERS.standard_normal((N, conv.Cin, H, W)).astype(np.float32)
    w = NUMBERS.standard_normal(conv.weight_shape).astype(np.float32)
    b = NUMBERS.standard_normal(conv.Cout).astype(np.float32) if bias else None

    packing = template.packing(conv, tile, isa, bias=bias, sizes=sizes)
    packed = aligned(packing.bytes // 4 + 64, GUARD)
    arrays = {"w": w.ctypes.data, "packed": packed.ctypes.data}
    if b is not None:
        arrays["b"] = b.ctypes.data
    compiled(packing.launch.kernel, isa).launch(packing.launch, arrays)
    assert (packed[packing.bytes // 4 :] == GUARD).all()

    pinned = replace(conv, N=N, H=H, W=W)
    assert pinned.OH is not None
    assert pinned.OW is not None
    const = sizes.const
    x_layout = blocked(
        const(N),
        conv.Cin,
        const(H),
        const(W),
        isa.lanes,
        template.halo(conv, tile, const(H), const(W)),
    )
    halo = Halo(const(1), const(2), const(1), const(3))
    y_layout = blocked(const(N), conv.Cout, const(pinned.OH), const(pinned.OW), isa.lanes, halo)
    launch = template.launch(conv, tile, isa, epilogue, x_layout, y_layout)
    values = dict(launch.values)
    x_memory, x_origin = guarded(to_blocked(x, x_layout), x_layout)
    y_memory, y_origin = guarded(aligned(known(y_layout.floats), GUARD), y_layout)
    arrays = {"x": x_origin, "w": packed.ctypes.data, "y": y_origin}
    extra, keep = [], [x_memory]
    for i, each in enumerate(epilogue.operations):
        if not each.operand:
            continue
        shape = {
            "tensor": (N, conv.Cout, pinned.OH, pinned.OW),
            "channel": (N, conv.Cout, 1, 1),
            "constant": (1, conv.Cout, 1, 1),
        }[each.operand]
        other = NUMBERS.standard_normal(shape).astype(np.float32)
        layout = replace(
            y_layout if each.operand == "tensor" else blocked_like(sizes, shape, isa),
            N=const(shape[0]),
        )
        memory, arrays[f"e{i}"] = guarded(to_blocked(other, layout), layout)
        values |= layout.values(f"e{i}") if each.operand != "constant" else {}
        extra.append(other)
        keep.append(memory)
    execute(compiled(launch.kernel, isa), replace(launch, values=values), arrays)

    assert np.isnan(y_memory[:64]).all()
    assert np.isnan(y_memory[-64:]).all()
    inner = y_memory[64:-64]
    y = from_blocked(inner, y_layout)
    if y.size:
        whole = blocked(
            const(N),
            y_layout.planes * isa.lanes,
            const(pinned.OH),
            const(pinned.OW),
            isa.lanes,
            halo,
        )
        written = to_blocked(np.ones_like(from_blocked(inner, whole)), whole)
        assert (inner[written == 0] == GUARD).all()
    return Run(x, w, b, y, tuple(extra))


def blocked_like(sizes: Sizes, shape: tuple[int, ...], isa: Isa) -> Layout:
    zero, one = sizes.const(0), sizes.const(1)
    return blocked(
        sizes.const(shape[0]), shape[1], one, one, isa.lanes, Halo(zero, zero, zero, zero)
    )


def execute(code: Compiled, launch: Launch, arrays: dict[str, int]) -> None:
    """Run all tasks with a scratch full of NaN, and look behind its end."""
    kernel = launch.kernel
    floats = known(launch.scratch_bytes) // 4
    scratch = aligned(floats + 64, float("nan"))
    scratch[floats:] = GUARD
    pointers = (ctypes.c_void_p * len(kernel.pointers))(*[arrays[n] for n in kernel.pointers])
    numbers = (ctypes.c_int64 * len(kernel.values))(
        *[known(launch.values[n]) for n in kernel.values]
    )
    for task in range(known(launch.tasks)):
        code._function(
            ctypes.addressof(pointers), ctypes.addressof(numbers), task, scratch.ctypes.data
        )
    assert (scratch[floats:] == GUARD).all()


def definition(
    conv: ConvSpec, x: NDArray[np.float64], w: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The convolution in float64, tap by tap."""
    top, left, bottom, right = conv.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    OH, OW = max(0, padded.shape[2] - 2), max(0, padded.shape[3] - 2)
    y = np.zeros((len(x), len(w), OH, OW))
    for i in range(3):
        for j in range(3):
            y += np.einsum("nchw,oc->nohw", padded[:, :, i : i + OH, j : j + OW], w[:, :, i, j])
    return y


def bound(transform: Transform, conv: ConvSpec, found: Run) -> float:
    """What rounding may do: every number the algorithm adds up is at most the same sum of
    magnitudes, and is rounded by 2**-24 of it in each of Cin + 4 n steps. In sums of random numbers
    errors cancel, so that the root of their number is enough."""
    n = transform.n
    U = np.einsum("ik,ockl,jl->ijoc", abs(transform.G), abs(found.w), abs(transform.G))
    B = abs(transform.BT).sum(1)
    V = np.outer(B, B) * 2.0  # magnitudes of x around 1; 2 covers a tile of larger ones
    M = U.sum(3) * V[:, :, None]
    A = abs(transform.AT)
    largest = np.einsum("ai,ijo,bj->oab", A, M, A).max()
    return float(2.0**-24 * np.sqrt(conv.Cin + 4 * n) / conv.Cin**0.5 * largest + 1e-6)


def check(template: WinogradTemplate, conv: ConvSpec, found: Run) -> None:
    truth = definition(conv, found.x.astype(np.float64), found.w.astype(np.float64))
    if found.b is not None:
        truth += found.b[:, None, None]
    assert found.y.shape == truth.shape
    limit = bound(template.transform, conv, found)
    assert np.abs(found.y - truth).max(initial=0.0) <= limit


CHANNELS = [(1, 1), (7, 17), (16, 33), (33, 8), (31, 80)]
PLANES = [
    *((1, size, size) for size in (1, 2, 3, 7, 8, 9, 15, 16, 17)),
    (1, 31, 33),
    (2, 5, 1),
    (3, 1, 13),
    (5, 7, 6),
    (1, 4, 97),
    (0, 8, 8),
]


@ISAS
@TEMPLATES
@pytest.mark.parametrize("channels", CHANNELS)
def test_sizes_that_straddle_vectors_and_tiles(
    template: WinogradTemplate, isa: Isa, channels: tuple[int, int]
) -> None:
    conv = ConvSpec(*channels, (3, 3), pads=(1, 1, 1, 1))
    for size in PLANES:
        check(template, conv, run(template, conv, isa, size))


@TEMPLATES
@pytest.mark.parametrize(
    "pads", [(0, 0, 0, 0), (0, 1, 2, 3), (3, 2, 1, 0), (4, 4, 4, 4), (0, 0, 1, 1)]
)
def test_padding_may_differ_on_every_side(
    template: WinogradTemplate, pads: tuple[int, int, int, int]
) -> None:
    conv = ConvSpec(5, 9, (3, 3), pads=pads)
    for size in ((1, 9, 11), (2, 1, 1), (1, 2, 3), (1, 16, 5)):
        check(template, conv, run(template, conv, AVX512, size))


@ISAS
@TEMPLATES
@pytest.mark.parametrize("threads", [2, 3, 16])
def test_any_number_of_workers_gives_the_same(
    template: WinogradTemplate, isa: Isa, threads: int
) -> None:
    conv = ConvSpec(16, 80, (3, 3), pads=(1, 1, 1, 1))
    for size in ((1, 5, 7), (2, 33, 31)):
        check(template, conv, run(template, conv, isa, size, threads=threads))


@TEMPLATES
def test_pinned_sizes_and_no_bias(template: WinogradTemplate) -> None:
    for size in (28, 14, 7):
        conv = ConvSpec(32, 48, (3, 3), pads=(1, 1, 1, 1), N=2, H=size, W=size)
        check(template, conv, run(template, conv, AVX512, (2, size, size), bias=False))


@ISAS
@TEMPLATES
def test_every_tile_that_is_offered_computes_the_same(template: WinogradTemplate, isa: Isa) -> None:
    conv = ConvSpec(24, 56, (3, 3), pads=(1, 1, 1, 1), N=1, H=18, W=19)
    for tile in template.tiles(conv, isa):
        check(template, conv, run(template, conv, isa, (1, 18, 19), tile=tile))


@ISAS
@TEMPLATES
def test_the_epilogue_sees_its_operands_at_its_pixel(template: WinogradTemplate, isa: Isa) -> None:
    conv = ConvSpec(6, 20, (3, 3), pads=(1, 1, 1, 1))
    epilogue = Epilogue(
        (
            Operation("mul", operand="constant"),
            Operation("sub", operand="tensor", swapped=True),
            Operation("add", operand="channel"),
            Operation("relu"),
            Operation("clip", (0.25, 6.0)),
        )
    )
    found = run(template, conv, isa, (2, 9, 6), epilogue)
    truth = definition(conv, found.x.astype(np.float64), found.w.astype(np.float64))
    assert found.b is not None
    constant, tensor, channel = found.extra
    truth = (truth + found.b[:, None, None]) * constant
    truth = np.clip(tensor - truth + channel, 0.25, 6.0)
    limit = bound(template.transform, conv, found) * float(np.abs(constant).max())
    assert np.abs(found.y - truth).max() <= limit


@TEMPLATES
def test_the_reference_computes_the_definition(template: WinogradTemplate) -> None:
    conv = ConvSpec(9, 11, (3, 3), pads=(0, 1, 2, 1))
    x = NUMBERS.standard_normal((2, 9, 13, 10)).astype(np.float32)
    w = NUMBERS.standard_normal(conv.weight_shape).astype(np.float32)
    b = NUMBERS.standard_normal(11).astype(np.float32)
    y = template.reference(conv, next(iter(template.tiles(conv, AVX512))), x, w, b)
    check(template, conv, Run(x, w, b, y, ()))


@pytest.mark.parametrize("transform", [F23, F43, Transform("f63", 6, (1.0, 2.0, 0.5), 3)])
def test_the_matrices_compute_a_filter(transform: Transform) -> None:
    d, g = NUMBERS.standard_normal(transform.n), NUMBERS.standard_normal(3)
    y = transform.AT @ ((transform.G @ g) * (transform.BT @ d))
    assert np.allclose(y, np.correlate(d, g, "valid"), atol=1e-12)


@TEMPLATES
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kernel": (3, 5)}, "3x5"),
        ({"strides": (2, 2)}, "strides"),
        ({"dilations": (1, 2)}, "dilations"),
        ({"group": 4}, "group"),
        ({"transposed": True}, "transposed"),
    ],
)
def test_a_refusal_says_why(
    template: WinogradTemplate, change: dict[str, object], reason: str
) -> None:
    conv = replace(ConvSpec(8, 8, (3, 3)), **change)  # type: ignore[arg-type]
    assert reason in (template.supports(conv, AVX512) or "")


@TEMPLATES
def test_impossible_tiles_are_refused(template: WinogradTemplate) -> None:
    conv = ConvSpec(8, 8, (3, 3))
    good = next(iter(template.tiles(conv, AVX512)))
    for name in ("T", "nv", "mr", "group"):
        for size in (0, -1, 1 << 20):
            tile = Tile(tuple((key, size if key == name else old) for key, old in good.sizes))
            assert template.check(conv, tile, AVX512)
    assert template.check(conv, Tile(), AVX512)
    assert template.check(conv, Tile((*good.sizes, ("more", 1))), AVX512)
