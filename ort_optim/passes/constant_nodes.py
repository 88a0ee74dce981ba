"""Constant nodes become initializers.

    Constant<value = c> -> t    =>    initializer t = c

All forms of the operator are known: value, value_float(s), value_int(s), value_string(s),
sparse_value. ONNX Runtime does the same when it loads a model; here it lets the passes see
constants in one form only. Conditions:

(1) t is no output of a subgraph: there ONNX wants a node's output;
(2) a sparse value is small enough to be written dense.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from ort_optim.graph.view import Constant, Graph, Node, Weight
from ort_optim.passes.base import Context, NodePass
from ort_optim.passes.common.match import is_used

NAME = "constant-nodes"

_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
    """Turn one Constant node into an initializer of the same name."""
    out = node.outputs[0]
    if not is_used(out):
        return None
    constant = _value(node, graph)
    if constant is None:
        return ctx.refuse(NAME, node, "its value is in no form that is known here")
    if out.is_output and graph.parent is not None:  # (1)
        return ctx.refuse(NAME, node, "a subgraph's output would be an initializer")
    dense_bytes = math.prod(constant.shape) * constant.dtype.itemsize
    if "sparse_value" in node.attrs and dense_bytes > ctx.max_growth_bytes:  # (2)
        return ctx.refuse(NAME, node, "its sparse value would be too large as a dense one")
    if not ctx.fuel(NAME, node, "becomes an initializer"):
        return None
    if out.is_output:
        graph.bypass(node, constant)
        return None
    graph.constants[out.name] = constant
    graph.redirect(out, constant)
    graph.remove(node)
    return None


def _value(node: Node, graph: Graph) -> Constant | None:
    """The node's value under its output's name, not read."""
    name = node.outputs[0].name
    if len(node.attrs) != 1:
        return None
    [(kind, value)] = node.attrs.items()
    if isinstance(value, Constant):
        return value.renamed(name)
    if isinstance(value, onnx.AttributeProto):
        if kind != "sparse_value" or value.ref_attr_name:
            return None
        return Constant(name, Weight(value.sparse_tensor, graph.model.folder))
    return Constant(name, np.array(value, _DTYPES[kind])) if kind in _DTYPES else None


PASS = NodePass(NAME, frozenset({"Constant"}), rewrite)
