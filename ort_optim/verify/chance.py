"""Random ops made certain: both models are fed the same drawn tensors instead.

What stands behind a random op could otherwise be judged by its shape only.

    random_tensors   what the random nodes of a model's main graph make
    make_certain     the model with such tensors fed as inputs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from ort_optim.engine import ModelSource, Value
from ort_optim.graph.walk import node_graphs
from ort_optim.verify.origins import RANDOM_OPS, TRAINING_DROPOUT_OPS

ODDS_OPS = frozenset({"Bernoulli", "Multinomial", "Sampling"})
"""Random ops that read more than a shape: what they read is compared, too."""


def random_tensors(graph: GraphProto) -> dict[str, str]:
    """The op types by the name of what they make."""
    return {node.output[0]: node.op_type for node in graph.node if node.op_type in RANDOM_OPS}


def has_random_ops(model: ModelProto) -> bool:
    """Whether there is a random op anywhere in the model, or one that may be."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    return any(_is_random(body) for body in bodies)


def _is_random(nodes: Iterable[NodeProto]) -> bool:
    for node in nodes:
        if node.op_type in RANDOM_OPS or node.op_type in TRAINING_DROPOUT_OPS:
            return True
        if any(_is_random(graph.node) for graph in node_graphs(node)):
            return True
    return False


def drawn_name(name: str) -> str:
    """The graph input that replaces the random node behind `name`."""
    return f"{name} (drawn)"


def odds_name(name: str) -> str:
    """The graph output that shows what the random node behind `name` reads."""
    return f"{name} (odds)"


def drawn_feeds(values: Mapping[str, Value]) -> dict[str, Value]:
    """Values of random tensors as feeds for what `make_certain` returns."""
    return {drawn_name(name): value for name, value in values.items()}


def make_certain(source: ModelSource, values: Mapping[str, Value]) -> ModelSource:
    """The model with the random nodes that make the tensors of `values` replaced by inputs.

    The inputs have the types of `values` and open shapes. Raises ValueError for a source that is
    only a path.
    """
    if source.proto is None:
        raise ValueError("a model that is only a path may have external data beside it")
    model = ModelProto.FromString(source.proto)
    for node in model.graph.node:
        if node.op_type not in RANDOM_OPS or node.output[0] not in values:
            continue
        name = node.output[0]
        if node.op_type in ODDS_OPS:
            model.graph.output.append(ValueInfoProto(name=odds_name(name)))
            odds = onnx.helper.make_node("Identity", [node.input[0]], [odds_name(name)])
            model.graph.node.append(odds)
        element = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(values[name]).dtype)
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(drawn_name(name), element, None)
        )
        node.CopyFrom(onnx.helper.make_node("Identity", [drawn_name(name)], [name], name=node.name))
    return ModelSource(proto=model.SerializeToString(), blobs=source.blobs)
