"""Means over all spatial axes, as GlobalAveragePool where that runs faster.

(1) ReduceMean(x) over all spatial axes, kept   =>  GlobalAveragePool(x)   after a convolution
(2) AveragePool(x) whose kernel covers x        =>  GlobalAveragePool(x)

After a convolution ONNX Runtime pools in its blocked layout, where ReduceMean has the tensor laid
out anew. Measured in a block of depthwise convolution, Relu, mean, convolution and gate, ms:

    shape          ReduceMean   GlobalAveragePool      alone, not after a convolution
    1x64x56x56     0.252        0.246                  0.019   0.030
    1x16x112x112   0.164        0.158                  0.019   0.028

so that elsewhere ReduceMean stays, and so does one that drops the axes: with a Flatten it would be
faster as well, but one node more. (2) takes the same time and says what is meant. Conditions:

(3) the axes are constant, x is known to have that many dimensions and is float32;
(4) for (1), x comes from a Conv, with nothing between but an activation or the arithmetic of one;
(5) for (2), the kernel is as large as x, known and unpadded.
"""

from __future__ import annotations

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import attr, axes_of, producer, rank, static_shape

NAME = "global-pooling"

LOOK_BACK = 4  # nodes between a convolution and the mean of its activation

BLOCKED = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Add", "Mul")
"""Operators that keep a blocked tensor blocked, or that ONNX Runtime fuses into the convolution."""


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Rewrite one ReduceMean or AveragePool."""
    x = node.inputs[0]
    known = rank(x)
    if known is None or known < 3 or x.dtype != np.float32:  # (3)
        return
    if node.is_op("AveragePool"):
        if _covers(node) and ctx.fuel(NAME, node, f"of all of {x.name}"):
            graph.replace(node, "GlobalAveragePool", [x])
        return
    axes = axes_of(node, 1)
    if axes is None or sorted(axis % known for axis in axes) != list(range(2, known)):
        return
    if not attr(node, "keepdims", 1):
        ctx.refuse(NAME, node, "it drops the axes: a node more would be needed")
    elif not _is_blocked(x):
        ctx.refuse(NAME, node, "not after a convolution: ReduceMean is faster")
    elif ctx.fuel(NAME, node, f"of {x.name}"):
        graph.replace(node, "GlobalAveragePool", [x])


def _covers(pool: Node) -> bool:
    """Whether the kernel of an AveragePool is its whole input (5)."""
    sizes = static_shape(pool.inputs[0])
    if sizes is None or attr(pool, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    plain = not any(attr(pool, "pads", ())) and max(attr(pool, "dilations", (1,))) == 1
    return plain and tuple(attr(pool, "kernel_shape", ())) == sizes[2:]


def _is_blocked(tensor: Tensor, depth: int = LOOK_BACK) -> bool:
    """Whether the tensor comes from a convolution (4)."""
    node = producer(tensor)
    if node is None or depth == 0:
        return False
    if node.is_op("Conv"):
        return True
    return node.is_op(*BLOCKED) and _is_blocked(node.inputs[0], depth - 1)


PASS = NodePass(NAME, frozenset({"ReduceMean", "AveragePool"}), rewrite)
