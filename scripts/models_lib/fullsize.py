"""Full-size architectures that the onnx package has no light model of, written node by node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from models_lib.builder import GraphBuilder


def resnet18(seed: int) -> onnx.ModelProto:
    """ResNet-18 for 224 x 224."""
    return _basic_resnet("resnet18", (2, 2, 2, 2), seed)


def resnet34(seed: int) -> onnx.ModelProto:
    """ResNet-34 for 224 x 224."""
    return _basic_resnet("resnet34", (3, 4, 6, 3), seed)


def _basic_resnet(name: str, depths: tuple[int, ...], seed: int) -> onnx.ModelProto:
    b = GraphBuilder(name, seed)
    x = b.conv_bn_relu("input", 3, 64, 7, 2)
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    cin = 64
    for stage, depth in enumerate(depths):
        cout = 64 << stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            branch = b.conv_bn_relu(x, cin, cout, 3, stride)
            branch = b.batch_norm(b.conv(branch, cout, cout, 3), cout)
            if stride != 1:
                x = b.batch_norm(b.conv(x, cin, cout, 1, stride), cout)
            x = b.node("Relu", b.node("Add", branch, x))
            cin = cout
    x = b.node("Flatten", b.node("GlobalAveragePool", x), axis=1)
    logits = b.node("Gemm", x, b.weight("weight", 1000, cin), b.weight("bias", 1000), transB=1)
    return b.build({"input": ["batch", 3, 224, 224]}, {logits: ["batch", 1000]})


def unet(seed: int) -> onnx.ModelProto:
    """The U-Net of Ronneberger et al. with "same" padding and batch norms, 256 x 256, 31 M
    parameters."""
    b = GraphBuilder("unet", seed)
    widths = (64, 128, 256, 512, 1024)
    skips: list[str] = []
    x, cin = "input", 3
    for cout in widths:
        if skips:
            x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = b.conv_bn_relu(b.conv_bn_relu(x, cin, cout, 3), cout, cout, 3)
        skips.append(x)
        cin = cout
    for cout, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
        kernel, bias = b.weight("weight", cin, cout, 2, 2), b.weight("bias", cout)
        x = b.node("ConvTranspose", x, kernel, bias, kernel_shape=[2, 2], strides=[2, 2])
        x = b.node("Concat", skip, x, axis=1)
        x = b.conv_bn_relu(b.conv_bn_relu(x, 2 * cout, cout, 3), cout, cout, 3)
        cin = cout
    mask = b.node("Sigmoid", b.conv(x, cin, 1, 1, bias=True))
    return b.build({"input": ["batch", 3, 256, 256]}, {mask: ["batch", 1, 256, 256]})


def mobilenet_v2(seed: int) -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al.) for 224 x 224, ReLU6 as Clip."""
    b = GraphBuilder("mobilenet_v2", seed)
    low = b.constant("clip_low", np.array(0, np.float32))
    high = b.constant("clip_high", np.array(6, np.float32))

    def conv_bn(x: str, cin: int, cout: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        weight = b.weight("weight", cout, cin // group, kernel, kernel)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        return b.batch_norm(
            b.node(
                "Conv",
                x,
                weight,
                kernel_shape=[kernel] * 2,
                pads=pads,
                strides=strides,
                group=group,
            ),
            cout,
        )

    def relu6(x: str) -> str:
        return b.node("Clip", x, low, high)

    x = relu6(conv_bn("input", 3, 32, 3, 2))
    cin = 32
    settings = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip
    for expansion, cout, repeats, first_stride in settings:
        for i in range(repeats):
            stride = first_stride if i == 0 else 1
            wide = expansion * cin
            y = relu6(conv_bn(x, cin, wide, 1)) if expansion > 1 else x
            y = relu6(conv_bn(y, wide, wide, 3, stride, group=wide))
            y = conv_bn(y, wide, cout, 1)
            x = b.node("Add", y, x) if stride == 1 and cin == cout else y
            cin = cout
    x = relu6(conv_bn(x, cin, 1280, 1))
    x = b.node("Flatten", b.node("GlobalAveragePool", x), axis=1)
    logits = b.node("Gemm", x, b.weight("weight", 1000, 1280), b.weight("bias", 1000), transB=1)
    return b.build({"input": ["batch", 3, 224, 224]}, {logits: ["batch", 1000]})


ARCHITECTURES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "mobilenet_v2": mobilenet_v2,
    "unet": unet,
}
