"""Make `conv_layers.csv`: every distinct float32 2-D convolution of a set of known models.

    python scripts/conv_layers.py FOLDER

FOLDER holds the models of `FILES`, below any sub-folder; its `INDEX.csv` may give input shapes (see
README.md). The others need no file: the light models of the onnx package, and architectures that
`make_models.py` writes. Each model runs once in ONNX Runtime, so sizes are those really seen.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime as ort
from _common import list_models
from _feeds import SCHEMES, make_feeds
from _layers import LAYERS_FILE, Layer, write_layers
from models_lib import fullsize, light
from onnx import NodeProto, TensorProto, helper

from ort_optim.kernels.spec import ConvSpec

LIGHT = (
    *("resnet50", "vgg19", "densenet121", "inception_v1", "inception_v2"),
    *("squeezenet", "shufflenet"),
)
MADE = {"unet": fullsize.unet, "mobilenet_v2": fullsize.mobilenet_v2, "resnet18": fullsize.resnet18}
FILES = {
    "waifu2x_upconv7": "waifu2x_upconv7_scale2x.onnx",
    "tbefn": "tbefn_240x320.onnx",
    "fns_candy": "fns_candy.onnx",
    "xfeat": "xfeat_256x256.onnx",
    "yolox_nano": "yolox_nano_416.onnx",
    "ppocr_v3_det": "ppocr_v3_det_ch.onnx",
    "ultraface": "ultraface_rfb_640.onnx",
}


def convolutions(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> Iterator[ConvSpec]:
    """Every convolution of the main graph with two spatial dimensions, sizes as they come out of
    one run. Those with other ranks or types are left out."""
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    initializers = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input}
    watched = {name for node in nodes for name in node.input[:2]} - initializers.keys() - inputs
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    present = {value.name for value in shown.graph.output}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in sorted(watched - present)
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(shown.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = make_feeds(session.get_inputs(), shapes, SCHEMES[0], seed=0)
    seen = {name: list(value.shape) for name, value in feeds.items()} | initializers
    for name in sorted(watched):  # one at a time: all activations at once may not fit in memory
        seen[name] = list(session.run([name], feeds)[0].shape)
    for node in nodes:
        x, w = seen[node.input[0]], seen[node.input[1]]
        if len(x) == 4:
            yield spec_of(node, x, w)


def spec_of(node: NodeProto, x: list[int], w: list[int]) -> ConvSpec:
    """The convolution of a node whose input and weights have the shapes `x` and `w`."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    transposed = node.op_type == "ConvTranspose"
    group = attributes.get("group", 1)
    kernel = (w[2], w[3])
    strides = tuple(attributes.get("strides", (1, 1)))
    dilations = tuple(attributes.get("dilations", (1, 1)))
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    auto = attributes.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        if transposed:
            raise SystemExit(f"{node.name}: auto_pad of a transposed convolution")
        ends = []
        for size, k, stride, dilation in zip(x[2:], kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            small = total // 2
            ends.append((small, total - small) if auto == b"SAME_UPPER" else (total - small, small))
        pads = (ends[0][0], ends[1][0], ends[0][1], ends[1][1])
    return ConvSpec(
        Cin=x[1],
        Cout=w[1] * group if transposed else w[0],
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=group,
        N=x[0],
        H=x[2],
        W=x[3],
        transposed=transposed,
        output_padding=tuple(attributes.get("output_padding", (0, 0))),
    )


def every_model(folder: Path) -> Iterator[tuple[str, onnx.ModelProto, dict[str, list[int]]]]:
    """Name, model and input shapes."""
    for name in LIGHT:
        yield name, onnx.load(light.FOLDER / f"light_{name}.onnx"), {}
    for name, make in MADE.items():
        yield name, make(0), {}
    found = {model.path.name: model for model in list_models(folder)}
    for name, file in FILES.items():
        if file not in found:
            raise SystemExit(f"no {file} below {folder}")
        yield name, onnx.load(found[file].path), found[file].shapes


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=LAYERS_FILE)
    args = parser.parse_args()
    counts: Counter[ConvSpec] = Counter()
    models: dict[ConvSpec, list[str]] = {}
    for name, model, shapes in every_model(args.folder):
        found = Counter(convolutions(model, shapes))
        print(f"{name}: {found.total()} convolutions, {len(found)} distinct", flush=True)
        counts += found
        for spec in found:
            models.setdefault(spec, []).append(name)
    layers = [Layer(spec, tuple(models[spec]), count) for spec, count in counts.items()]
    write_layers(layers, args.out)
    print(f"{len(layers)} layers in {args.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
