"""The output_shape of a ConvTranspose, as the padding that gives it.

    ConvTranspose(x, w; output_shape)   =>   ConvTranspose(x, w; pads, output_padding)

On an axis, p = stride (size - 1) + output_padding + dilation (kernel - 1) + 1 - output_shape is cut
off: half of it on each side. Where p is negative, that many more rows are made at the end, which
no tap reaches: output_padding. With output_shape no ConvTranspose can be part of a region
(fns_candy spends 22% of its time in two).

Conditions: (1) the sizes of x and of the weights are known; (2) p is even, since versions of ONNX
Runtime differ in the side that has one more, or -p makes an output_padding below the stride.
"""

from __future__ import annotations

from ort_optim.graph.view import Graph, Node
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import attr, static_shape

NAME = "output-shape"


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Rewrite one ConvTranspose."""
    wanted = attr(node, "output_shape", ())
    if not wanted:
        return None
    sizes, weights = (node.inputs[0].shape or [])[2:], static_shape(node.inputs[1])
    rank = len(sizes)
    if weights is None or not rank or not all(isinstance(size, int) for size in sizes):  # (1)
        return ctx.refuse(NAME, node, "a size of its input or its weights is not known")
    pads, more = [0] * (2 * rank), [0] * rank
    steps, gaps = (attr(node, name, (1,) * rank) for name in ("strides", "dilations"))
    given = attr(node, "output_padding", (0,) * rank)
    if len(wanted) != rank:
        return ctx.refuse(NAME, node, f"output_shape {list(wanted)}")
    for axis, size in enumerate(sizes):
        assert isinstance(size, int)
        made = steps[axis] * (size - 1) + gaps[axis] * (weights[2 + axis] - 1) + 1
        cut = made + given[axis] - wanted[axis]
        pads[axis] = pads[axis + rank] = max(cut, 0) // 2
        more[axis] = given[axis] - min(cut, 0)
        if (cut > 0 and cut % 2) or more[axis] >= max(steps[axis], 1):  # (2)
            return ctx.refuse(NAME, node, f"{wanted[axis]} of {made} on spatial axis {axis}")
    if ctx.fuel(NAME, node, f"pads {pads}, output_padding {more}"):
        gone = ("auto_pad", "output_shape", "pads", "output_padding")
        attrs = {name: value for name, value in node.attrs.items() if name not in gone}
        attrs |= {"pads": tuple(pads)} | ({"output_padding": tuple(more)} if any(more) else {})
        graph.replace(node, "ConvTranspose", list(node.inputs), **attrs)
    return None


PASS = NodePass(NAME, frozenset({"ConvTranspose"}), rewrite)
