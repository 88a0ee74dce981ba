"""How long ONNX Runtime's own kernels take for a convolution: the yardstick of the rule's veto.

    estimate_us    one convolution, one thread, from the spec and the target's facts alone

ONNX Runtime has three ways to compute a float32 convolution on a CPU, and `method_of` says which:

    blocked     direct, channels in blocks of a vector; images (Cin below a block) are read as NCHW
    depthwise   one channel a group, blocked as well
    gemm        im2col and a matrix product for each group: what the layouts above do not take, and
                every ConvTranspose (matrix product, then col2im)

Each is modelled as multiplications at a part of the core's peak, bytes at a bandwidth, and a cost
of the call. The parts were read from times of onnxruntime 1.32 on 459 layers, taken by
`scripts/ort_conv_times.py` and kept in `tests/kernels/ort_conv_times.csv`: one core of an x86-64
machine with AVX-512, 247 GFLOP/s of independent FMAs, 36 GB/s copying, 32 MiB of last-level cache.
In units of peak and bandwidth they carry over to other machines as far as ONNX Runtime's kernels
are equally well tuned there. The estimates of those layers are 9% off in the mean, none by more
than a factor of two. Each constant below says what it was read from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ort_optim.hardware import Target
from ort_optim.kernels.spec import ConvSpec

Method = Literal["blocked", "depthwise", "gemm"]

CALL_US = 2.0
"""A node that has next to nothing to do: 1x1 24->6 on one pixel takes 2 us."""

# -- blocked ---------------------------------------------------------------------------------------

WIDE = 0.96
"""Part of the peak with two blocks of outputs or more: 3x3 64->64 to 512->512 on 14x14 to 256x256
run at 226 to 250 of 247 GFLOP/s, pointwise 64->64 to 1024->512 at 229 to 246."""

NARROW = 0.72
"""With one block, each input element is loaded for too few products: 3x3 16->16, and 16->3 counted
as 16->16, run at 172 to 182 GFLOP/s."""

EDGE_COLUMNS = 0.125
"""Columns that the borders of a row cost more, for each of (KH - 1) * (KW - 1): 3x3 on 6x6 and 7x7
runs at 217 to 222 GFLOP/s, 5x5 on 6x6 and 13x13 at 170 to 190."""

ALIGNED_CHANNELS = 4
"""Layout changes take multiples of 4 channels: 65->65 and 66->130 go by gemm, 64->65 does not."""

WEIGHTS_AT_HAND = 1 << 19
"""Bytes of weights that cost nothing; more is waited for: 1x1 512->2048 on 7x7, 4 MB, runs at 196
GFLOP/s, 1024->512 on 14x14, 2 MB, at 222."""

# -- depthwise -------------------------------------------------------------------------------------

DEPTHWISE = 0.95
TAPS = {1: 5.0, 2: 16.0}
"""What an output costs beside its KH * KW products, in products, by horizontal stride (2 stands for
more): 3x3 reaches 134 GFLOP/s with stride 1, 79 with stride 2, 5x5 169, 7x7 195."""

DEPTHWISE_COLUMNS = {1: 12.0, 2: 5.0}
"""Columns that the borders of a row cost more: 3x3 runs at 134, 111, 90, 64 GFLOP/s on 112, 56, 28
and 14 columns, stride 2 at 79, 74, 65, 56 on 80, 52, 26 and 7."""

# -- gemm ------------------------------------------------------------------------------------------

GEMM = 0.78
GEMM_DEPTH = 10.0
"""Depth K at which the product reaches half of `GEMM`: groups of 6, 28, 68 and 136 channels run at
74, 126, 161 and 151 GFLOP/s, transposed 24, 64 and 1024 at 58, 166 and 206."""

GEMM_ROWS = 2.0
"""The same for the rows, output channels of a group: 3x3 with 1, 2, 4 and 8 of them runs at 14, 19,
36 and 49 GFLOP/s, im2col included."""

STRIDED_COLUMNS = 2.0
"""im2col with a stride gathers single floats: 3x3 256->256 stride 2 in 32 groups takes 835 us where
the product and plain copies would take 460."""

# -- memory ----------------------------------------------------------------------------------------

CACHED_BYTES_PER_FLOP = 0.25
"""Bandwidth within the caches, by the peak: depthwise layers of 3 MB move 60 GB/s."""

CACHED_PART = 0.4
"""Of the last-level cache, beside the tensors of the neighbours: on a quiet machine depthwise
layers of 10 MB still run at 45 to 60 GB/s, those of 16 MB at 22 to 35. (With a busy neighbour on
the same cache, 10 MB do 23.)"""

STREAMED = 0.65
"""Part of the copy bandwidth that larger layers reach: 22 to 25 of 36 GB/s."""

# -- facts that a target may lack ------------------------------------------------------------------

DEFAULT_GHZ = 2.5
"""Clock of a server core under vector load; with `DEFAULT_FMA_UNITS` it makes a peak."""

DEFAULT_FMA_UNITS = 2
"""Vector units that multiply and add in a cycle, on x86-64 since 2013 and large AArch64 cores."""

MATRIX_PRODUCT = 0.84
"""Part of the peak that NumPy's matrix product reaches, which is what a target has for its peak:
204 to 209 of 247 GFLOP/s."""

DEFAULT_BANDWIDTH_GBS = 20.0
"""Copy bandwidth of one core: 10 to 40 GB/s on machines of the last ten years."""

DEFAULT_CACHE_BYTES = 8 << 20

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Machine:
    """What the estimate needs of a target, with the defaults filled in."""

    lanes: int
    peak_gflops: float
    streamed_gbs: float
    cache_bytes: int

    @classmethod
    def of(cls, target: Target) -> Machine:
        """The measured peak and bandwidth where the target has them, else the nominal ones."""
        lanes = max(1, target.vector_bits // 32)
        flops = 2 if target.fma else 1
        nominal = lanes * flops * DEFAULT_FMA_UNITS * DEFAULT_GHZ
        cache = target.last_level_cache
        return cls(
            lanes=lanes,
            peak_gflops=target.peak_gflops / MATRIX_PRODUCT if target.peak_gflops else nominal,
            streamed_gbs=STREAMED * (target.core_bandwidth_gbs or DEFAULT_BANDWIDTH_GBS),
            cache_bytes=cache.size_bytes if cache else DEFAULT_CACHE_BYTES,
        )

    def compute_us(self, macs: float, part: float) -> float:
        """Time of multiply-adds at a part of the peak."""
        return 2e-3 * macs / (self.peak_gflops * part)

    def memory_us(self, floats: float, held: float | None = None) -> float:
        """Time to move that many floats, from the caches if what is `held` there at a time (by
        default all of them) fits."""
        gbs = CACHED_BYTES_PER_FLOP * self.peak_gflops
        if FLOAT_BYTES * (floats if held is None else held) > CACHED_PART * self.cache_bytes:
            gbs = min(gbs, self.streamed_gbs)
        return 1e-3 * FLOAT_BYTES * floats / gbs


@dataclass(frozen=True)
class Sizes:
    """The sizes of a spec, all known; of an open batch one image, as all grows with it alike."""

    N: int
    H: int
    W: int
    OH: int
    OW: int

    @classmethod
    def of(cls, spec: ConvSpec) -> Sizes | None:
        """None where height or width are not known."""
        if spec.H is None or spec.W is None:
            return None
        assert spec.OH is not None
        assert spec.OW is not None
        return cls(1 if spec.N is None else spec.N, spec.H, spec.W, spec.OH, spec.OW)

    @property
    def inputs(self) -> int:
        """Pixels of all images."""
        return self.N * self.H * self.W

    @property
    def outputs(self) -> int:
        """Output pixels of all images."""
        return self.N * self.OH * self.OW


def method_of(spec: ConvSpec, lanes: int) -> Method:
    """Which of its kernels ONNX Runtime takes for a convolution with constant weights."""
    if spec.transposed:
        return "gemm"
    if spec.group == 1:
        image = spec.Cin < lanes
        return "blocked" if image or spec.Cin % ALIGNED_CHANNELS == 0 else "gemm"
    if spec.is_depthwise and spec.multiplier == 1 and spec.Cin % ALIGNED_CHANNELS == 0:
        return "depthwise"
    whole_blocks = spec.group_Cin % lanes == 0 and spec.group_Cout % lanes == 0
    return "blocked" if whole_blocks else "gemm"


def estimate_us(spec: ConvSpec, target: Target, *, alone: bool = False) -> float | None:
    """Microseconds that ONNX Runtime takes for the convolution on one core of `target`.

    Args:
        spec: The convolution; bias and a ReLU come at no cost.
        target: The machine. Facts it lacks are replaced by the defaults above.
        alone: Whether its neighbours want NCHW, so that the changes of layout before and after it
            count as well. Without, it stands between others in ONNX Runtime's blocked layout.

    None where height or width are not known.
    """
    sizes = Sizes.of(spec)
    if sizes is None:
        return None
    machine = Machine.of(target)
    method = method_of(spec, machine.lanes)
    us = CALL_US + _KERNELS[method](spec, sizes, machine)
    if not alone or method == "gemm":
        return us
    outputs = sizes.outputs * (spec.Cout + _padded(spec.Cout, machine.lanes))
    us += CALL_US + machine.memory_us(outputs)
    if spec.Cin >= machine.lanes:
        inputs = sizes.inputs * (spec.Cin + _padded(spec.Cin, machine.lanes))
        us += CALL_US + machine.memory_us(inputs)
    return us


def _blocked_us(spec: ConvSpec, sizes: Sizes, machine: Machine) -> float:
    lanes = machine.lanes
    depth = spec.group_Cin if spec.group_Cin < lanes else _padded(spec.group_Cin, lanes)
    rows = _padded(spec.group_Cout, lanes)
    weights = spec.group * rows * depth * spec.KH * spec.KW
    edges = EDGE_COLUMNS * (spec.KH - 1) * (spec.KW - 1)
    macs = weights * sizes.N * sizes.OH * (sizes.OW + edges)
    moved = sizes.inputs * depth * spec.group + sizes.outputs * rows * spec.group + weights
    memory_us = machine.memory_us(moved)
    if rows == lanes:  # too little arithmetic to hide the loads behind
        return machine.compute_us(macs, NARROW) + memory_us
    waited_us = machine.memory_us(max(0, weights - WEIGHTS_AT_HAND // FLOAT_BYTES))
    return max(machine.compute_us(macs, WIDE) + waited_us, memory_us)


def _depthwise_us(spec: ConvSpec, sizes: Sizes, machine: Machine) -> float:
    channels = _padded(spec.Cin, machine.lanes)
    stride = min(2, spec.strides[1])
    taps = spec.KH * spec.KW + TAPS[stride]
    macs = sizes.N * sizes.OH * (sizes.OW + DEPTHWISE_COLUMNS[stride]) * channels * taps
    moved = (sizes.inputs + sizes.outputs) * channels
    return max(machine.compute_us(macs, DEPTHWISE), machine.memory_us(moved))


def _gemm_us(spec: ConvSpec, sizes: Sizes, machine: Machine) -> float:
    taps = spec.KH * spec.KW
    if spec.transposed:  # (Cout KH KW / group, Cin / group) x (Cin / group, H W), then col2im
        rows, depth = spec.group_Cout * taps, spec.group_Cin
        columns = float(sizes.inputs * spec.Cout * taps)
        others = sizes.inputs * spec.Cin + sizes.outputs * spec.Cout
    else:  # im2col, then (Cout / group, Cin KH KW / group) x (Cin KH KW / group, OH OW)
        rows, depth = spec.group_Cout, spec.group_Cin * taps
        is_copied = not spec.is_pointwise or spec.strides != (1, 1)
        columns = float(sizes.outputs * spec.Cin * taps) if is_copied else 0.0
        others = 0
    strided = STRIDED_COLUMNS if max(spec.strides) > 1 and not spec.transposed else 1.0
    products = spec.group * max(1, sizes.N)  # one after another, in one buffer of columns
    memory_us = machine.memory_us(2 * columns * strided + others, (columns + others) / products)
    part = GEMM * depth / (depth + GEMM_DEPTH) * rows / (rows + GEMM_ROWS)
    pixels = sizes.inputs if spec.transposed else sizes.outputs
    macs = pixels * taps * spec.Cin * spec.group_Cout
    return machine.compute_us(macs, part) + memory_us


def _padded(channels: int, lanes: int) -> int:
    """Channels with those that fill up the last block."""
    return -(-channels // lanes) * lanes


_KERNELS = {"blocked": _blocked_us, "depthwise": _depthwise_us, "gemm": _gemm_us}
