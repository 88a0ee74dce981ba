"""Graphs of a given number of nodes or gigabytes, for measuring how time and memory grow."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INLINE_LIMIT_BYTES = 2**31 - 2**20  # protobuf takes no message of 2 GiB
CHANNELS = 8


def make_nodes(count: int, seed: int) -> onnx.ModelProto:
    """A chain of exactly `count` nodes, opset 17, over a (1, 8, 8, 8) tensor.

    It repeats what rewrites look for, as real exports do: Conv and BatchNormalization, residual
    Add, Identity, Transpose pairs, SiLU written out, a common subexpression, a Shape-driven
    Reshape. Raises ValueError for fewer than 20 nodes.
    """
    if count < 20:
        raise ValueError(f"--nodes {count}: at least 20")
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    x = "input"
    while len(nodes) <= count - 18:
        x = _append_block(nodes, weights, x, len(weights), rng)
    while len(nodes) < count:
        nodes.append(helper.make_node("Identity", [x], [f"tail_{len(nodes)}"]))
        x = nodes[-1].output[0]
    shape = [1, CHANNELS, 8, 8]
    graph = helper.make_graph(
        nodes,
        f"nodes_{count}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _append_block(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    x: str,
    number: int,
    rng: np.random.Generator,
) -> str:
    """Appends 18 nodes; returns the name of their output."""
    fresh = itertools.count()

    def node(op: str, *inputs: str, **attributes: object) -> str:
        output = f"b{number}_{op}_{next(fresh)}"
        nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def weight(role: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"b{number}_{role}"))
        return weights[-1].name

    kernel = weight("weight", rng.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)))
    y = node("Conv", x, kernel, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    y = node(
        "BatchNormalization",
        y,
        weight("scale", rng.uniform(0.5, 1.0, CHANNELS)),
        weight("bias", rng.normal(0, 0.1, CHANNELS)),
        weight("mean", rng.normal(0, 0.1, CHANNELS)),
        weight("var", rng.uniform(0.5, 1.5, CHANNELS)),
    )
    y = node("Mul", y, node("Sigmoid", y))
    y = node("Identity", y)
    y = node("Transpose", y, perm=[0, 2, 3, 1])
    y = node("Relu", y)
    y = node("Transpose", y, perm=[0, 3, 1, 2])
    y = node("Add", node("Tanh", y), node("Tanh", y))
    dims = node("Shape", x)
    first = node("Slice", dims, _ints(weights, number, "zero", 0), _ints(weights, number, "one", 1))
    target = node("Concat", first, _ints(weights, number, "rest", CHANNELS, 8, 8), axis=0)
    y = node("Reshape", y, target)
    # So small a gain keeps the input visible at the end of the longest chain.
    gain = weight("gain", np.array([0.02]))
    return node("Add", node("Mul", node("Dropout", y), gain), x)


def _ints(weights: list[onnx.TensorProto], number: int, role: str, *values: int) -> str:
    weights.append(numpy_helper.from_array(np.array(values, np.int64), f"b{number}_{role}"))
    return weights[-1].name


def write_gigabytes(
    path: Path, gigabytes: float, seed: int, *, external: bool, width: int = 4096
) -> None:
    """A chain of Gemm and Relu over (1, width) with `gigabytes` (10^9 bytes) of weights at `path`.

    `external` puts the weights into `path` + ".data", written matrix by matrix, so that no more
    than one is in memory. Raises ValueError where the weights would not fit into the file itself.
    """
    matrix_bytes = 4 * width * width
    layers = max(1, round(gigabytes * 1e9 / matrix_bytes))
    if not external and layers * matrix_bytes > INLINE_LIMIT_BYTES:
        raise ValueError(f"--gigabytes {gigabytes} does not fit into one file: add --external")
    model = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    graph = model.graph  # filled in place: a copy would double the memory
    graph.name = f"gigabytes_{gigabytes:g}"
    shape = [1, width]
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
    x = "input"
    data = path.with_name(path.name + ".data")
    if external:
        data.unlink(missing_ok=True)
    for layer in range(layers):
        # Without a bias the rectified signal keeps its size through He-normal matrices.
        tensor = graph.initializer.add(
            name=f"weight_{layer}", data_type=TensorProto.FLOAT, dims=[width, width]
        )
        rng = np.random.default_rng([seed, layer])
        values = rng.standard_normal((width, width), np.float32)
        values *= np.float32(np.sqrt(2 / width))
        if external:
            with data.open("ab") as file:
                file.write(values)
            tensor.data_location = TensorProto.EXTERNAL
            where = {"location": data.name, "offset": layer * matrix_bytes, "length": matrix_bytes}
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
        else:
            tensor.raw_data = values.tobytes()
        graph.node.append(helper.make_node("Gemm", [x, tensor.name], [f"gemm_{layer}"]))
        graph.node.append(helper.make_node("Relu", [f"gemm_{layer}"], [f"relu_{layer}"]))
        x = f"relu_{layer}"
    graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, shape))
    path.write_bytes(model.SerializeToString())
