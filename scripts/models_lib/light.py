"""Full-size architectures from the weightless "light" models inside the onnx package.

Their weights are ConstantOfShape nodes (all elements 0.02), which constant folding would collapse
and which make every activation nonsense. Here each becomes a seeded random initializer; the node
structure, names and opset stay. IR version 4, so that weights need not be listed as graph inputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models_lib.builder import Weights, fill_weights

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def make(name: str, seed: int) -> onnx.ModelProto:
    """The architecture `name` of NAMES with random weights."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph = model.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    fills = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes = {n.output[0]: tuple(int(d) for d in stored[n.input[0]]) for n in fills}
    # Short vectors are stored as they are, and as meaningless as the rest.
    shapes |= {k: v.shape for k, v in stored.items() if v.dtype == np.float32}

    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    weights = Weights(shapes, seed)
    fill_weights(nodes, weights, [output.name for output in graph.output])

    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used and t.name not in weights.values]
    drawn = [numpy_helper.from_array(v, n) for n, v in weights.values.items()]
    inputs = [v for v in graph.input if v.name not in stored]
    for field, content in (
        (graph.node, nodes),
        (graph.initializer, drawn + kept),
        (graph.input, inputs),
    ):
        content = [type(item).FromString(item.SerializeToString()) for item in content]
        del field[:]
        field.extend(content)
    model.ir_version = 4
    return model
