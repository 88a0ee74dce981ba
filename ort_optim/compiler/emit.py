"""Kernels for the layers that are no convolutions."""

from __future__ import annotations

from ort_optim.compiler.layers import AveragePool, GlobalAveragePool, MaxPool, Op, Pad
from ort_optim.compiler.scope import Refusal
from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Isa
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.padding import launch_pad
from ort_optim.kernels.pooling import GlobalPool, Pool, launch_global_pool, launch_pool
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.tensors import Layout


def launch(op: Op, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout) -> Launch:
    """The kernel of an operation x -> y, both blocked."""
    if isinstance(op, Pad):
        sizes = x.N.sizes
        top, left, _, _ = op.pads
        return launch_pad(x, y, sizes.const(top), sizes.const(left), op.mode, op.number)
    if isinstance(op, GlobalAveragePool):
        return launch_global_pool(GlobalPool("average", epilogue), x, y)
    if isinstance(op, (MaxPool, AveragePool)):
        window = op.window
        pool = Pool(
            kind="max" if isinstance(op, MaxPool) else "average",
            kernel=window.kernel,
            strides=window.strides,
            dilations=window.dilations,
            pads=window.pads,
            count_pads=isinstance(op, AveragePool) and op.count_include_pad,
            epilogue=epilogue,
        )
        return launch_pool(pool, x, y)
    raise Refusal(f"no kernel for {type(op).__name__}")


def pack_channels(isa: Isa, channels: int, sizes: Sizes) -> tuple[Launch, int]:
    """How a constant with one number per channel is packed, and into how many bytes."""
    raise Refusal("no kernel for constants")
