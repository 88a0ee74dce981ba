"""Zeros that a Concat puts behind the channels of an image, as the Pad that this is.

    Concat(x, 0; axis 1)   =>   Pad(x), at the end of the channels

Some converters write the Pad of a residual branch that has fewer channels than the sum this way.
ONNX Runtime takes the same time for both (28.7 and 28.3 us for 4 channels behind 24 of 64x64), but
a Pad of channels can stay in a region: BlazeFace then is one region instead of twelve.

Conditions: (1) two inputs of rank 4, the second a constant of zeros; (2) the shape of x is known in
all other axes, and the same as that of the zeros: what Concat checks when it runs holds anyway.
"""

from __future__ import annotations

import numpy as np

from ort_optim.graph.view import Constant, Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import attr

NAME = "concat-zeros"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Rewrite one Concat."""
    if len(node.inputs) != 2 or not isinstance(node.inputs[1], Constant):  # (1)
        return
    x, zeros = node.inputs
    if attr(node, "axis", 1) not in (1, -3) or isinstance(x, Constant) or not _fits(x, zeros):
        return
    if zeros.dtype != np.float32 or np.any(zeros.values):  # (1)
        return
    pads = [0, 0, 0, 0, 0, zeros.shape[1], 0, 0]
    if not ctx.fuel(NAME, node, f"Pad of {x.name} by {zeros.shape[1]} channels"):
        return
    if graph.opset < 11:
        graph.replace(node, "Pad", [x], pads=tuple(pads))
    else:
        end = graph.constant(np.array(pads, np.int64), f"{node.key}_pads")
        graph.replace(node, "Pad", [x, end])


def _fits(x: Tensor, zeros: Constant) -> bool:
    """(1), (2)"""
    if x.shape is None or not len(x.shape) == len(zeros.shape) == 4:
        return False
    return all(x.shape[axis] == zeros.shape[axis] for axis in (0, 2, 3))


PASS = NodePass(NAME, frozenset({"Concat"}), rewrite)
