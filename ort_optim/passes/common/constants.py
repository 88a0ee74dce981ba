"""What the passes that compute constants share: finding known values, and putting them in place.

Names used here
    constant_value     the value of a Constant node
    known_value        the value of a tensor that is constant, however it is written
    materialize        a node's outputs become constants
    captures           what the subgraphs of a node read from outside of them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from ort_optim.graph import weights
from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.graph.weights import Array
from ort_optim.passes.common.match import is_used

_PLAIN_ATTRIBUTES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def constant_value(node: Node) -> Array | None:
    """The value of a Constant node; None for other nodes and for references to attributes."""
    if not node.is_op("Constant"):
        return None
    for name, value in node.attrs.items():
        if isinstance(value, Constant):
            return value.values
        if name == "sparse_value" and not value.ref_attr_name:
            return weights.sparse_to_array(value.sparse_tensor, _folder(node))
        if name in _PLAIN_ATTRIBUTES and not isinstance(value, onnx.AttributeProto):
            return np.array(value, dtype=_PLAIN_ATTRIBUTES[name])
    return None


def known_value(tensor: Tensor) -> Array | None:
    """The value of an initializer or of a Constant node's output."""
    if isinstance(tensor, Constant):
        return tensor.values
    return constant_value(tensor.inputs[0]) if tensor.inputs else None


def materialize(node: Node, values: Mapping[Variable, Array]) -> None:
    """Replace a node by the values of its used outputs, which keep their names.

    An output of the graph comes from a Constant node then, as an initializer is no node's output.
    """
    graph = node.graph
    assert graph is not None
    used = [out for out in node.outputs if is_used(out)]
    for out in used:
        if out.is_output:
            node.outputs.remove(out)
            value = Constant("", values[out])
            made = graph.make("Constant", [], [out], {"value": value}, like=node)
            graph.insert([made], at=node)
        else:
            constant = Constant(out.name, values[out])
            graph.constants[out.name] = constant
            graph.redirect(out, constant)
    graph.remove(node)


def captures(node: Node) -> Iterator[Tensor]:
    """The tensors that the node's subgraphs, nested ones included, read from the graphs around."""
    for below in node.subgraphs():
        yield from _captured_by(below, frozenset())


def _captured_by(graph: Graph, outer_own: frozenset[Tensor]) -> Iterator[Tensor]:
    own = outer_own.union(
        graph.inputs,
        graph.constants.values(),
        (out for inner in graph.nodes for out in inner.outputs),
    )
    for inner in graph.nodes:
        yield from (tensor for tensor in inner.inputs if tensor.name and tensor not in own)
        for below in inner.subgraphs():
            yield from _captured_by(below, own)
    yield from (tensor for tensor in graph.outputs if tensor not in own)


def _folder(node: Node) -> Path:
    assert node.graph is not None
    return node.graph.model.folder
