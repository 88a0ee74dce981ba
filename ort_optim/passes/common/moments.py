"""Recognizes a normalization written out: x minus its mean, over its standard deviation.

    mean = ReduceMean(x)              d = Sub(x, mean)        square = Pow(d, 2) or Mul(d, d)
    variance = ReduceMean(square)     sqrt = Sqrt(Add(variance, epsilon))

and then one of two tails, the second as TensorFlow writes it:

    plain    n = Div(d, sqrt), or Mul(d, Reciprocal(sqrt));   Add(Mul(n, scale), bias)
    folded   r = Mul(Reciprocal(sqrt), scale);   Add(Mul(x, r), Sub(bias, Mul(mean, r)))

Both reductions are over the same constant axes and keep them, and nothing but these nodes reads
what lies between x and the end.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ort_optim.graph.view import Constant, Node, Tensor, Variable
from ort_optim.passes.common.match import attr, axes_of, producer, rank, scalar, sole_consumer
from ort_optim.passes.common.scalars import scalar_operand


@dataclass(frozen=True)
class Moments:
    """The nodes from x to sqrt(var + epsilon). `axes` are not negative and rise."""

    x: Variable
    mean: Node
    sub: Node
    square: Node
    variance: Node
    add: Node
    sqrt: Node
    axes: tuple[int, ...]
    rank: int
    epsilon: float

    @property
    def nodes(self) -> list[Node]:
        """All of them, in order."""
        return [self.mean, self.sub, self.square, self.variance, self.add, self.sqrt]

    def axes_from(self, first: int) -> bool:
        """Whether the axes are all those from `first` on."""
        return self.axes == tuple(range(first, self.rank))


@dataclass(frozen=True)
class Tail:
    """What follows the moments: `last` gives n * scale + bias, `between` come before it."""

    last: Node
    between: tuple[Node, ...]
    scale: Constant | None = None
    bias: Constant | None = None


def find_moments(sqrt: Node) -> Moments | None:
    """The nodes that lead to a Sqrt, if it is that of a standard deviation."""
    add = producer(sqrt.inputs[0], "Add")
    shifted = scalar_operand(add) if add is not None else None
    if add is None or shifted is None or shifted[1] <= 0:
        return None
    variance = producer(shifted[0], "ReduceMean")
    square = producer(variance.inputs[0], "Pow", "Mul") if variance is not None else None
    sub = producer(square.inputs[0], "Sub") if square is not None else None
    mean = producer(sub.inputs[1], "ReduceMean") if sub is not None else None
    if variance is None or square is None or sub is None or mean is None:
        return None
    x, deviation = sub.inputs[0], sub.outputs[0]
    power = scalar(square.inputs[1]) if square.is_op("Pow") else square.inputs[1]
    axes, known = _axes(mean, x), rank(x)
    if (
        mean.inputs[0] is not x
        or (power is not deviation and power != 2)
        or axes is None
        or known is None
        or axes != _axes(variance, x)
    ):
        return None
    found = Moments(x, mean, sub, square, variance, add, sqrt, axes, known, shifted[1])
    chain = (square, variance, add, sqrt)
    linked = all(sole_consumer(one.outputs[0]) is two for one, two in itertools.pairwise(chain))
    return found if linked and _is_private(found.nodes[:3]) else None


def plain_tail(moments: Moments) -> Tail | None:
    """The tail that ends in n itself."""
    deviation, root = moments.sub.outputs[0], moments.sqrt.outputs[0]
    last = sole_consumer(root, "Div", "Reciprocal")
    between: tuple[Node, ...] = ()
    if last is not None and (last.is_op("Reciprocal") or scalar(last.inputs[0]) == 1):
        between, root = (last,), last.outputs[0]
        last = sole_consumer(root, "Mul")
    if last is None or not any(each is deviation for each in last.inputs):
        return None
    if last.is_op("Div") and last.inputs[1] is not root:
        return None
    readers = {*moments.mean.outputs[0].outputs, *deviation.outputs}
    return Tail(last, between) if readers <= {moments.sub, moments.square, last} else None


def with_affine(tail: Tail) -> Tail:
    """A plain tail together with the Mul and the Add of a constant that follow it, if they do."""
    operands: dict[str, Constant] = {}
    for op in ("Mul", "Add"):
        following = sole_consumer(tail.last.outputs[0], op)
        other = _constant_operand(following)
        if following is not None and other is not None:
            operands[op] = other
            tail = Tail(
                following, (*tail.between, tail.last), operands.get("Mul"), operands.get("Add")
            )
    return tail


def folded_tail(moments: Moments) -> Tail | None:
    """The tail that ends in n * scale + bias, written with scale / sqrt(var + epsilon)."""
    mean = moments.mean.outputs[0]
    reciprocal = sole_consumer(moments.sqrt.outputs[0], "Reciprocal")
    scaled = sole_consumer(reciprocal.outputs[0], "Mul") if reciprocal is not None else None
    scale = _constant_operand(scaled)
    if reciprocal is None or scaled is None or scale is None:
        return None
    x_part = _reader(scaled.outputs[0], moments.x)
    mean_part = _reader(scaled.outputs[0], mean)
    if x_part is None or mean_part is None:
        return None
    offset = sole_consumer(mean_part.outputs[0], "Sub")
    last = sole_consumer(x_part.outputs[0], "Add")
    if offset is None or last is None or sole_consumer(offset.outputs[0]) is not last:
        return None
    bias = offset.inputs[0]
    readers = {*mean.outputs, *moments.sub.outputs[0].outputs, *scaled.outputs[0].outputs}
    allowed = {moments.sub, moments.square, mean_part, x_part}
    if not isinstance(bias, Constant) or not readers <= allowed or not _is_private([scaled]):
        return None
    return Tail(last, (reciprocal, scaled, x_part, mean_part, offset), scale, bias)


def _axes(reduce: Node, x: Tensor) -> tuple[int, ...] | None:
    """The axes of a reduction that keeps them, not negative."""
    axes, known = axes_of(reduce, 1), rank(x)
    if axes is None or known is None or not attr(reduce, "keepdims", 1):
        return None
    return tuple(sorted(axis % known for axis in axes))


def _is_private(nodes: list[Node]) -> bool:
    """Whether the outputs are no graph outputs and are read in the graph of the nodes alone."""
    return not any(
        node.outputs[0].is_output
        or any(user.graph is not node.graph for user in node.outputs[0].outputs)
        for node in nodes
    )


def _reader(tensor: Variable, other: Tensor) -> Node | None:
    """The Mul of `tensor` and `other`."""
    for user in tensor.outputs:
        if user.is_op("Mul") and any(each is other for each in user.inputs):
            found: Node = user
            return found
    return None


def _constant_operand(node: Node | None) -> Constant | None:
    """The constant operand of a node."""
    operands = node.inputs if node is not None else ()
    return next((each for each in operands if isinstance(each, Constant)), None)
