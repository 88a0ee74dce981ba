"""Kernels for the layers that are no convolutions."""

from __future__ import annotations

from ort_optim.compiler.layers import (
    AveragePool,
    Elementwise,
    GlobalAveragePool,
    MaxPool,
    Op,
    Pad,
    Pick,
    Resize,
)
from ort_optim.kernels.base import Launch
from ort_optim.kernels.channels import launch_pick_channels
from ort_optim.kernels.elementwise import launch_elementwise
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.padding import launch_pad
from ort_optim.kernels.pooling import GlobalPool, Pool, launch_global_pool, launch_pool
from ort_optim.kernels.resampling import launch_resample
from ort_optim.kernels.tensors import Layout


def launch(op: Op, epilogue: Epilogue, x: Layout, y: Layout) -> Launch:
    """The kernel of an operation x -> y, both blocked; Pad and Pick have no epilogue."""
    if isinstance(op, Pick):
        return launch_pick_channels(x, y, op.channels)
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
    if isinstance(op, Resize):
        return launch_resample(op.mode, op.coordinates, op.nearest, op.scales, epilogue, x, y)
    assert isinstance(op, Elementwise)
    return launch_elementwise(epilogue, x, y)
