"""The onnx-graphsurgeon view of a model, on which the passes work.

`importing.view` builds graphsurgeon objects that remember the proto they came from; `merge.py` puts
back everything graphsurgeon has no place for. The classes here differ from graphsurgeon's in
three ways: nodes and tensors are compared by identity, constants load their data when it is
read and keep their proto, and attribute values are never changed in place, only replaced.

Names used here
    Variable, Constant, Node   tensors and nodes
    Graph                      one graph or subgraph; owns constants, makes, inserts and removes
    ModelFacts                 what all graphs of one model share
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from ort_optim.graph import weights
from ort_optim.graph.names import Names
from ort_optim.graph.walk import STANDARD_DOMAINS
from ort_optim.graph.weights import Array

CACHED_BYTES = 1 << 20  # larger constants are read again each time rather than kept

Dim = int | str | None


class Variable(gs.Variable):  # type: ignore[misc]
    """A tensor computed at run time.

    `dtype` (np.dtype or None) and `shape` (list of int | str | None, or None if the rank is
    unknown) are what shape inference found, not what the file claims.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.is_output = False
        self.is_input = False


class Weight(LazyValues):  # type: ignore[misc]
    """The data of a constant that came from the file."""

    def __init__(self, tensor: onnx.TensorProto | onnx.SparseTensorProto, folder: Path) -> None:
        self.tensor = tensor
        self.folder = folder
        values = tensor.values if isinstance(tensor, onnx.SparseTensorProto) else tensor
        self.shape = tuple(tensor.dims)
        self.dtype = onnx.helper.tensor_dtype_to_np_dtype(values.data_type)
        self.nbytes = (
            math.prod(self.shape) * weights.size_bytes(values) // max(1, math.prod(values.dims))
        )

    def load(self) -> Array:
        """The dense values."""
        if isinstance(self.tensor, onnx.SparseTensorProto):
            return weights.sparse_to_array(self.tensor, self.folder)
        return weights.to_array(self.tensor, self.folder)


class Constant(gs.Constant):  # type: ignore[misc]
    """A tensor whose value is known. Immutable: to change a value, make another constant."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__
    is_output = False
    is_input = False

    def __init__(self, name: str, values: Array | Weight) -> None:
        super().__init__(name, values)
        self._cache: Array | None = values if isinstance(values, np.ndarray) else None

    @property
    def values(self) -> Array:
        """The value as an array, shape `self.shape`."""
        if self._cache is not None:
            return self._cache
        loaded: Array = self._values.load()
        if loaded.nbytes <= CACHED_BYTES:
            self._cache = loaded
        return loaded

    @property
    def nbytes(self) -> int:
        """Bytes of the dense value."""
        return int(self._values.nbytes)

    @property
    def proto(self) -> onnx.TensorProto | onnx.SparseTensorProto | None:
        """The proto in the file, None for a constant made by a pass."""
        return self._values.tensor if isinstance(self._values, Weight) else None

    def renamed(self, name: str) -> Constant:
        """The same value under another name, without reading it."""
        return Constant(name, self._values)


Tensor = Variable | Constant


class Node(gs.Node):  # type: ignore[misc]
    """A node; `proto` is the node of the file it came from or whose place it takes, if any."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        op: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Variable],
        attrs: Mapping[str, Any] | None = None,
        name: str = "",
        domain: str = "",
        proto: onnx.NodeProto | None = None,
    ) -> None:
        super().__init__(op, name, dict(attrs or {}), list(inputs), list(outputs), domain)
        self.proto = proto
        self.imported: dict[str, Any] = {}
        self.graph: Graph | None = None
        self.dead = False

    @property
    def key(self) -> str:
        """A name that stays the same from run to run: the first output's."""
        return str(next((out.name for out in self.outputs if out.name), self.name))

    def is_op(self, *ops: str) -> bool:
        """Whether this is one of the named operators of the standard domain."""
        return self.op in ops and self.domain in (*STANDARD_DOMAINS, None)


class Graph(gs.Graph):  # type: ignore[misc]
    """A graph or subgraph. Subgraphs share the tensors they capture with the graph around."""

    def __init__(self, proto: onnx.GraphProto, model: ModelFacts, parent: Graph | None) -> None:
        super().__init__(name=proto.name, opset=model.opsets.get("", 1))
        self.nodes: list[Node] = []
        self.proto = proto
        self.model = model
        self.parent = parent
        self.constants: dict[str, Constant] = {}
        self.imported_nodes: list[Node] = []
        self.imported_constants: list[Constant] = []
        self._waiting: dict[Node, list[Node]] = {}
        self._unsettled = False

    def walk(self) -> Iterator[Graph]:
        """This graph and all subgraphs below it, outer ones first."""
        yield self
        for node in self.nodes:
            if node.attrs and not node.dead:
                for value in node.attrs.values():
                    if isinstance(value, Graph):
                        yield from value.walk()

    def fresh_name(self, hint: str) -> str:
        """A tensor or node name that nothing in the model has."""
        return self.model.names.fresh(hint)

    def constant(self, values: Array, hint: str) -> Constant:
        """A new initializer of this graph."""
        made = Constant(self.fresh_name(hint), np.asarray(values))
        self.constants[made.name] = made
        return made

    def variable(self, hint: str) -> Variable:
        """A new intermediate tensor."""
        return Variable(self.fresh_name(hint))

    def make(
        self,
        op: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Variable],
        attrs: Mapping[str, Any] | None = None,
        *,
        like: Node,
        domain: str = "",
    ) -> Node:
        """A node that takes the place of `like`: it inherits its name, doc string and metadata.

        Outputs that another node still has must be taken from it first (`remove` does that).
        """
        made = Node(op, inputs, outputs, attrs, like.name, domain, like.proto)
        made.graph = self
        return made

    def remove(self, node: Node) -> None:
        """Disconnect a node and all in its subgraphs; it leaves the list at the next `settle`."""
        for below in node.subgraphs():
            for inner in below.nodes:
                below.remove(inner)
        node.inputs.clear()
        node.outputs.clear()
        node.dead = True
        self._unsettled = True

    def insert(self, nodes: Iterable[Node], *, at: Node) -> None:
        """Put nodes where `at` stands, which may be removed afterwards or before."""
        for node in nodes:
            node.graph = self
            self._waiting.setdefault(at, []).append(node)
        self._unsettled = True

    def replace(self, old: Node, op: str, inputs: Sequence[Tensor], **attrs: Any) -> Node:
        """Put a standard node with these inputs and attributes in the place of `old`.

        The new node takes over all outputs of `old`.
        """
        sources, outputs = list(inputs), list(old.outputs)
        self.remove(old)
        made = self.make(op, sources, outputs, attrs, like=old)
        self.insert([made], at=old)
        return made

    def redirect(self, old: Tensor, new: Tensor) -> None:
        """Let every consumer of `old`, in subgraphs too, read `new`."""
        if new is old:
            return
        consumers = dict.fromkeys(old.outputs)
        # graphsurgeon's lists would search all consumers for each one: `list`'s own methods.
        list.clear(old.outputs)
        for consumer in consumers:
            for index, tensor in enumerate(consumer.inputs):
                if tensor is old:
                    list.__setitem__(consumer.inputs, index, new)
                    list.append(new.outputs, consumer)

    def can_bypass(self, node: Node, source: Tensor, output: int = 0) -> str | None:
        """Why `bypass` would be wrong, or None."""
        out = node.outputs[output]
        if any(other.outputs or other.is_output for other in node.outputs if other is not out):
            return "its other outputs are used"
        if not out.is_output:
            return None
        if isinstance(source, Constant):
            return None if self.parent is None else "a subgraph's output would be an initializer"
        if source.is_input or not source.inputs:
            return "a graph output would be fed straight by an input or a capture"
        if source.is_output:
            return "two graph outputs would be one tensor"
        if source.inputs[0].graph is not self:
            return "a subgraph's output would be a tensor of the graph around"
        return None

    def bypass(self, node: Node, source: Tensor, output: int = 0) -> None:
        """Remove `node`, whose output equals `source`; graph outputs keep their names.

        Only where `can_bypass` has no objection. An output fed by a constant becomes an
        initializer under the output's name.
        """
        out = node.outputs[output]
        self.remove(node)
        if not out.is_output:
            self.redirect(out, source)
            return
        if isinstance(source, Constant):
            given = source.renamed(out.name)
            given.is_output = True
            self.constants[given.name] = given
            self.redirect(out, given)
            self.outputs[_position(self.outputs, out)] = given
            return
        producer = source.inputs[0]
        self.redirect(source, out)
        producer.outputs[_position(producer.outputs, source)] = out

    def settle(self) -> None:
        """Bring the node list up to date: drop removed nodes, place inserted ones."""
        if not self._unsettled:
            return
        settled: list[Node] = []

        def place(node: Node) -> None:
            for before in self._waiting.pop(node, ()):
                place(before)
            if not node.dead:
                settled.append(node)

        for node in self.nodes:
            place(node)
        self._name_apart(settled)
        self.nodes = settled
        self._unsettled = False

    def _name_apart(self, nodes: Sequence[Node]) -> None:
        """Number the names that several nodes inherited from one: ORT refuses a shared name."""
        seen: set[str] = set()
        for node in nodes:
            if node.name and node.name in seen:
                node.name = self.model.names.numbered(node.name)
            seen.add(node.name)

    def drop_constant(self, constant: Constant) -> None:
        """Remove an initializer that nothing reads."""
        del self.constants[constant.name]


class ModelFacts:
    """What all graphs of one model share."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self.proto = model
        self.folder = folder
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        if "ai.onnx" in self.opsets:
            self.opsets.setdefault("", self.opsets["ai.onnx"])
        self.functions = {(f.domain, f.name) for f in model.functions}
        self.names = Names()


def _position(tensors: Sequence[Tensor], wanted: Tensor) -> int:
    return next(index for index, tensor in enumerate(tensors) if tensor is wanted)
