"""Output shapes in terms of input shapes, for sizes known by number or by name.

onnx's inference knows more operators, but gives up on names as soon as there is arithmetic on
them, and with it on all that follows. Where it names a size it can't compute and a rule here can,
the name stands for the computed size from then on.

Names used here
    Shape           list of Size | None, None for a size nothing is known of
    RULES           operator -> f(node, shapes, values) -> Shape of the first output
    output_shapes   the Shapes of all outputs
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from ort_optim.graph.view import Node
from ort_optim.passes.common.match import attr
from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.arithmetic import Element
from ort_optim.passes.shapes.slices import Limits, sliced_shape
from ort_optim.passes.shapes.symbolic import Poly, Size
from ort_optim.passes.shapes.values import Value, axes_given
from ort_optim.passes.shapes.windows import WINDOWS

Shape = list[Size | None]
Shapes = Sequence[Shape | None]
Values = Sequence[Value | None]

Rule = Callable[[Node, Shapes, Values], Shape | None]


def output_shapes(node: Node, shapes: Shapes, values: Values, limits: Limits) -> list[Shape | None]:
    """The shapes of the node's outputs; None where no rule tells."""
    made: list[Shape | None] = [None] * len(node.outputs)
    try:
        if node.is_op("Slice"):
            return [sliced_shape(node, shapes[0], values, limits)]
        if node.is_op("Split"):
            return _split(node, shapes, values) or made
        if node.is_op(*RULES):
            made[0] = RULES[node.op](node, shapes, values)
        elif node.domain == "com.microsoft" and node.op in SAME_IN_CONTRIB:
            made[0] = shapes[0]
    except (IndexError, ValueError, TypeError):  # a node that ORT would refuse too
        return [None] * len(node.outputs)
    return made


def _dim(element: Element) -> Size | None:
    return element if isinstance(element, (int, Poly)) else None


def _reshape(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    target, source = values[1], shapes[0]
    if target is None:
        return None
    made: Shape = []
    inferred: int | None = None
    for axis, element in enumerate(target.flat):
        size = _dim(element)
        if size == -1:
            inferred = axis
            size = None
        elif size == 0 and not attr(node, "allowzero", 0):
            size = source[axis] if source is not None else None
        made.append(size)
    if inferred is not None and source is not None:
        others = [size for axis, size in enumerate(made) if axis != inferred]
        total, rest = _product(source), _product(others)
        if total is not None and rest is not None:
            made[inferred] = _exact_quotient(total, rest)
    return made


def _product(sizes: Sequence[Size | None]) -> Size | None:
    known = [size for size in sizes if size is not None]
    return symbolic.product(known) if len(known) == len(sizes) else None


def _exact_quotient(total: Size, rest: Size) -> Size | None:
    """A quotient known to be exact at run time; None where it can't be written exactly."""
    if isinstance(total, int) and isinstance(rest, int):
        return total // rest if rest else None
    return symbolic.divide_exactly(total, rest)


def broadcast(left: Shape, right: Shape) -> Shape:
    """The shape of two operands broadcast together."""
    made: Shape = []
    for a, b in itertools.zip_longest(reversed(left), reversed(right), fillvalue=1):
        if a == 1 or a == b:
            made.append(b)
        elif b == 1 or isinstance(a, int):  # an a > 1 meets an equal size or 1
            made.append(a)
        else:
            made.append(b if isinstance(b, int) else None)
    return made[::-1]


def _elementwise(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    if attr(node, "broadcast", 0):
        return shapes[0]
    total: Shape = []
    for shape in shapes:
        if shape is None:
            return None
        total = broadcast(total, shape)
    return total


def _expand(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    if shapes[0] is None or values[1] is None:
        return None
    return broadcast(shapes[0], [_dim(element) for element in values[1].flat])


def _constant_of_shape(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    return None if values[0] is None else [_dim(element) for element in values[0].flat]


def _tile(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    if shapes[0] is None or values[1] is None:
        return None
    return [
        _product([size, _dim(times)]) for size, times in zip(shapes[0], values[1].flat, strict=True)
    ]


def _range(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    start, limit, delta = (None if value is None else value.flat[0] for value in values)
    first, last = _dim(start), _dim(limit)
    if delta != 1 or first is None or last is None:
        return None
    length = symbolic.subtract(last, first)
    if length is None or not symbolic.is_natural(length):
        return None
    return [length]


def _concat(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes):
        return None
    axis = attr(node, "axis", 1) % len(known[0])
    made: Shape = []
    for at, sizes in enumerate(zip(*known, strict=True)):
        if at == axis:
            made.append(_total(sizes))
        else:  # all are equal: an int among them tells more than a name
            ints = [size for size in sizes if isinstance(size, int)]
            made.append(ints[0] if ints else sizes[0])
    return made


def _total(sizes: Sequence[Size | None]) -> Size | None:
    total: Size | None = 0
    for size in sizes:
        total = None if total is None or size is None else symbolic.add(total, size)
    return total


def _matmul(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    left, right = shapes
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    return [*broadcast(left[:-2], right[:-2]), left[-2], right[-1]]


def _transpose(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source = shapes[0]
    if source is None:
        return None
    return [source[axis] for axis in attr(node, "perm", range(len(source))[::-1])]


def _unsqueeze(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    axes, source = axes_given(node, values), shapes[0]
    if source is None or axes is None:
        return None
    rank = len(source) + len(axes)
    rest = iter(source)
    added = {axis % rank for axis in axes}
    return [1 if axis in added else next(rest) for axis in range(rank)]


def _squeeze(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    axes, source = axes_given(node, values), shapes[0]
    if source is None or axes is None:
        return None
    if not axes:  # all sizes of 1, so all must be known
        return [size for size in source if size != 1] if _all_numbers(source) else None
    dropped = {axis % len(source) for axis in axes}
    return [size for axis, size in enumerate(source) if axis not in dropped]


def _all_numbers(shape: Shape) -> bool:
    return all(isinstance(size, int) for size in shape)


def _gather(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source, indices = shapes[0], shapes[1]
    if source is None or indices is None:
        return None
    axis = attr(node, "axis", 0) % len(source)
    return [*source[:axis], *indices, *source[axis + 1 :]]


def _reduced(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    axes, source = axes_given(node, values), shapes[0]
    if source is None or axes is None:
        return None
    if not axes and attr(node, "noop_with_empty_axes", 0):
        return source
    reduced = {axis % len(source) for axis in axes} if axes else set(range(len(source)))
    return _without(source, reduced, attr(node, "keepdims", 1))


def _arg_reduced(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source = shapes[0]
    if source is None:
        return None
    return _without(source, {attr(node, "axis", 0) % len(source)}, attr(node, "keepdims", 1))


def _without(source: Shape, axes: set[int], keepdims: int) -> Shape:
    if keepdims:
        return [1 if axis in axes else size for axis, size in enumerate(source)]
    return [size for axis, size in enumerate(source) if axis not in axes]


def _gemm(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    left, right = shapes[0], shapes[1]
    if left is None or right is None:
        return None
    rows = left[1] if attr(node, "transA", 0) else left[0]
    return [rows, right[0] if attr(node, "transB", 0) else right[1]]


def _flatten(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source = shapes[0]
    if source is None:
        return None
    axis = attr(node, "axis", 1)
    if axis < 0:
        axis += len(source)
    return [_product(source[:axis]), _product(source[axis:])]


def _pad(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    source = shapes[0]
    if source is None or (len(node.inputs) > 3 and node.inputs[3].name):
        return None
    given = attr(node, "pads", None)
    pads: Sequence[Element] = (
        given if given is not None else ([] if values[1] is None else values[1].flat)
    )
    if len(pads) != 2 * len(source):
        return None
    return [
        _total((size, _dim(before), _dim(after)))
        for size, before, after in zip(
            source, pads[: len(source)], pads[len(source) :], strict=True
        )
    ]


def _second(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    return shapes[1]


def _split(node: Node, shapes: Shapes, values: Values) -> list[Shape | None] | None:
    source = shapes[0]
    if source is None:
        return None
    axis, count = attr(node, "axis", 0) % len(source), len(node.outputs)
    whole = source[axis]
    parts: Sequence[Element]
    if "split" in node.attrs:
        parts = node.attrs["split"]
    elif len(node.inputs) > 1 and node.inputs[1].name:
        parts = values[1].flat if values[1] is not None else [None] * count
    elif isinstance(whole, int):
        length = -(-whole // count)
        parts = [max(0, min(length, whole - at * length)) for at in range(count)]
    else:
        parts = [None] * count
    return [[*source[:axis], _dim(part), *source[axis + 1 :]] for part in parts]


def _same(node: Node, shapes: Shapes, values: Values) -> Shape | None:
    return shapes[0]


SAME_IN_CONTRIB = ("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "SkipLayerNormalization")

BROADCASTING = (
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Mean", "Sum", "Where", "PRelu"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"),
)

_SAME = (
    *("Abs", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "CumSum", "DequantizeLinear"),
    *("Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
    *("IsInf", "IsNaN", "LRN", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Not"),
    *("QuantizeLinear", "Reciprocal", "Relu", "Round", "ScatterElements", "ScatterND", "Selu"),
    *("Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Tanh", "Trilu"),
    *("BatchNormalization", "GroupNormalization", "InstanceNormalization"),
    *("LayerNormalization", "LpNormalization", "MeanVarianceNormalization"),
)

_REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)

RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Tile": _tile,
    "Range": _range,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _second,
    "Pad": _pad,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "ArgMax": _arg_reduced,
    "ArgMin": _arg_reduced,
    **WINDOWS,
    **dict.fromkeys(BROADCASTING, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(_SAME, _same),
}
