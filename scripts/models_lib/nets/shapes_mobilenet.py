"""Drawn shapes, depthwise-separable with squeeze-excite; opset 11, dynamic batch.

HardSwish and the gate are written out (Add, Clip, Div, Mul) and the input is normalised in the
graph, as in many published MobileNetV3 files.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models_lib import drawn, export, training
from models_lib.recording import Made

SIZE = 64
EVALUATED = 120


def hard_sigmoid(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6."""
    return F.relu6(x + 3.0) / 6.0


class HardSwish(nn.Module):
    """x * relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        return x * hard_sigmoid(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * hard_sigmoid(gate)


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise, squeeze-excite, 1x1 project; residual where sizes allow."""

    def __init__(self, cin: int, wide: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and cin == cout
        self.body = nn.Sequential(
            nn.Conv2d(cin, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            HardSwish(),
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            SqueezeExcite(wide),
            HardSwish(),
            nn.Conv2d(wide, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class ShapesMobileNet(nn.Module):
    """(N, 3, 64, 64) in 0..1 -> (N, 10)."""

    def __init__(self, classes: int = len(drawn.SHAPES)) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            HardSwish(),
            InvertedResidual(16, 32, 24, 3, 2),
            InvertedResidual(24, 64, 24, 3, 1),
            InvertedResidual(24, 96, 40, 5, 2),
            InvertedResidual(40, 128, 40, 5, 1),
            InvertedResidual(40, 160, 64, 5, 2),
            nn.Conv2d(64, 192, 1, bias=False),
            nn.BatchNorm2d(192),
            HardSwish(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(192, 96), HardSwish(), nn.Dropout(0.1), nn.Linear(96, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features((x - self.mean) / self.std)
        x = F.adaptive_avg_pool2d(x, 1)
        return self.classifier(x.view(x.size(0), -1))


def scenes(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with one shape each: (N, 3, 64, 64) float32 in steps of 1/255, and (N,) kinds."""
    kinds = np.arange(count) % len(drawn.SHAPES)
    pictures = [drawn.draw(rng, SIZE, [int(k)], (0.14, 0.42)).image for k in kinds]
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255, kinds


def make(seed: int, threads: int) -> Made:
    """Trains on 5,000 drawn pictures, about two minutes."""
    training.seed_everything(seed, threads)
    rng = np.random.default_rng(seed)
    pictures, kinds = scenes(5000, rng)
    x, y = torch.from_numpy(pictures), torch.from_numpy(kinds)
    net = ShapesMobileNet()
    training.fit(
        net,
        len(x),
        lambda i: F.cross_entropy(net(x[i]), y[i], label_smoothing=0.05),
        epochs=12,
        batch=50,
        peak_lr=5e-3,
    )
    model = export.torchscript(
        net,
        (x[:2],),
        opset=11,
        inputs=["input"],
        outputs=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    eval_pictures, eval_kinds = scenes(EVALUATED, np.random.default_rng(seed + 1))
    return Made(
        model=model,
        task="classify drawn shapes: " + ", ".join(drawn.SHAPES),
        exporter="torch TorchScript, HardSwish written out, no constant folding",
        metric="top1",
        inputs={"input": eval_pictures},
        labels={"label": eval_kinds.astype(np.uint8)},
        input_ranges={"input": {"low": 0.0, "high": 1.0, "meaning": "RGB"}},
        data_source="drawn by models_lib.drawn",
        packages=("torch", "onnx", "numpy", "pillow"),
    )
