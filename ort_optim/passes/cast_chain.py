"""Two Casts become one where the first loses nothing.

    Cast(Cast(x, B), C)   =>  Cast(x, C)    x has type A, and B holds every value of A
                          =>  x             if C is A

(1) A, B and C are boolean, integer or IEEE floating-point types; (2) where B is floating-point and
C an integer type, C holds every value of A as well: else the two Casts may treat what does not fit
differently. When the pair becomes one Cast (3) nothing else reads the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ort_optim.graph.view import Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.edits import drop
from ort_optim.passes.common.match import producer, sole_consumer

NAME = "cast-chain"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Merge the Cast before this one into it."""
    before = producer(node.inputs[0], "Cast")
    if before is None or before.graph is not graph:
        return None
    x = before.inputs[0]
    a, b, c = x.dtype, _target(before), _target(node)
    if a is None or b is None or c is None:
        return None
    if not _holds(b, a) or (b.kind == "f" and c.kind in "iu" and not _holds(c, a)):  # (2)
        return ctx.refuse(NAME, node, f"{a} to {b} to {c} may differ from {a} to {c}")
    if c == a:
        drop(NAME, node, x, ctx, f"{a} to {b} and back changes nothing")
    elif sole_consumer(before.outputs[0]) is not node:  # (3)
        ctx.refuse(NAME, node, "something else reads the Cast before it")
    elif ctx.fuel(NAME, node, f"{a} to {b} to {c} becomes {a} to {c}"):
        graph.replace(node, "Cast", [x], **node.attrs)
        graph.remove(before)
    return None


def _target(cast: Node) -> np.dtype[Any] | None:
    to = cast.attrs.get("to")
    if not isinstance(to, int):
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
    return dtype if dtype.kind in "biuf" else None  # (1)


def _holds(wide: np.dtype[Any], narrow: np.dtype[Any]) -> bool:
    """Whether every value of `narrow` is exact in `wide`."""
    return narrow.kind in "biuf" and np.can_cast(narrow, wide, "safe")


PASS = NodePass(NAME, frozenset({"Cast"}), rewrite)
