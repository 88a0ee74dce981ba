"""Convolution layers of real models: the list in `conv_layers.csv`, and small models made of them.

Layer, read_layers, write_layers   the list; one row for each distinct convolution
layer_class                        the group that a table puts a layer into
chain_of                           four layers in a row that cost what this one costs
conv_model                         an ONNX model of Conv + bias + ReLU for each of some layers
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ort_optim.kernels.spec import ConvSpec

LAYERS_FILE = Path(__file__).with_name("conv_layers.csv")
CLASSES = ("3x3s1", "pointwise", "strided", "other", "depthwise", "first", "grouped", "transposed")
FIRST_CIN = 4  # up to here a layer reads an image, not features
CHAIN_LENGTH = 4
OPSET = 17


@dataclass(frozen=True)
class Layer:
    """A convolution as it stands in `count` places of `models`; `spec` has all sizes."""

    spec: ConvSpec
    models: tuple[str, ...]
    count: int

    @property
    def name(self) -> str:
        """For people and for `--layers`: class, figures and models."""
        return f"{layer_class(self.spec)} {self.spec} pads {self.spec.pads} {' '.join(self.models)}"


def layer_class(spec: ConvSpec) -> str:
    """One of `CLASSES`; the first of these that fits, in the order of the lines below."""
    if spec.transposed:
        return "transposed"
    if spec.is_depthwise:
        return "depthwise"
    if spec.group > 1:
        return "grouped"
    if spec.Cin <= FIRST_CIN:
        return "first"
    if spec.is_pointwise:
        return "pointwise"
    if spec.strides != (1, 1):
        return "strided"
    if spec.kernel == (3, 3) and spec.dilations == (1, 1):
        return "3x3s1"
    return "other"


def chain_of(spec: ConvSpec) -> list[ConvSpec] | None:
    """Four layers, each reading the one before, or None where there is no such chain.

    (1) Cin == Cout, stride 1: four times the layer itself. With fewer pads than the kernel needs,
        each reads a somewhat smaller image.
    (2) Cin != Cout, stride 1, one group, no image or single map on either side: Cin -> Cout ->
        Cin -> Cout -> Cin, all four with the same number of multiplications.
    (3) Anything else has no chain.
    """
    if spec.strides != (1, 1) or spec.transposed or spec.H is None or spec.W is None:
        return None
    if spec.Cin != spec.Cout and (spec.group > 1 or min(spec.Cin, spec.Cout) <= FIRST_CIN):
        return None
    chain = [spec]
    while len(chain) < CHAIN_LENGTH:
        last = chain[-1]
        if last.OH is None or last.OW is None or 2 * min(last.OH, last.OW) < min(spec.H, spec.W):
            return None
        chain.append(replace(last, Cin=last.Cout, Cout=last.Cin, H=last.OH, W=last.OW))
    return chain


def conv_model(specs: Sequence[ConvSpec], seed: int = 0) -> onnx.ModelProto:
    """Input `x`, for each spec Conv with bias and ReLU, output `y`; random weights that keep the
    activations' size."""
    rng = np.random.default_rng(seed)
    nodes, weights, value = [], [], "x"
    for number, spec in enumerate(specs):
        fan_in = spec.group_Cin * spec.KH * spec.KW
        kernel = rng.standard_normal(spec.weight_shape, np.float32) * np.sqrt(2 / fan_in)
        bias = rng.standard_normal(spec.Cout, np.float32) * 0.1
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{number}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"b{number}"))
        attributes = {
            "kernel_shape": spec.kernel,
            "strides": spec.strides,
            "dilations": spec.dilations,
            "pads": spec.pads,
            "group": spec.group,
        }
        if spec.transposed:
            attributes["output_padding"] = spec.output_padding
        op = "ConvTranspose" if spec.transposed else "Conv"
        inputs = [value, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node(op, inputs, [f"c{number}"], f"conv{number}", **attributes))
        value = "y" if number == len(specs) - 1 else f"a{number}"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [value], f"relu{number}"))
    first, last = specs[0], specs[-1]
    x = helper.make_tensor_value_info(
        "x", TensorProto.FLOAT, [first.N, first.Cin, first.H, first.W]
    )
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [last.N, last.Cout, last.OH, last.OW])
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, ir_version=8, opset_imports=imports)


COLUMNS = (
    *("class", "Cin", "Cout", "KH", "KW", "strides", "dilations", "pads", "group"),
    *("N", "H", "W", "transposed", "output_padding", "count", "models"),
)


def _joined(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def to_row(layer: Layer) -> dict[str, str | int]:
    """The layer in the columns of `COLUMNS`; (1, 2) is written 1x2."""
    spec = layer.spec
    assert None not in (spec.N, spec.H, spec.W)
    return {
        "class": layer_class(spec),
        **{name: getattr(spec, name) for name in ("Cin", "Cout", "KH", "KW", "group")},
        **{name: getattr(spec, name) for name in ("N", "H", "W")},
        **{name: _joined(getattr(spec, name)) for name in ("strides", "dilations", "pads")},
        "transposed": int(spec.transposed),
        "output_padding": _joined(spec.output_padding),
        "count": layer.count,
        "models": ";".join(layer.models),
    }


def spec_of_row(row: Mapping[str, str | int]) -> ConvSpec:
    """The spec of a row with the columns of `COLUMNS`, as read or as `to_row` makes it."""

    def pair(name: str) -> tuple[int, int]:
        first, second = map(int, str(row[name]).split("x"))
        return first, second

    top, left, bottom, right = map(int, str(row["pads"]).split("x"))
    return ConvSpec(
        Cin=int(row["Cin"]),
        Cout=int(row["Cout"]),
        kernel=(int(row["KH"]), int(row["KW"])),
        strides=pair("strides"),
        dilations=pair("dilations"),
        pads=(top, left, bottom, right),
        group=int(row["group"]),
        N=int(row["N"]),
        H=int(row["H"]),
        W=int(row["W"]),
        transposed=bool(int(row["transposed"])),
        output_padding=pair("output_padding"),
    )


def read_layers(path: Path = LAYERS_FILE) -> list[Layer]:
    """All layers of the list, in its order."""
    with path.open(newline="") as lines:
        return [
            Layer(spec_of_row(row), tuple(row["models"].split(";")), int(row["count"]))
            for row in csv.DictReader(lines)
        ]


def write_layers(layers: Sequence[Layer], path: Path = LAYERS_FILE) -> None:
    """Write the list: by class, then the most multiplications first."""
    ordered = sorted(
        layers, key=lambda a: (CLASSES.index(layer_class(a.spec)), -(a.spec.macs or 0), str(a.spec))
    )
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(to_row, ordered))
