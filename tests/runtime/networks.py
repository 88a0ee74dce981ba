"""Small networks with real regions, and what ONNX Runtime makes of them without us."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from ort_optim.compiler.parse import eligibility
from ort_optim.graph.regions import DOMAIN, Tiling, group, wrap
from ort_optim.hardware import Target, detect
from ort_optim.kernels.base import ConvTemplate, Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES
from ort_optim.runtime.machine import fingerprint, isa_of, layout_name
from tests.compiler.regions import Net
from tests.runtime.sessions import options

Array = NDArray[np.float32]
RTOL = 1e-4

FASTEST = ("winograd_f43", "depthwise", "pointwise", "first_layer")
ELSEWHERE = "x86_64 512x32 fma L1=1 L2=2"
"""The fingerprint of a machine that nobody has."""


OUTSIDE = "Exp"
"""An operator that is left out of regions, so that a network has several."""


def machine(*, avx2: bool = False) -> Target:
    """This machine; or as it would be without AVX-512."""
    found = detect()
    if not avx2:
        return found
    features = frozenset(each for each in found.features if not each.startswith("avx512"))
    return replace(
        found,
        llvm_cpu="x86-64-v3",
        features=features - {"avxvnni"},
        vector_bits=256,
        vector_registers=16,
    )


def template_for(conv: ConvSpec, isa: Isa, prefer: Sequence[str]) -> tuple[ConvTemplate, Tile]:
    """The first of the preferred templates that can, else the last of all; with its first tile."""
    order = [each for name in prefer for each in TEMPLATES if each.name == name]
    can = (each for each in (*order, *TEMPLATES[::-1]) if each.supports(conv, isa) is None)
    template = next(can)
    return template, next(iter(template.tiles(conv, isa)))


def tiled(
    model: ModelProto,
    target: Target | None = None,
    prefer: Sequence[str] = FASTEST,
    edit: Callable[[Tiling], Tiling] = lambda tiling: tiling,
) -> ModelProto:
    """The model with all its regions as calls, as it comes back from a file.

    No rule is asked and no time is weighed. `edit` changes what the calls say.
    """
    target = target or machine()
    isa = isa_of(target)
    assert isinstance(isa, Isa), isa
    said: dict[str, tuple[ConvTemplate, Tile]] = {}

    def accept(node: NodeProto, conv: ConvSpec) -> None:
        said[node.output[0]] = template_for(conv, isa, prefer)

    reason = eligibility(model, accept)
    found = group(model, lambda n: OUTSIDE if n.op_type == OUTSIDE else reason(n), is_anchor)
    tilings = []
    for region in found.regions:
        chosen = [said[region.nodes[i].output[0]] for i in region.anchors]
        templates = tuple(template.name for template, _ in chosen)
        tiles = tuple(str(tile) for _, tile in chosen)
        tilings.append(edit(Tiling(templates, tiles, layout_name(isa), fingerprint(target))))
    made = wrap(model, found.regions, tilings)
    return ModelProto.FromString(made.SerializeToString())


def is_anchor(node: NodeProto) -> bool:
    return node.op_type in ("Conv", "ConvTranspose")


def residual(
    batch: int | str = 1, size: int | str = 9, *, opset: int = 17, seed: int = 0
) -> ModelProto:
    """A residual block, a pool, a concat of two branches: one region of a 3-channel image."""
    net = Net(seed, opset)
    x = net.input(batch, 3, size, size if isinstance(size, int) else "W")
    first = net.add("Relu", net.conv(x, 3, 17, k=3))
    inner = net.add("Relu", net.conv(first, 17, 17, k=3))
    joined = net.add("Relu", net.add("Add", net.conv(inner, 17, 17, k=3), first))
    pooled = net.add("MaxPool", joined, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    left = net.conv(pooled, 17, 16)
    right = net.conv(pooled, 17, 17, k=3, group=17)
    return net.model(net.add("Concat", left, right, axis=1))


def chain(channels: int = 8, size: int = 7, *, seed: int = 0) -> ModelProto:
    """Two regions of the same kind, Conv Tanh, with an Exp between them."""
    net = Net(seed, 17)
    x = net.input("N", channels, size, size)
    a = net.add("Exp", net.add("Tanh", net.conv(x, channels, channels, k=3)))
    return net.model(net.add("Tanh", net.conv(a, channels, channels, k=3)))


def single() -> ModelProto:
    """One convolution, of few kernels."""
    net = Net(0, 17)
    return net.model(net.conv(net.input("N", 4, 7, 7), 4, 4, k=3))


def names_of(model: ModelProto) -> list[str]:
    """The names of the regions, in the order of their calls."""
    return [node.op_type for node in model.graph.node if node.domain == DOMAIN]


def feeds_of(model: ModelProto, seed: int = 0, **sizes: int) -> dict[str, Array]:
    """Random inputs; `sizes` are those of the symbolic dimensions."""
    random = np.random.default_rng(seed)
    feeds = {}
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in dims]
        feeds[info.name] = random.standard_normal(shape, dtype=np.float32)
    return feeds


def plain(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of ONNX Runtime alone."""
    session = ort.InferenceSession(model.SerializeToString(), options())
    found: list[Array] = session.run(None, dict(feeds))
    return found


def assert_close(found: Sequence[Array], wanted: Sequence[Array], rtol: float = RTOL) -> None:
    """Equal in shape, and within `rtol` of the largest number."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        if other.size:
            largest = max(1.0, float(np.abs(other).max()))
            assert float(np.abs(one - other).max()) <= rtol * largest
