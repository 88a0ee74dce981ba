"""Bounds: chains of Clip, Relu, Min and Max with constants, as one Relu or Clip.

    Clip(Clip(x, a, b), c, d), Min(Relu(x), 6), ...   =>  Clip(x, lo, hi)
    Max(x, 0), Clip(x, 0), Clip(Relu(x), -1)          =>  Relu(x)
    Min(x, c), Max(x, c)                              =>  Clip(x, ., c), Clip(x, c, .)
    Clip(x)                                           =>  x

Clamping is monotone, so clamping to [c, d] after [a, b] clamps to [clamp(a), clamp(b)], the inner
bounds clamped by the outer ones. A convolution before a Relu or Clip takes it in, in ONNX Runtime;
Min and Max it does not. Conditions:

(1) float or double, bounds of one element, constant, with the lower no higher than the upper;
(2) a bound keeps the number of dimensions of x, which Min and Max might raise;
(3) nothing else reads the tensor between two clamps;
(4) the largest finite number counts as no bound: old exporters write it so, and the two differ
    only where x is infinite already.
"""

from __future__ import annotations

import math

import numpy as np

from ort_optim.graph.view import Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import producer, sole_consumer
from ort_optim.passes.common.scalars import clamp_of, element_type

NAME = "clamp"

OPS = ("Clip", "Relu", "Min", "Max")


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Simplify one clamp together with the one before it."""
    found = _clamp(node)
    if found is None or graph.opset < 8:
        return
    x, low, high = found
    inner = producer(x, *OPS)
    before = _clamp(inner) if inner is not None and sole_consumer(x) is node else None  # (3)
    if before is not None:
        x, inner_low, inner_high = before
        low, high = (min(max(bound, low), high) for bound in (inner_low, inner_high))
    op = "Relu" if (low, high) == (0, math.inf) else "Clip"
    if before is None and node.op == op and (low, high) != (-math.inf, math.inf):
        return
    if (low, high) == (-math.inf, math.inf):
        reason = graph.can_bypass(node, x)
        if reason is not None:
            ctx.refuse(NAME, node, reason)
        elif ctx.fuel(NAME, node, "has no bounds"):
            graph.bypass(node, x)
        return
    if not ctx.fuel(NAME, node, f"{op} from {low:g} to {high:g}"):
        return
    if before is not None and inner is not None:
        graph.remove(inner)
    if op == "Relu":
        graph.replace(node, "Relu", [x])
    elif graph.opset < 11:
        attrs = {"min": low, "max": high}
        finite = {name: value for name, value in attrs.items() if math.isfinite(value)}
        graph.replace(node, "Clip", [x], **finite)
    else:
        bounds = _bounds(graph, element_type(node), low, high)
        graph.replace(node, "Clip", [x, *bounds])


def _clamp(node: Node) -> tuple[Variable, float, float] | None:
    """x, low and high of a clamp, bounds that bound nothing written as infinities."""
    found = clamp_of(node)
    dtype = element_type(node)
    if found is None or dtype not in (np.float32, np.float64):  # (1)
        return None
    x, low, high = found
    largest = float(np.finfo(np.float32 if dtype == np.float32 else np.float64).max)
    return x, -math.inf if low <= -largest else low, math.inf if high >= largest else high  # (4)


def _bounds(
    graph: Graph, dtype: np.dtype[np.generic] | None, low: float, high: float
) -> list[Tensor]:
    """Clip's optional inputs."""
    made: list[Tensor] = []
    for name, value in (("min", low), ("max", high)):
        if math.isfinite(value):
            made.append(graph.constant(np.array(value, dtype), f"clip_{name}"))
        else:
            made.append(Variable(""))
    while made and not made[-1].name:
        made.pop()
    return made


PASS = NodePass(NAME, frozenset(OPS), rewrite)
