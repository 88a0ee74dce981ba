"""Kernels for the layers that are no convolutions."""

from __future__ import annotations

from ort_optim.compiler.layers import Op, Pad
from ort_optim.compiler.scope import Refusal
from ort_optim.kernels.base import Launch
from ort_optim.kernels.builder import Isa
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.padding import launch_pad
from ort_optim.kernels.sizes import Sizes
from ort_optim.kernels.tensors import Layout


def launch(op: Op, isa: Isa, epilogue: Epilogue, x: Layout, y: Layout) -> Launch:
    """The kernel of an operation x -> y, both blocked."""
    if isinstance(op, Pad):
        sizes = x.N.sizes
        top, left, _, _ = op.pads
        return launch_pad(x, y, sizes.const(top), sizes.const(left), op.mode, op.number)
    raise Refusal(f"no kernel for {type(op).__name__}")


def pack_channels(isa: Isa, channels: int, sizes: Sizes) -> tuple[Launch, int]:
    """How a constant with one number per channel is packed, and into how many bytes."""
    raise Refusal("no kernel for constants")
