"""Which weights are better kept in a file of their own.

A region's weights are packed once for the code that computes it, and the originals lie idle from
then on. ORT maps external data, so what is idle is a part of the file that the system drops when
memory is short; inline data stays in memory beside the packed copy.

A second file is a thing to be carried along, though, so this is done where the gain is seen beside
the tens of MB that a process with ORT takes anyway, and for tensors of many pages each: each starts
at a page and is mapped by itself. The smaller weights of a ResNet-50 are under 1% of all.
"""

from __future__ import annotations

from onnx import ModelProto

from ort_optim.graph.order import reads
from ort_optim.graph.regions.form import DOMAIN
from ort_optim.graph.regions.reading import calls
from ort_optim.graph.weights import size_bytes

APART_FROM_BYTES = 16 << 20  # of all weights that would go to the file
TENSOR_FROM_BYTES = 64 << 10


def weights_apart(model: ModelProto) -> frozenset[str]:
    """The main graph's initializers to store as external data; none if it does not pay.

    For `save_model(..., apart=weights_apart(model))`. Those that something else reads too are not
    among them: they stay in use.
    """
    weights = {name for call in calls(model) if call.problem is None for name in call.weights}
    for node in model.graph.node:
        if weights and node.domain != DOMAIN:
            weights.difference_update(reads(node))
    sizes = {t.name: size_bytes(t) for t in model.graph.initializer if t.name in weights}
    heavy = {name: size for name, size in sizes.items() if size >= TENSOR_FROM_BYTES}
    return frozenset(heavy) if sum(heavy.values()) >= APART_FROM_BYTES else frozenset()
