"""What is known of the shapes of all tensors, and of the values of those that hold sizes.

Names used here
    Facts          the analysis of one view, made in the order of execution
    write_back     puts what onnx's inference missed on the view's variables
"""

from __future__ import annotations

import itertools

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.common.constants import constant_value
from ort_optim.passes.common.match import attr
from ort_optim.passes.shapes import symbolic
from ort_optim.passes.shapes.inference import BROADCASTING, Shape, output_shapes
from ort_optim.passes.shapes.slices import Limits
from ort_optim.passes.shapes.symbolic import Poly, Size
from ort_optim.passes.shapes.values import MAX_ELEMENTS, Value, of_array, outputs_of, vector

GENERATED = "unk__"
"""How onnx's inference begins the names it makes up; other names come from the model."""


class Facts:
    """Shapes and small values of every tensor in the view.

    Sizes are int or polynomials over names; a size nothing is known of gets a name of its own,
    so that it is still known to equal itself.
    """

    def __init__(self, root: Graph) -> None:
        self._limits = Limits()
        self._numbers = itertools.count()
        learnt = -1
        while learnt < len(self._limits):  # what is learnt holds for earlier nodes too
            learnt = len(self._limits)
            self._shapes: dict[Tensor, list[Size]] = {}
            self._values: dict[Tensor, Value | None] = {}
            self._meaning: dict[str, Size] = {}
            self._visit(root)

    def shape(self, tensor: Tensor) -> list[Size] | None:
        """The sizes of a tensor; None if its rank is unknown."""
        if isinstance(tensor, Constant):
            return list(tensor.shape)
        return self._shapes.get(tensor)

    def value(self, tensor: Tensor) -> Value | None:
        """The elements of a small tensor, as far as anything is known of them."""
        if isinstance(tensor, Constant) and tensor not in self._values:
            elements = 1
            for size in tensor.shape:
                elements *= size
            small = elements <= MAX_ELEMENTS and tensor.dtype.kind in "iufb"
            self._values[tensor] = of_array(tensor.values) if small else None
        return self._values.get(tensor)

    def write_back(self) -> None:
        """Give the view's variables the sizes that onnx's inference missed.

        A size that is a polynomial of several names gets one made-up name wherever it occurs.
        """
        names: dict[Size, str] = {}
        for tensor, shape in self._shapes.items():
            if not isinstance(tensor, Variable):
                continue
            old = tensor.shape if tensor.shape is not None else [None] * len(shape)
            for size, dim in zip(shape, old, strict=True):
                if isinstance(size, Poly) and isinstance(dim, str):
                    names.setdefault(size, dim)
            tensor.shape = [
                size if isinstance(size, int) else names.setdefault(size, f"size__{len(names)}")
                for size in shape
            ]

    def _visit(self, graph: Graph) -> None:
        for tensor in graph.inputs:
            if isinstance(tensor, Variable):
                self._settle_shape(tensor, None)
        for node in graph.nodes:
            if node.dead:
                continue
            for below in node.subgraphs():
                self._visit(below)
            self._visit_node(node)

    def _visit_node(self, node: Node) -> None:
        shapes: list[Shape | None] = []
        for tensor in node.inputs:
            known = self.shape(tensor) if tensor.name else None
            shapes.append(None if known is None else list(known))
        values = [self.value(tensor) if tensor.name else None for tensor in node.inputs]
        if node.is_op(*BROADCASTING) and node.graph is not None and node.graph.parent is None:
            self._limits.learn(shapes)
        found = output_shapes(node, shapes, values, self._limits)
        for out, shape in zip(node.outputs, found, strict=True):
            if out.name:
                self._settle_shape(out, shape)
        for out, value in zip(node.outputs, self._outputs(node, values), strict=True):
            if value is not None and out.name and out.dtype in (None, value.dtype):
                self._values[out] = value
                self._shapes.setdefault(out, list(value.elements.shape))

    def _outputs(self, node: Node, values: list[Value | None]) -> list[Value | None]:
        if node.is_op("Constant"):
            array = constant_value(node)
            return [None if array is None else of_array(array)]
        if not node.is_op("Shape", "Size"):
            return outputs_of(node, values)
        shape = self.shape(node.inputs[0])
        if shape is None:
            return [None]
        if node.op == "Shape":
            return [vector(shape[attr(node, "start", 0) : attr(node, "end", None)])]
        total = symbolic.product(shape)
        return [None if total is None else vector([total]).as_scalar()]

    def _settle_shape(self, tensor: Variable, found: Shape | None) -> None:
        """Join what onnx and what the rules here say of a tensor's shape."""
        shape = tensor.shape
        if shape is None:
            if found is not None:
                self._shapes[tensor] = [self._or_fresh(size) for size in found]
            return
        if found is None or len(found) != len(shape):
            found = [None] * len(shape)
        self._shapes[tensor] = [
            self._join(dim, size) for dim, size in zip(shape, found, strict=True)
        ]

    def _join(self, dim: int | str | None, size: Size | None) -> Size:
        if isinstance(dim, int):
            return dim
        if dim is None:
            return self._or_fresh(size)
        if isinstance(size, int):
            return size
        if size is None or not dim.startswith(GENERATED):
            size = symbolic.symbol(dim)
        return self._meaning.setdefault(dim, size)

    def _or_fresh(self, size: Size | None) -> Size:
        return symbolic.symbol(f"?{next(self._numbers)}") if size is None else size
