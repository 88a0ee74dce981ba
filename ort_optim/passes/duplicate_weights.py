"""Initializers with the same type, shape and bytes become one.

    initializers w, v with v = w;  Add(x, w), Add(y, v)   =>   Add(x, w), Add(y, w)

(1) Bits are compared, not values: -0 is not 0, and NaN is NaN. (2) A subgraph's initializer may
give way to one of the graph around it, not the reverse. (3) A graph output stays.

Only weights that have a twin of the same type and shape are read; then few elements of each are
compared, and all bytes (by SHA-256, which processors have instructions for: 1.6 GB/s, BLAKE2b
1.0 GB/s) only of those that agree in these.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable
from weakref import WeakKeyDictionary

import numpy as np

from ort_optim.graph.view import Constant, Graph
from ort_optim.passes.base import Context, GraphPass

NAME = "duplicate-weights"

_SAMPLES = 64

_digests: WeakKeyDictionary[Constant, dict[bool, bytes]] = WeakKeyDictionary()
"""What was read of each constant before: {whole value?: digest}. Constants never change."""


def rewrite(root: Graph, ctx: Context) -> None:
    """Redirect the readers of each duplicate to the first of its kind."""
    graphs = list(root.walk())
    keys: dict[Constant, Hashable] = {
        constant: (constant.dtype.name, tuple(constant.shape))
        for graph in graphs
        for constant in graph.constants.values()
    }
    for whole in (False, True):
        counts = Counter(keys.values())
        keys = {c: (key, _digest(c, whole)) for c, key in keys.items() if counts[key] > 1}
    kept: dict[int, dict[Hashable, Constant]] = {}  # by id of the graph
    for graph in graphs:
        own = kept[id(graph)] = {}
        for constant in list(graph.constants.values()):
            if constant not in keys:
                continue
            first = _find(keys[constant], graph, kept)
            if first is None:
                own[keys[constant]] = constant
            elif (constant.outputs and not constant.is_output) and ctx.fuel(  # (3)
                NAME, constant.outputs[0], f"reads {first.name} instead of its copy {constant.name}"
            ):
                _redirect(constant, first)
                graph.drop_constant(constant)


def _find(
    key: Hashable, graph: Graph, kept: dict[int, dict[Hashable, Constant]]
) -> Constant | None:
    at: Graph | None = graph
    while at is not None:
        found = kept[id(at)].get(key)
        if found is not None:
            return found
        at = at.parent  # (2)
    return None


def _redirect(constant: Constant, to: Constant) -> None:
    for reader in list(constant.outputs):
        for index, tensor in enumerate(reader.inputs):
            if tensor is constant:
                reader.inputs[index] = to


def _digest(constant: Constant, whole: bool) -> bytes:
    """A hash of the bits of all elements, or of some."""
    known = _digests.setdefault(constant, {})
    if whole not in known:
        flat = constant.values.reshape(-1)
        if not whole:
            flat = flat[:: max(1, math.ceil(len(flat) / _SAMPLES))]
        if flat.dtype.kind == "O":  # strings
            hashed = hashlib.sha256(repr(flat.tolist()).encode())
        else:  # as bytes, without a copy: types that NumPy does not know have no buffer
            hashed = hashlib.sha256(np.ascontiguousarray(flat).view(np.uint8).data)
        known[whole] = hashed.digest()
    return known[whole]


PASS = GraphPass(NAME, rewrite)
