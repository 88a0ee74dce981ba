"""Local response normalization across channels, as a convolution and square roots.

    LRN(x) = x / (bias + alpha / size * sum over a window of channels of x^2) ^ beta
           => Div(x, p(Conv(Mul(x, x), W, bias)))

W is (C, C, 1, 1) with alpha / size on a band of `size` diagonals. p(t) = t^beta is t itself for
beta 1, Sqrt(t) for 1/2, Sqrt(t) Sqrt(Sqrt(t)) for 3/4, else Pow(t, beta).

ONNX Runtime computes LRN with a scalar power for each element. Measured with size 5, beta 3/4, ms:

    shape        threads   LRN     this    with Pow   AveragePool over channels
    1x64x56x56   1         10.6    0.58    1.06       1.51
    1x192x56x56  1         31.1    6.3     8.3        8.6
    1x96x55x55   1         16.7    0.84    1.65       4.2
    1x256x27x27  1          8.2    0.84    1.26       0.46
    1x96x55x55   2         88.9    0.87    1.43       64.2

Conditions: (1) float32, the number of channels known, one or more spatial axes; (2) bias > 0 and
alpha >= 0, so that the root is of a positive number, and size odd, as ONNX Runtime asks; (3) W
within the growth limit. As LRN does, this overflows where x^2 does.
"""

from __future__ import annotations

import numpy as np

from ort_optim.graph.view import Graph, Node, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import compute
from ort_optim.passes.common.match import attr, rank

NAME = "lrn"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Rewrite one LRN."""
    x = node.inputs[0]
    known = rank(x)
    channels = x.shape[1] if known is not None and known >= 3 else None
    if x.dtype != np.float32 or not isinstance(channels, int) or known is None:  # (1)
        return ctx.refuse(NAME, node, "the type is not float32, or the channels are not known")
    size, bias = int(attr(node, "size", 1)), float(attr(node, "bias", 1.0))
    alpha, beta = float(attr(node, "alpha", 1e-4)), float(attr(node, "beta", 0.75))
    if bias <= 0 or alpha < 0 or size % 2 == 0 or graph.opset < 7:  # (2)
        return ctx.refuse(NAME, node, "an even size, or a power of what may be negative")
    if 4 * channels * channels > ctx.max_growth_bytes:  # (3)
        return ctx.refuse(NAME, node, "the weights would make the model grow too much")
    if not ctx.fuel(NAME, node, f"Conv over {size} of {channels} channels, power {beta:g}"):
        return None
    channel = np.arange(channels)
    band = np.abs(channel[:, None] - channel[None, :]) <= size // 2  # (Cout, Cin)
    kernel = (channels, channels, *(1,) * (known - 2))
    weight = graph.constant(
        np.where(band, alpha / size, 0).astype(np.float32).reshape(kernel), f"{node.key}_band"
    )
    offset = graph.constant(np.full(channels, bias, np.float32), f"{node.key}_bias")
    square = compute("Mul", [x, x], "square", at=node)
    base = compute("Conv", [square, weight, offset], "base", at=node)
    graph.replace(node, "Div", [x, _power(graph, node, base, beta)])
    return None


def _power(graph: Graph, node: Node, base: Variable, beta: float) -> Variable:
    """base ^ beta."""
    if beta == 1:
        return base
    if beta not in (0.5, 0.75):
        exponent = graph.constant(np.array(beta, np.float32), f"{node.key}_beta")
        return compute("Pow", [base, exponent], "power", at=node)
    root = compute("Sqrt", [base], "root", at=node)
    if beta == 0.5:
        return root
    fourth = compute("Sqrt", [root], "fourth_root", at=node)
    return compute("Mul", [root, fourth], "power", at=node)


PASS = NodePass(NAME, frozenset({"LRN"}), rewrite)
